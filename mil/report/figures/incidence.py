"""Cumulative incidence of competing causes in the groups that a frozen cut makes."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.endpoints.survival_view import SurvivalView
from mil.report.evaluation import Evaluation
from mil.report.figures.risk_groups import Group, notes, numbers_at_risk, risk_groups
from mil.report.figures.style import LINES, beside, canvas, interval, short
from mil.report.schema import Report
from mil.stats.survival_metrics import aalen_johansen


def incidence(evaluation: Evaluation, report: Report) -> Figure | None:
    """Aalen-Johansen curves, a colour a group and dashes a cause, with the numbers at risk below; or none."""
    view = evaluation.endpoint.survival
    if view is None or not view.causes:
        return None
    groups = risk_groups(evaluation, report)
    if not groups:
        return None
    figure = canvas(4.6)
    axes = figure.add_subplot()
    for group in groups:
        draw_group(axes, evaluation, view, group)
    end = max(float(group.patients["time"].max()) for group in groups)
    axes.set(xlim=(0, end * 1.02), ylim=(0, 1.02), ylabel="Cumulative incidence", xlabel=f"Time ({view.unit})")
    numbers_at_risk(axes, groups)
    counts = ", ".join(f"{amount} {name}" for name, amount in report.patients.items() if name != "n")
    title = f"C-index of {short(view.causes[0])} {interval(report.metrics.get('c_index'))}"
    axes.set_title(f"{title}, {report.patients['n']} patients, {counts}")
    beside(axes, notes(report), labelspacing=0.8)
    return figure


def draw_group(axes: Axes, evaluation: Evaluation, view: SurvivalView, group: Group) -> None:
    """A curve a cause."""
    time, code = view.event_times(evaluation.endpoint.encode(evaluation.reported.loc[group.patients.index])).numpy().T
    moments, values = aalen_johansen(time, code, len(view.causes))
    ends = [0.0, *moments, float(time.max())]
    for number, (cause, heights) in enumerate(zip(view.causes, values, strict=True)):
        steps = [0.0, *heights, heights[-1] if len(heights) else 0.0]
        label = f"{group.name}, {short(cause)}:\n{int((code == number + 1).sum())} of {len(time)}"
        axes.step(ends, steps, where="post", color=group.colour, linestyle=LINES[number % len(LINES)], label=label)
