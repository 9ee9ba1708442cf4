"""PNG and SVG of a map: one colour a tile with true edges, over a thumbnail where the scan is there."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mil.explain.map_colours import colours, scale
from mil.explain.scans import Thumbnail
from mil.explain.tile_grid import TileGrid, tile_grid
from mil.explain.tile_scores import Array, PatientScores, SlideScores
from mil.explain.writers.writing_options import DrawnMap, WritingOptions, drawn_maps
from mil.report.figures.style import GREY, WIDTH, in_lines, save_figure, styled

FOLDER = "maps"
_MOST_SHAPES = 5_000
"""Cells drawn as rectangles; more become an image with one pixel a cell, as large SVG files do not open."""
_OPACITY = 0.55
"""Of the map over a thumbnail."""
_THUMBNAIL = 1000
"""Pixels of a thumbnail's longest side: what a figure of this width shows in print."""
_MARGIN, _BAR_ROOM, _LINE = 0.1, 1.3, 0.17
"""Inches: left of the map, to its right for the scale of colours, and of a line of text."""
_BAR_LINE = 0.25
"""Inches of the line of the scale bar."""
_LETTERS = 80
"""Of a line of the title."""
_LENGTHS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
"""Of scale bars, in mm."""
_SHORTEST, _TALLEST = 1.7, 7.0
"""Inches: least height for the scale of colours, greatest of the map."""


def write_figures(patient: PatientScores, slide: SlideScores, options: WritingOptions) -> list[Path]:
    """Draw a PNG and an SVG for each method and output of a slide."""
    scan = options.open_scan(slide.slide)
    thumbnail, mpp = None, slide.mpp
    if scan is not None:
        with scan:
            thumbnail, mpp = scan.thumbnail(_THUMBNAIL), slide.mpp or scan.mpp
    folder = options.folder / FOLDER
    paths = list[Path]()
    for drawn in drawn_maps(patient, slide):
        png, svg = folder / f"{drawn.stem}.png", folder / f"{drawn.stem}.svg"
        with styled():
            figure = map_figure(drawn, thumbnail, mpp)
            save_figure(figure, png, metadata={"Software": None}, pil_kwargs={"compress_level": 3})
            save_figure(figure, svg, metadata={"Date": None, "Creator": None})
        paths += [png, svg]
    return paths


def map_figure(drawn: DrawnMap, thumbnail: Thumbnail | None = None, mpp: float | None = None) -> Figure:
    """Return the figure of a map.

    Places of the axes are computed, not laid out: a cohort has hundreds of maps, and a layout draws each several times.

    Args:
        drawn: The scores; their slide has places.
        thumbnail: Picture of the scan, drawn below the map.
        mpp: Micrometres a level-0 pixel, for the scale bar; None leaves it out.
    """
    assert drawn.slide.places is not None
    grid = tile_grid(drawn.slide.places)
    left, top, width, height = _frame(grid, thumbnail)
    title, notes = _title(drawn), _notes(drawn, grid, thumbnail, mpp)
    head, foot = _LINE * (title.count("\n") + 1) + 0.2, _LINE * len(notes) + 0.15
    foot += 0 if mpp is None else _BAR_LINE
    inches = min(WIDTH - _MARGIN - _BAR_ROOM, _TALLEST * width / height)
    tall = inches * height / width
    size = (WIDTH, head + max(tall, _SHORTEST) + foot)
    figure = Figure(figsize=size)
    axes = figure.add_axes(_share((_MARGIN, size[1] - head - tall, inches, tall), size))
    if thumbnail is not None:
        box = thumbnail.bounds
        axes.imshow(thumbnail.image, extent=(box.x, box.x + box.width, box.y + box.height, box.y))
    draw_cells(axes, grid, grid.fill(drawn.values), drawn, 1.0 if thumbnail is None else _OPACITY)
    axes.set(xlim=(left, left + width), ylim=(top + height, top), xticks=[], yticks=[], aspect="auto")
    for spine in axes.spines.values():
        spine.set(visible=True, color=GREY)
    if mpp is not None:
        _scale_bar(figure, inches / width, mpp, 0.3 * inches, foot - _BAR_LINE)
    bar_height = max(min(0.8 * tall, 3.0), 1.2)
    bar_place = (_MARGIN + inches + 0.2, size[1] - head - max(tall, bar_height) / 2 - bar_height / 2, 0.2, bar_height)
    _legend(figure.add_axes(_share(bar_place, size)), drawn)
    figure.text(_MARGIN / size[0], 1 - 0.12 / size[1], title, va="top", fontsize=9.5)
    figure.text(
        _MARGIN / size[0],
        (foot - 0.08 - (0 if mpp is None else _BAR_LINE)) / size[1],
        "\n".join(notes),
        va="top",
        fontsize=7.5,
        color=GREY,
        linespacing=1.3,
    )
    return figure


def _share(place: tuple[float, float, float, float], size: tuple[float, float]) -> tuple[float, float, float, float]:
    """Return left, bottom, width and height in inches as shares of a figure."""
    return place[0] / size[0], place[1] / size[1], place[2] / size[0], place[3] / size[1]


def _title(drawn: DrawnMap) -> str:
    """Return slide, method and output; only signed scores speak for an output."""
    text = drawn.output.meaning if drawn.method.signed else drawn.output.name
    return f"{in_lines(drawn.slide.slide, _LETTERS)}\n{in_lines(f'{drawn.method.title}: {text}', _LETTERS)}"


def draw_cells(axes: Axes, grid: TileGrid, cells: Array, drawn: DrawnMap, opacity: float = 1.0) -> None:
    """Draw the cells that have a value, without smoothing and without lines between them."""
    taken = ~np.isnan(cells)
    shades = colours(np.where(taken, cells, 0.0), drawn.method, drawn.limit) / 255
    rows, columns = np.nonzero(taken)
    if len(rows) > _MOST_SHAPES:
        picture = np.dstack([shades, np.where(taken, opacity, 0.0)])
        right, bottom = grid.x + grid.dx * cells.shape[1], grid.y + grid.dy * cells.shape[0]
        axes.imshow(picture, extent=(grid.x, right, bottom, grid.y), interpolation="nearest")
        return
    x, y = grid.x + columns * grid.dx, grid.y + rows * grid.dy
    corners = ((x, y), (x + grid.dx, y), (x + grid.dx, y + grid.dy), (x, y + grid.dy))
    shapes = np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)
    axes.add_collection(
        PolyCollection(list(shapes), facecolors=shades[taken], alpha=opacity, linewidths=0, antialiaseds=False),
        autolim=False,
    )


def _frame(grid: TileGrid, thumbnail: Thumbnail | None) -> tuple[float, float, float, float]:
    """Return left, top, width and height of what is drawn: the scan, or the tiles with a margin."""
    if thumbnail is not None:
        box = thumbnail.bounds
        return box.x, box.y, box.width, box.height
    rows, columns = grid.covers.shape
    width, height = columns * grid.dx, rows * grid.dy
    margin = 0.04 * max(width, height)
    return grid.x - margin, grid.y - margin, width + 2 * margin, height + 2 * margin


def _legend(axes: Axes, drawn: DrawnMap) -> None:
    """Draw the scale of colours as an image, one row a shade."""
    low, high = scale(drawn.method, drawn.limit)
    shades = colours(np.linspace(high, low, 256), drawn.method, drawn.limit)[:, None]
    axes.imshow(shades, extent=(0, 1, low, high), aspect="auto")
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.set(xticks=[], ylabel=in_lines(f"{drawn.method.title}, {drawn.unit}", 40))
    axes.tick_params(labelsize=8)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if drawn.method.signed:
        axes.set_title("for", fontsize=8, loc="center")
        axes.set_xlabel("against", fontsize=8)


def _scale_bar(figure: Figure, inches_per_pixel: float, mpp: float, widest: float, bottom: float) -> None:
    """Draw a scale bar below the map, where it covers no tile.

    Args:
        figure: The figure, whose map begins at the left margin.
        inches_per_pixel: Inches of a level-0 pixel.
        mpp: Micrometres a level-0 pixel.
        widest: Greatest length of the bar in inches.
        bottom: Where, in inches from the lower edge of the figure.
    """
    per_mm = inches_per_pixel * 1000 / mpp
    length = max((each for each in _LENGTHS if each * per_mm <= widest), default=_LENGTHS[0])
    width, height = figure.get_size_inches()
    start, end, at = _MARGIN / width, (_MARGIN + length * per_mm) / width, (bottom + 0.05) / height
    figure.add_artist(Line2D([start, end], [at, at], color="black", linewidth=2, solid_capstyle="butt"))
    figure.text(end + 0.06 / width, at, f"{length:g} mm", va="center", fontsize=8)


def _notes(drawn: DrawnMap, grid: TileGrid, thumbnail: Thumbnail | None, mpp: float | None) -> list[str]:
    count = f"{len(drawn.values):,} tile{'' if len(drawn.values) == 1 else 's'}"
    end = f"{'±' if drawn.method.signed else ''}{drawn.limit:.3g}"
    notes = [f"{count}; the colours of all slides of this patient end at {end}."]
    if grid.overlap:
        notes.append("Tiles overlap: the mean of the tiles over a place is drawn.")
    if not grid.exact:
        notes.append("Tiles lie on no common grid: edges moved by up to half a cell.")
    if mpp is None:
        notes.append("Resolution unknown: no scale bar.")
    if thumbnail is None:
        notes.append("Drawn from coordinates alone.")
    return notes
