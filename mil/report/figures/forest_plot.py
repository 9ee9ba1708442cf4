"""A forest of subgroups: each level's metric with its interval, and those that cannot be estimated."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from mil.report.evaluation import Evaluation
from mil.report.figures.style import COLOURS, GREY, WIDTH, interval, short
from mil.report.page.words import named
from mil.report.schema import Report
from mil.report.sections.subgroups import SubgroupRow, Subgroups
from mil.stats.estimate import Estimate

_PLACE: Mapping[str, Any] = {"va": "center", "size": 8, "clip_on": False}
_LINE, _HEAD, _FOOT = 0.2, 0.6, 0.55
"""Inches of a row, and above and below the rows."""
_LEFT, _AMOUNT, _AXIS, _END, _VALUE = 0.015, 0.375, 0.40, 0.76, 0.78
"""Where names begin, amounts end, the axis reaches and values begin, as shares of the width."""


def subgroups(evaluation: Evaluation, report: Report) -> Figure | None:
    """No row is left out: one that cannot be estimated says so; none without subgroups."""
    section = report.section(Subgroups)
    if section is None:
        return None
    lines = _lines([row for row in section.rows if row.variable != "all"])
    tall = _HEAD + _LINE * len(lines) + _FOOT
    figure = Figure(figsize=(WIDTH, tall))  # placed by hand: a layout engine would not know how wide the names are
    axes = figure.add_axes((_AXIS, _FOOT / tall, _END - _AXIS, _LINE * len(lines) / tall))
    metric = evaluation.endpoint.metric
    draw_forest(axes, lines, report.metrics.get(metric), metric)
    return figure


def draw_forest(axes: Axes, lines: Sequence[str | SubgroupRow], overall: Estimate | None, metric: str) -> None:
    """A row a level under its variable's name; the dashed line is everybody's value."""
    axes.set(ylim=(len(lines) - 0.5, -0.5), yticks=[], xlabel=f"{named(metric)}, 95% interval")
    axes.spines["left"].set_visible(False)
    if overall is not None and overall.value is not None:
        axes.axvline(overall.value, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    for row, line in enumerate(lines):
        if isinstance(line, str):
            _write(axes, _LEFT, row, short(line, 34), weight="bold", ha="left")
        else:
            _draw_level(axes, row, line)
    _write(axes, _AMOUNT, -0.9, _counted(lines), ha="right", color=GREY)
    _write(axes, _VALUE, -0.9, "95% interval", ha="left", color=GREY)
    _write(
        axes,
        _LEFT,
        -2.0,
        f"{named(metric)} by subgroup; all patients (dashed): {interval(overall)}",
        ha="left",
        size=9.5,
    )


def _counted(lines: Sequence[str | SubgroupRow]) -> str:
    """What stands beside the patients; of several classes the rarest, which decides what can be estimated."""
    levels = [line for line in lines if not isinstance(line, str)]
    if any("events" in line.value.counts for line in levels):
        return "n (events)"
    if any("positives" in line.value.counts for line in levels):
        return "n (rarest)" if any(line.questions for line in levels) else "n (positive)"
    return "n"


def _draw_level(axes: Axes, row: int, level: SubgroupRow) -> None:
    estimate = level.value
    events = estimate.counts.get("positives", estimate.counts.get("events"))
    look = {"color": GREY if estimate.value is None else "black"}
    _write(axes, _LEFT + 0.02, row, short(level.level, 26), ha="left", **look)
    _write(axes, _AMOUNT, row, str(level.n) if events is None else f"{level.n} ({events})", ha="right", **look)
    _write(axes, _VALUE, row, interval(estimate), ha="left", **look)
    if estimate.value is None:
        return
    if estimate.low is not None and estimate.high is not None:
        axes.plot([estimate.low, estimate.high], [row, row], color=COLOURS[0], linewidth=1.2)
    axes.plot(estimate.value, row, "s", color=COLOURS[0], markersize=4.5)


def _write(axes: Axes, share: float, row: float, text: str, **look: Any) -> None:
    """At a share of the figure's width, in a row of the axes."""
    figure = axes.figure
    axes.text(
        share, row, text, transform=blended_transform_factory(figure.transFigure, axes.transData), **{**_PLACE, **look}
    )


def _lines(rows: Sequence[SubgroupRow]) -> list[str | SubgroupRow]:
    """Return each variable's name, then its levels."""
    lines: list[str | SubgroupRow] = []
    for name, levels in groupby(rows, key=lambda row: row.variable):
        lines += [name, *levels]
    return lines
