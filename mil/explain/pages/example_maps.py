"""A figure of a few patients' maps for the report and the card: each map, and on simulated slides the true tissue."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mil.explain.map_colours import palette
from mil.explain.pages.case import Case
from mil.explain.pages.case_page import SCALE_BARS, signed_text
from mil.explain.pages.map_layers import Layer, layers
from mil.explain.pages.map_picture import extent, raster
from mil.explain.tile_scores import SlideScores
from mil.report.figures.style import WIDTH, in_lines, minus

FIGURE = "tile_maps"
MOST = 3
"""Patients of a figure."""
LEVELS = 11
"""Colours of a scale, few so that the picture stays small."""
PIXELS = 200
_TUMOUR, _REST, _CARRIES = "#9fb4c7", "#dddddd", "#d55e00"
_SIDE, _TITLE, _FOOT, _GAP = 1.95, 0.85, 0.62, 0.12
"""Inches of a map, of its title, below the maps, and between maps."""
_LETTERS = 34
_TUMOUR_NAME = "tumour"


def example_maps(cases: Sequence[Case]) -> Figure | None:
    """Draw the largest slide of each case by its first method, for what was called; None where none has coordinates.

    Args:
        cases: At most `MOST` of them are drawn.
    """
    drawn = [case for case in cases if any(slide.places is not None for slide in case.scores.slides)][:MOST]
    if not drawn:
        return None
    rows = 2 if any(case.tissue for case in drawn) else 1
    height = _TITLE + rows * (_SIDE + _GAP) + _FOOT
    figure = Figure(figsize=(WIDTH, height))
    for at, case in enumerate(drawn):
        _draw_case(figure, case, at, rows, height)
    first = layers(drawn[0].scores)[0]
    _scale(figure, first, height)
    if rows == 2:
        handles = [
            Patch(color=colour, label=label)
            for colour, label in ((_CARRIES, "tells of the finding"), (_TUMOUR, "tumour"), (_REST, "other tissue"))
        ]
        figure.legend(handles=handles, loc="lower right", ncols=3, bbox_to_anchor=(1, 0.01), fontsize=7, handlelength=1)
    return figure


def _draw_case(figure: Figure, case: Case, at: int, rows: int, height: float) -> None:
    at_slide = max(
        (number for number, slide in enumerate(case.scores.slides) if slide.places is not None),
        key=lambda number: len(case.scores.slides[number]),
    )
    slide, layer = case.scores.slides[at_slide], layers(case.scores)[0]
    left = at * (_SIDE + _GAP) + 0.1
    axes = figure.add_axes((left / WIDTH, 1 - (_TITLE + _SIDE) / height, _SIDE / WIDTH, _SIDE / height))
    _draw_scores(axes, slide, layer, at_slide, case.first_output)
    ends = f"{'±' if layer.signed else 'up to '}{signed_text(layer.limit(case.first_output), False)}"
    axes.text(1, -0.03, ends, va="center", ha="right", size=6.5, transform=axes.transAxes)
    call = case.calls[0] if case.calls else None
    figure.text(left / WIDTH, 1 - 0.08 / height, _heading(case, call is not None), va="top", size=7.5)
    tissue = case.tissue.get(slide.slide)
    if rows == 2 and tissue is not None:
        bottom = 1 - (_TITLE + 2 * _SIDE + _GAP) / height
        axes = figure.add_axes((left / WIDTH, bottom, _SIDE / WIDTH, _SIDE / height))
        kinds = np.array([2 if name in tissue.telling else 1 if name == _TUMOUR_NAME else 0 for name in tissue.names])
        _show(axes, slide, kinds[tissue.kinds].astype(np.float64), ListedColormap([_REST, _TUMOUR, _CARRIES]), (0, 2))


def _heading(case: Case, called: bool) -> str:
    lines = [case.scores.patient]
    if called:
        call = case.calls[0]
        answer = f"called {call.call}" if call.call else call.number_name
        lines.append(f"{answer} ({minus(call.number)})" if call.number else answer)
        lines += [f"truly {call.truth}", call.verdict.value] if call.truth else []
    if len(case.scores.outputs) > 1:
        lines.append(f"map for {case.scores.outputs[case.first_output].name}")
    return "\n".join(in_lines(line, _LETTERS, most=1) for line in lines)


def _draw_scores(axes: Axes, slide: SlideScores, layer: Layer, at: int, output: int) -> None:
    limit = layer.limit(output) or 1.0
    _show(axes, slide, layer.values[at][:, output], _colours(layer.signed), (-limit if layer.signed else 0.0, limit))
    if slide.places is not None and slide.mpp:
        width = extent(slide.places).width * slide.mpp / 1000
        length = next((bar for bar in SCALE_BARS if bar <= width / 3), None)
        if length is not None:
            share = length / width * _across(axes)
            axes.plot([0, share], [-0.03, -0.03], color="black", linewidth=1.5, transform=axes.transAxes, clip_on=False)
            axes.text(share + 0.02, -0.03, f"{length:g} mm", va="center", size=6.5, transform=axes.transAxes)


def _across(axes: Axes) -> float:
    """Return the share of the axes' width that the picture takes."""
    left, right = axes.get_xlim()
    image = axes.get_images()[0].get_array()
    return 1.0 if image is None else image.shape[1] / (right - left)


def _colours(signed: bool) -> ListedColormap:
    steps = np.linspace(0, len(palette(signed)) - 1, LEVELS).round().astype(int)
    return ListedColormap((palette(signed)[steps] / 255).tolist())


def _show(
    axes: Axes, slide: SlideScores, values: np.ndarray, colours: ListedColormap, ends: tuple[float, float]
) -> None:
    """Show tiles with true edges in a square; the picture's longer side fills it."""
    if slide.places is None:
        return
    picture = raster(slide.places, values, PIXELS)
    norm = BoundaryNorm(np.linspace(*ends, colours.N + 1), colours.N)
    axes.imshow(picture, cmap=colours, norm=norm, interpolation="nearest")
    axes.set(xlim=(0, PIXELS), ylim=(PIXELS, 0), aspect="equal")
    axes.set_axis_off()


def _scale(figure: Figure, layer: Layer, height: float) -> None:
    axes = figure.add_axes((0.1 / WIDTH, 0.34 / height, 1.6 / WIDTH, 0.1 / height))
    axes.imshow(np.arange(LEVELS)[None], cmap=_colours(layer.signed), aspect="auto")
    axes.set(yticks=[], xticks=[])
    axes.spines[:].set_visible(False)
    low, high = (f"largest {word}" for word in ("against", "for")) if layer.signed else ("none", "most")
    figure.text(0.1 / WIDTH, 0.29 / height, low, va="top", size=6.5)
    figure.text(1.7 / WIDTH, 0.29 / height, high, va="top", ha="right", size=6.5)
    text = in_lines(f"{layer.title}, in {layer.units[0]}", 60, most=1)
    figure.text(0.1 / WIDTH, 0.5 / height, text, va="bottom", size=6.5)
