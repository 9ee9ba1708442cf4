"""How well the site is told against chance, and where there are both, random folds beside folds of whole sites."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.report.figures.style import COLOURS, GREY, canvas, interval, minus, short
from mil.report.page.words import named
from mil.stats.estimate import Estimate
from mil.stats.site_signature import NAMES

_LINE, _AROUND = 0.3, 0.8
"""Inches a row, and around the rows of a panel."""
_DESIGNS = {"random": "random folds", "preserved": "folds of whole sites"}


def draw_site(found: Mapping[str, Any]) -> Figure:
    """A row for each that may tell the site, a tick at chance; below them a row a design.

    Args:
        found: What `site.json` holds; `designs` may be None.
    """
    told = {NAMES[name]: found["told_by"][name] for name in NAMES if name in found["told_by"]}
    designs = found.get("designs")
    heights = [_LINE * len(told) + _AROUND] + ([_LINE * len(_DESIGNS) + _AROUND] if designs else [])
    figure = canvas(sum(heights))
    axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_told(axes[0], told, str(found["tool"]))
    if designs:
        _draw_designs(axes[1], designs)
    return figure


def _draw_told(axes: Axes, told: Mapping[str, Mapping[str, Any]], tool: str) -> None:
    for at, one in enumerate(told.values()):
        own = one.get("balanced_accuracy") or {}
        if own:
            axes.plot([own["chance"]] * 2, [at - 0.5, at + 0.5], color=GREY, linewidth=1.0, linestyle=(0, (4, 3)))
        _draw_row(axes, at, own, COLOURS[1] if own and own["low"] > own["chance"] else "black")
    axes.set_xlim(0, 1.02)
    _named(axes, list(told))
    axes.set_xlabel("Balanced accuracy of telling the site, 95% interval; dashed: chance")
    most = max(told.values(), key=lambda one: int(one["n"]))
    axes.set_title(f"{short(tool, 40)}: what tells the site of {most['n']} patients of {most['sites']} sites")


def _draw_designs(axes: Axes, designs: Mapping[str, Any]) -> None:
    for at, name in enumerate(_DESIGNS):
        _draw_row(axes, at, designs[name], COLOURS[0])
    _named(axes, list(_DESIGNS.values()))
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel(f"{named(designs['metric'])}, 95% interval")
    gap = designs["difference"]
    sign = "+" if (gap["value"] or 0) > 0 else ""
    axes.set_title(f"Random folds minus folds of whole sites: {minus(sign + interval(_estimate(gap), 3))}")


def _draw_row(axes: Axes, at: int, own: Mapping[str, Any], colour: str) -> None:
    if own.get("low") is not None:
        axes.plot([own["low"], own["high"]], [at, at], color=colour, linewidth=1.4, solid_capstyle="butt")
    if own.get("value") is not None:
        axes.plot(own["value"], at, "o", color=colour, markersize=5)
    where = axes.get_yaxis_transform()
    axes.text(
        1.02,
        at,
        interval(_estimate(own), 3),
        transform=where,
        va="center",
        fontsize=8,
        color=colour,
    )


def _estimate(stored: Mapping[str, Any]) -> Estimate:
    return Estimate(value=stored.get("value"), low=stored.get("low"), high=stored.get("high"))


def _named(axes: Axes, names: list[str]) -> None:
    axes.set(ylim=(len(names) - 0.4, -0.6), yticks=range(len(names)), yticklabels=names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
