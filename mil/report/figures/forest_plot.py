"""A forest of subgroups: each level's metric with its interval, and those that cannot be estimated."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from mil.report.figures.style import COLOURS, GREY, WIDTH, interval, short
from mil.report.page.words import named
from mil.report.schema import Estimate
from mil.report.sections.subgroups import SubgroupRow

_PLACE: Mapping[str, Any] = {"va": "center", "size": 8, "clip_on": False}
_LINE, _HEAD, _FOOT = 0.2, 0.6, 0.55
"""Inches of a row, and above and below the rows."""
_LEFT, _COUNTS, _AXIS, _END, _VALUE = 0.015, 0.375, 0.40, 0.74, 0.76
"""Where names begin, counts end, the axis begins and ends, and values begin, as shares of the width."""

Line = str | SubgroupRow
"""The name of a variable, or one of its levels."""


def subgroups(rows: Sequence[SubgroupRow], metric: str, overall: Estimate | None) -> Figure | None:
    """Draw a row for each subgroup; one that cannot be estimated says so. None where no row can be estimated.

    Args:
        rows: Of the section; the one of all patients is left out.
        metric: Of the endpoint.
        overall: The metric of all patients.
    """
    if not any(row.variable != "all" and row.value.value is not None for row in rows):
        return None
    lines = _lines([row for row in rows if row.variable != "all"])
    height = _HEAD + _LINE * len(lines) + _FOOT
    figure = Figure(figsize=(WIDTH, height))  # placed by hand: a layout engine would not know how wide the names are
    axes = figure.add_axes((_AXIS, _FOOT / height, _END - _AXIS, _LINE * len(lines) / height))
    draw_forest(axes, lines, overall, metric)
    return figure


def draw_forest(axes: Axes, lines: Sequence[Line], overall: Estimate | None, metric: str) -> None:
    """Draw a row for each level under its variable's name; the dashed line is the value of all patients."""
    axes.set(ylim=(len(lines) - 0.5, -0.5), yticks=[], xlabel=f"{named(metric)}, 95% interval")
    axes.spines["left"].set_visible(False)
    if overall is not None and overall.value is not None:
        axes.axvline(overall.value, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    for row, line in enumerate(lines):
        if isinstance(line, str):
            _write(axes, _LEFT, row, short(line, 34), weight="bold", ha="left")
        else:
            _draw_level(axes, row, line)
    _write(axes, _COUNTS, -0.9, _count_head(lines), ha="right", color=GREY)
    _write(axes, _VALUE, -0.9, "95% interval", ha="left", color=GREY)
    title = f"{named(metric)} by subgroup; all patients (dashed): {interval(overall)}"
    _write(axes, _LEFT, -2.0, title, ha="left", size=9.5)


def _count_head(lines: Sequence[Line]) -> str:
    """Return what the counts are; of several classes the rarest, which decides what can be estimated."""
    levels = [line for line in lines if not isinstance(line, str)]
    if any("events" in level.value.counts for level in levels):
        return "n (events)"
    if any("positives" in level.value.counts for level in levels):
        return "n (rarest)" if any(level.questions for level in levels) else "n (positive)"
    return "n"


def _draw_level(axes: Axes, row: int, level: SubgroupRow) -> None:
    estimate = level.value
    events = estimate.counts.get("positives", estimate.counts.get("events"))
    look = {"color": GREY if estimate.value is None else "black"}
    _write(axes, _LEFT + 0.02, row, short(level.level, 26), ha="left", **look)
    _write(axes, _COUNTS, row, str(level.n) if events is None else f"{level.n} ({events})", ha="right", **look)
    _write(axes, _VALUE, row, interval(estimate), ha="left", **look)
    if estimate.value is None:
        return
    if estimate.low is not None and estimate.high is not None:
        axes.plot([estimate.low, estimate.high], [row, row], color=COLOURS[0], linewidth=1.2)
    axes.plot(estimate.value, row, "s", color=COLOURS[0], markersize=4.5)


def _write(axes: Axes, share: float, row: float, text: str, **look: Any) -> None:
    """Write at a share of the figure's width, in a row of the axes."""
    figure = axes.figure
    axes.text(
        share, row, text, transform=blended_transform_factory(figure.transFigure, axes.transData), **{**_PLACE, **look}
    )


def _lines(rows: Sequence[SubgroupRow]) -> list[Line]:
    """Return each variable's name, then its levels."""
    lines: list[Line] = []
    for variable, levels in groupby(rows, key=lambda row: row.variable):
        lines += [variable, *levels]
    return lines
