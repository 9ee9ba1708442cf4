"""Cumulative incidence of competing causes in the groups that a frozen cut makes."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from mil.endpoints.competing_risks import CompetingRisks
from mil.evaluation.kaplan_meier import notes, numbers_at_risk, risk_groups
from mil.evaluation.style import COLOURS, interval
from mil.metrics.survival import aalen_johansen

_LINES = ("-", "--", ":", "-.")


def draw_incidence(axes: Axes, table: pd.DataFrame, endpoint: CompetingRisks, report: Mapping[str, Any]) -> None:
    """Aalen-Johansen curves, a colour a group and a line style a cause, with the numbers at risk below."""
    curves = risk_groups(table, endpoint, report)
    known = table.drop_duplicates("patient").set_index("patient")
    for (name, patients), colour in zip(curves, COLOURS, strict=False):
        _curves(axes, f"{name}, ", endpoint, known.loc[patients.index], colour)
    end = max(float(patients["time"].max()) for _, patients in curves)
    axes.set(xlim=(0, end * 1.02), ylim=(0, 1.02), ylabel="Cumulative incidence", xlabel=f"Time ({endpoint.unit})")
    numbers_at_risk(axes, curves)
    counts = ", ".join(f"{amount} {name}" for name, amount in report["patients"].items() if name != "n")
    title = f"C-index of {endpoint.causes[0]} {interval(report['metrics']['c_index'])}"
    axes.set_title(f"{title}\n{report['patients']['n']} patients, {counts}", loc="left")
    axes.legend(loc="best", title="\n".join(notes(report)), alignment="left")


def _curves(axes: Axes, group: str, endpoint: CompetingRisks, rows: pd.DataFrame, colour: str) -> None:
    time, code = endpoint.encode(rows).numpy().T
    moments, values = aalen_johansen(time, code, len(endpoint.causes))
    ends = [0.0, *moments, float(time.max())]
    for number, (cause, incidence) in enumerate(zip(endpoint.causes, values, strict=True)):
        steps = [0.0, *incidence, incidence[-1] if len(incidence) else 0.0]
        label = f"{group}{cause}: {int((code == number + 1).sum())} of {len(rows)}"
        axes.step(ends, steps, where="post", color=colour, linestyle=_LINES[number % len(_LINES)], label=label)
