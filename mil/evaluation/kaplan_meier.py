"""Kaplan-Meier curves of the groups that a frozen cut makes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from lifelines import KaplanMeierFitter
from matplotlib.axes import Axes

from mil.endpoints.survival import Survival
from mil.evaluation.groups import assign, outcomes
from mil.evaluation.style import COLOURS, compared, interval


def draw_survival(axes: Axes, table: pd.DataFrame, endpoint: Survival, report: Mapping[str, Any]) -> None:
    """Curves with confidence bands, censoring ticks and the numbers at risk below; one curve where no cut was set."""
    curves = risk_groups(table, endpoint, report)
    end = max(float(patients["time"].max()) for _, patients in curves)
    axes.set(xlim=(0, end * 1.02), ylim=(0, 1.02), ylabel="Survival without event", xlabel=f"Time ({endpoint.unit})")
    for (name, patients), colour, line in zip(curves, COLOURS, ("-", "--"), strict=False):
        _curve(axes, name, patients, colour, line)
    numbers_at_risk(axes, curves)
    patients = report["patients"]
    counts = f"{patients['n']} patients, {patients['events']} events"
    axes.set_title(f"C-index {interval(report['metrics']['c_index'])}, {counts}", loc="left")
    axes.legend(loc="best", title="\n".join(notes(report)), alignment="left")


def risk_groups(table: pd.DataFrame, endpoint: Survival, report: Mapping[str, Any]) -> list[tuple[str, pd.DataFrame]]:
    """The reported patients of low and of high risk, as `groups.outcomes` has them, or all where no cut was set."""
    if report["groups"] is None:
        return [("all patients", outcomes(table[table["role"] == "report"], endpoint))]
    patients, _ = assign(table, endpoint)
    found = [("low risk", patients[~patients["high"]]), ("high risk", patients[patients["high"]])]
    return [(name, group) for name, group in found if len(group)]


def _curve(axes: Axes, name: str, patients: pd.DataFrame, colour: str, line: str) -> None:
    fit = KaplanMeierFitter().fit(patients["time"], patients["event"])
    times, survival = fit.timeline, fit.survival_function_.to_numpy()[:, 0]
    low, high = fit.confidence_interval_.to_numpy().T
    label = f"{name}: {len(patients)} patients, {int(patients['event'].sum())} events"
    axes.step(times, survival, where="post", color=colour, linestyle=line, label=label)
    axes.fill_between(times, low, high, step="post", color=colour, alpha=0.18, linewidth=0)
    censored = patients.loc[~patients["event"], "time"].to_numpy()
    axes.plot(censored, fit.predict(censored), "|", color=colour, markersize=5, markeredgewidth=0.8)


def numbers_at_risk(axes: Axes, curves: list[tuple[str, pd.DataFrame]]) -> None:
    """Under the axis, a row a curve, a column a tick."""
    ticks = [float(tick) for tick in axes.get_xticks() if 0 <= tick <= axes.get_xlim()[1]]
    blended = axes.get_xaxis_transform()

    def write(text: str, x: float, row: int, side: str, colour: str) -> None:
        down, left = -38 - 13 * row, -18 if side == "right" else 0
        place: dict[str, Any] = {"xycoords": blended, "textcoords": "offset points", "fontsize": 8, "va": "top"}
        axes.annotate(text, (x, 0), (left, down), ha=side, color=colour, **place)

    write("at risk", 0, 0, "right", "black")
    for row, (name, patients) in enumerate(curves, start=1):
        write(name, 0, row, "right", COLOURS[row - 1])
        for tick in ticks:
            at_risk = int(np.sum(patients["time"].to_numpy() >= tick))
            write(str(at_risk), tick, row, "center", COLOURS[row - 1])


def notes(report: Mapping[str, Any]) -> list[str]:
    """Hazard ratio, log-rank p, and the others' C-index, where the report has them."""
    groups, lines = report["groups"] or {}, []
    if groups.get("hazard_ratio"):
        lines.append(f"hazard ratio {interval(groups['hazard_ratio'])}")
    p = groups.get("log_rank_p")
    if p is not None:
        lines.append("log-rank p < 0.001" if p < 0.001 else f"log-rank p = {p:.3f}")
    return lines + [f"C-index of {line}" for line in compared(report, "c_index")]
