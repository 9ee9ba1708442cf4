"""Reported patients by group of risk, and what is written next to their curves."""

from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mil.report.evaluation import Evaluation
from mil.report.figures.style import COLOURS, RISK_COLOURS, compared, interval, p_value, short
from mil.report.schema import Report
from mil.report.sections.groups import RiskGroups, assigned, outcomes


class Group(NamedTuple):
    """The patients of one curve."""

    name: str
    patients: pd.DataFrame
    """`time`, `event` and `code`, a row a patient, indexed by patient"""
    colour: str


def risk_groups(evaluation: Evaluation, report: Report) -> list[Group]:
    """Return the groups from the lowest risk to the highest, or all patients where no cut was set."""
    if report.section(RiskGroups) is None:
        rows = evaluation.table[evaluation.table["role"] == "report"]
        return [Group("all patients", outcomes(rows, evaluation), COLOURS[0])]
    patients, _ = assigned(evaluation)
    names = list(patients["group"].cat.categories)
    colours = RISK_COLOURS if len(names) > 2 else (RISK_COLOURS[0], RISK_COLOURS[-1])
    members = [(name, patients[patients["group"] == name]) for name in names]
    return [Group(f"{name} risk", rows, colour) for (name, rows), colour in zip(members, cycle(colours)) if len(rows)]


def numbers_at_risk(axes: Axes, groups: list[Group]) -> None:
    """Write the numbers at risk under the axis, a row for each group and a column for each tick."""
    ticks = [float(tick) for tick in axes.get_xticks() if 0 <= tick <= axes.get_xlim()[1]]
    blended = axes.get_xaxis_transform()

    def write(text: str, x: float, row: int, side: str, colour: str) -> None:
        down, left = -36 - 13 * row, -20 if side == "right" else 0
        place: dict[str, Any] = {"xycoords": blended, "textcoords": "offset points", "fontsize": 8, "va": "top"}
        axes.annotate(text, (x, 0), (left, down), ha=side, color=colour, **place)

    write("at risk", 0, 0, "right", "black")
    for row, (name, patients, _) in enumerate(groups, start=1):
        write(short(name, 18), 0, row, "right", "black")
        for tick in ticks:
            at_risk = int(np.sum(patients["time"].to_numpy() >= tick))
            write(str(at_risk), tick, row, "center", "black")


def notes(report: Report) -> list[str]:
    """Return hazard ratios, log-rank p, and the C-index of other models, where the report has them."""
    groups, lines = report.section(RiskGroups), list[str]()
    if groups is not None:
        for ratio in (*groups.hazard_ratios, *groups.next_hazard_ratios):
            lines += [f"HR {ratio.group} vs {ratio.reference}:", f"    {interval(ratio.estimate)}"]
        if groups.log_rank_p is not None:
            lines.append(f"log-rank {p_value(groups.log_rank_p)}")
    return lines + compared(report, "c_index", "C-index, ")
