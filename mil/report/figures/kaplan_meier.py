"""Kaplan-Meier curves of the groups that a frozen cut makes."""

from typing import Any

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
    axes.set(xlim=(0, end * 1.02), ylim=(0, 1.02), ylabel="Share without event", xlabel=f"Time ({view.unit})")
    for group, line in zip(groups, LINES, strict=False):
        draw_group(axes, group, line)
    numbers_at_risk(axes, groups)
    counts = f"{report.patients['n']} patients, {report.patients['events']} events, {count_folds(report)}"
    axes.set_title(f"C-index {interval(report.metrics.get('c_index'))}, {counts}")
    side_legend(axes, notes(report), labelspacing=0.8)
    return figure


def draw_group(axes: Axes, group: Group, line: Any) -> None:
    """Draw one curve with its band; a tick where a patient was censored."""
    patients, colour = group.patients, group.colour
    fit = KaplanMeierFitter().fit(patients["time"], patients["event"])
    times, survival = fit.timeline, fit.survival_function_.to_numpy()[:, 0]
    low, high = fit.confidence_interval_.to_numpy().T
    label = f"{group.name}:\n{len(patients)} patients, {int(patients['event'].sum())} events"
    axes.step(times, survival, where="post", color=colour, linestyle=line, label=label)
    axes.fill_between(times, low, high, step="post", color=colour, alpha=0.18, linewidth=0)
    censored = patients.loc[~patients["event"], "time"].to_numpy()
    axes.plot(censored, fit.predict(censored), "|", color=colour, markersize=5, markeredgewidth=0.8)
