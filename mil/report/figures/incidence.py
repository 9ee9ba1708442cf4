"""Cumulative incidence of competing causes in the groups that a frozen cut makes."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.report.evaluation import Evaluation
from mil.report.figures.risk_groups import Group, notes, numbers_at_risk, risk_groups
from mil.report.figures.style import LINES, canvas, in_words, interval, short, side_legend
from mil.report.schema import Report
from mil.stats.survival_metrics import aalen_johansen


def incidence(evaluation: Evaluation, report: Report) -> Figure | None:
    """Draw Aalen-Johansen curves, a colour for each group and dashes for each cause; None without competing causes."""
    view = evaluation.endpoint.survival
    if view is None or not view.causes:
        return None
    groups = risk_groups(evaluation, report)
    figure = canvas(4.6)
    axes = figure.add_subplot()
    highest = max(draw_group(axes, group, view.causes) for group in groups)
    end = max(float(group.patients["time"].max()) for group in groups)
    axes.set(xlim=(0, end * 1.02), xlabel=f"Time ({view.unit})", ylabel="Cumulative incidence")
    top = axis_end(highest)
    axes.set(ylim=(-0.015 * top, top))  # so that a curve at zero is seen
    numbers_at_risk(axes, groups)
    counts = ", ".join(f"{count} {in_words(name)}" for name, count in report.patients.items() if name != "n")
    title = f"C-index of {short(in_words(view.causes[0]))} {interval(report.metrics.get('c_index'))}"
    axes.set_title(f"{title}, {report.patients['n']} patients, {counts}")
    side_legend(axes, notes(report), labelspacing=0.8)
    return figure


def axis_end(highest: float) -> float:
    """Return where an axis of incidences ends: a little above the highest curve, at least at 0.05."""
    return min(1.02, max(0.05, 1.15 * highest))


def draw_group(axes: Axes, group: Group, causes: Sequence[str]) -> float:
    """Draw a curve for each cause, and return the highest incidence."""
    time, code = group.patients["time"].to_numpy(), group.patients["code"].to_numpy()
    moments, values = aalen_johansen(time, code, len(causes))
    ends = [0.0, *moments, float(time.max())]
    for number, (cause, heights) in enumerate(zip(causes, values, strict=True)):
        steps = [0.0, *heights, heights[-1] if len(heights) else 0.0]
        label = f"{group.name}, {short(in_words(cause))}:\n{int((code == number + 1).sum())} of {len(time)}"
        axes.step(ends, steps, where="post", color=group.colour, linestyle=LINES[number % len(LINES)], label=label)
    return max(float(heights[-1]) if len(heights) else 0.0 for heights in values)
