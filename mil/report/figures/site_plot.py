"""How well the site can be predicted, and the metric under random folds and under folds of whole sites."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.report.figures.style import COLOURS, GREY, canvas, interval, short
from mil.report.page.words import named
from mil.stats.estimate import Estimate
from mil.stats.site_signature import NAMES

_LINE, _AROUND = 0.3, 0.8
"""Inches a row, and around the rows of a panel."""
_DASHES = (0, (4, 3))
_DESIGNS = {"random": "random folds", "preserved": "folds of whole sites"}


def draw_site(found: Mapping[str, Any]) -> Figure:
    """Draw a row for all that the site is predicted from, with a tick at chance, and a row for each design.

    Args:
        found: What `site.json` holds; `designs` may be None.
    """
    predicted = {NAMES[name]: found["told_by"][name] for name in NAMES if name in found["told_by"]}
    designs = found.get("designs")
    heights = [_LINE * len(predicted) + _AROUND] + ([_LINE * len(_DESIGNS) + _AROUND] if designs else [])
    figure = canvas(sum(heights))
    axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_predicted(axes[0], predicted, str(found["tool"]))
    if designs:
        _draw_designs(axes[1], designs)
    return figure


def _draw_predicted(axes: Axes, predicted: Mapping[str, Mapping[str, Any]], tool: str) -> None:
    for row, site in enumerate(predicted.values()):
        accuracy = site.get("balanced_accuracy") or {}
        if accuracy:
            axes.plot([accuracy["chance"]] * 2, [row - 0.5, row + 0.5], color=GREY, linewidth=1.0, linestyle=_DASHES)
        shown = accuracy and accuracy["low"] > accuracy["chance"]
        _draw_row(axes, row, accuracy, COLOURS[1] if shown else "black")
    axes.set_xlim(0, 1.02)
    _label_rows(axes, list(predicted))
    axes.set_xlabel("Balanced accuracy of predicting the site, 95% interval; dashed: chance")
    largest = max(predicted.values(), key=lambda site: int(site["n"]))
    axes.set_title(f"{short(tool, 40)}: the site of {largest['n']} patients of {largest['sites']} sites")


def _draw_designs(axes: Axes, designs: Mapping[str, Any]) -> None:
    for row, name in enumerate(_DESIGNS):
        _draw_row(axes, row, designs[name], COLOURS[0])
    _label_rows(axes, list(_DESIGNS.values()))
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel(f"{named(designs['metric'])}, 95% interval")
    gap = designs["difference"]
    sign = "+" if (gap["value"] or 0) > 0 else ""
    axes.set_title(f"Random folds minus folds of whole sites: {sign}{interval(_estimate(gap))}")


def _draw_row(axes: Axes, row: int, number: Mapping[str, Any], colour: str) -> None:
    estimate = _estimate(number)
    if estimate.low is not None and estimate.high is not None:
        axes.plot([estimate.low, estimate.high], [row, row], color=colour, linewidth=1.4, solid_capstyle="butt")
    if estimate.value is not None:
        axes.plot(estimate.value, row, "o", color=colour, markersize=5)
    where = axes.get_yaxis_transform()
    axes.text(1.02, row, interval(estimate), transform=where, va="center", fontsize=8, color=colour)


def _estimate(number: Mapping[str, Any]) -> Estimate:
    return Estimate(value=number.get("value"), low=number.get("low"), high=number.get("high"))


def _label_rows(axes: Axes, names: list[str]) -> None:
    axes.set(ylim=(len(names) - 0.4, -0.6), yticks=range(len(names)), yticklabels=names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
