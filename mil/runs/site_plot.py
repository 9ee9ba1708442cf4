"""Draw how well the site can be predicted against chance, and random folds against folds of whole sites."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.report.figures.style import COLOURS, GREY, canvas, interval, short
from mil.report.page.words import named
from mil.runs.design_gap import DesignGap
from mil.runs.site import SiteAudit
from mil.stats.estimate import Estimate
from mil.stats.site_signature import NAMES, SitePredictability

_LINE, _AROUND = 0.3, 0.8
"""Inches per row, and around the rows of a panel."""


def draw_site(audit: SiteAudit) -> Figure:
    """Draw a row per input that may predict the site, with a tick at chance; below them a row per design."""
    results = {NAMES[name]: audit.predicted_from[name] for name in NAMES if name in audit.predicted_from}
    heights = [_LINE * len(results) + _AROUND] + ([_LINE * 2 + _AROUND] if audit.designs else [])
    figure = canvas(sum(heights))
    axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_results(axes[0], results, audit.tool)
    if audit.designs is not None:
        _draw_designs(axes[1], audit.designs)
    return figure


def _draw_results(axes: Axes, results: Mapping[str, SitePredictability], tool: str) -> None:
    for at, result in enumerate(results.values()):
        accuracy, chance = result.balanced_accuracy, result.chance.get("balanced_accuracy")
        if chance is not None:
            axes.plot([chance] * 2, [at - 0.5, at + 0.5], color=GREY, linewidth=1.0, linestyle=(0, (4, 3)))
        low = None if accuracy is None else accuracy.low
        above_chance = low is not None and chance is not None and low > chance
        _draw_row(axes, at, accuracy, COLOURS[1] if above_chance else "black")
    axes.set_xlim(0, 1.02)
    _label_rows(axes, list(results))
    axes.set_xlabel("Balanced accuracy of predicting the site, 95% interval; dashed: chance")
    largest = max(results.values(), key=lambda result: result.n)
    axes.set_title(f"{short(tool, 40)}: the site of {largest.n} patients of {largest.sites} sites")


def _draw_designs(axes: Axes, designs: DesignGap) -> None:
    for at, estimate in enumerate((designs.random, designs.preserved)):
        _draw_row(axes, at, estimate, COLOURS[0])
    _label_rows(axes, ["random folds", "folds of whole sites"])
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel(f"{named(designs.metric)}, 95% interval")
    sign = "+" if (designs.difference.value or 0) > 0 else ""
    axes.set_title(f"Random folds minus folds of whole sites: {sign}{interval(designs.difference)}")


def _draw_row(axes: Axes, at: int, estimate: Estimate | None, colour: str) -> None:
    if estimate is not None and estimate.low is not None and estimate.high is not None:
        axes.plot([estimate.low, estimate.high], [at, at], color=colour, linewidth=1.4, solid_capstyle="butt")
    if estimate is not None and estimate.value is not None:
        axes.plot(estimate.value, at, "o", color=colour, markersize=5)
    text, transform = interval(estimate), axes.get_yaxis_transform()
    axes.text(1.02, at, text, transform=transform, va="center", fontsize=8, color=colour)


def _label_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set(ylim=(len(names) - 0.4, -0.6), yticks=range(len(names)), yticklabels=names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
