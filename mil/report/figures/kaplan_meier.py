"""Kaplan-Meier curves of the groups that a frozen cut makes."""

from math import floor
from typing import Any

import numpy as np
from lifelines import KaplanMeierFitter
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.report.evaluation import Evaluation
from mil.report.figures.risk_groups import Group, notes, numbers_at_risk, risk_groups
from mil.report.figures.style import LINES, canvas, count_folds, interval, side_legend
from mil.report.schema import Report


def kaplan_meier(evaluation: Evaluation, report: Report) -> Figure | None:
    """Draw curves with 95% bands, ticks of censoring and the numbers at risk; None where causes compete."""
    view = evaluation.endpoint.survival
    if view is None or view.causes:
        return None
    groups = risk_groups(evaluation, report)
    figure = canvas(4.4)
    axes = figure.add_subplot()
    end = max(float(group.patients["time"].max()) for group in groups)
    lowest = min(draw_group(axes, group, line) for group, line in zip(groups, LINES, strict=False))
    start = axis_start(lowest)
    label = f"Share without event (axis from {start:g})" if start else "Share without event"
    axes.set(xlim=(0, end * 1.02), ylim=(start, 1 + 0.02 * (1 - start)), ylabel=label, xlabel=f"Time ({view.unit})")
    numbers_at_risk(axes, groups)
    counts = f"{report.patients['n']} patients, {report.patients['events']} events, {count_folds(report)}"
    axes.set_title(f"C-index {interval(report.metrics.get('c_index'))}, {counts}")
    side_legend(axes, notes(report), labelspacing=0.8)
    return figure


def axis_start(lowest: float) -> float:
    """Return where the axis begins: at 0, but for curves that stay in the upper half a tenth below the lowest band."""
    return 0.0 if lowest < 0.5 else floor(10 * lowest) / 10 - 0.1


def draw_group(axes: Axes, group: Group, line: Any) -> float:
    """Draw one curve with its band, a tick where a patient was censored, and return the lower end of the band."""
    patients, colour = group.patients, group.colour
    fit = KaplanMeierFitter().fit(patients["time"], patients["event"])
    times, survival = fit.timeline, fit.survival_function_.to_numpy()[:, 0]
    low, high = fit.confidence_interval_.to_numpy().T
    label = f"{group.name}:\n{len(patients)} patients, {int(patients['event'].sum())} events"
    axes.step(times, survival, where="post", color=colour, linestyle=line, label=label)
    axes.fill_between(times, low, high, step="post", color=colour, alpha=0.18, linewidth=0)
    censored = patients.loc[~patients["event"], "time"].to_numpy()
    axes.plot(censored, fit.predict(censored), "|", color=colour, markersize=5, markeredgewidth=0.8)
    return float(np.nanmin(np.append(low, survival)))
