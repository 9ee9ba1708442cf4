"""Annotations for the Digital Slide Archive and HistomicsUI: the grid of scores, and regions of one colour step.

The schema is that of girder-large-image-annotation 1.35 (`AnnotationSchema`): no further keys, every value a number, as
many colours as range values. Cells of the `griddata` element without a tile have a value below the range, whose colour
is transparent. Its interpretation is "choropleth", where the server takes values for cells (`_boundingBox`), not for
points. The web client of that version draws only "heatmap", which blurs, and "contour" (`convertFeatures.js`): what a
user sees are the `polyline` elements, one for each region of a colour step, with true edges.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mil.explain.map_colours import scale, step_colours, step_limits, steps, stops
from mil.explain.tile_grid import TileGrid, tile_grid
from mil.explain.tile_scores import PatientScores, SlideScores
from mil.explain.writers.merged_tiles import Point, cell_regions
from mil.explain.writers.writing_options import DrawnMap, WritingOptions, drawn_maps
from mil.files import write_json

FOLDER = "dsa"
_OPACITY = "b0"
"""Of 255, in hexadecimal: tissue stays visible."""
_CLEAR = "#00000000"
_BELOW = 10.0
"""Widths of the range between its lowest value and that of an empty cell."""
_DIGITS = 6


def write_dsa(patient: PatientScores, slide: SlideScores, options: WritingOptions) -> list[Path]:
    """Write an annotation for each method and output of a slide.

    Tiles off a common grid, or that overlap, are put on the finest grid that all share: see `mil.explain.tile_grid`.
    """
    start = options.origin(slide.slide)
    paths = list[Path]()
    for drawn in drawn_maps(patient, slide):
        path = options.folder / FOLDER / f"{drawn.stem}.json"
        write_json(path, _annotation(drawn, start))
        paths.append(path)
    return paths


def _annotation(drawn: DrawnMap, start: Point) -> dict[str, object]:
    assert drawn.slide.places is not None
    grid = tile_grid(drawn.slide.places)
    low, high = scale(drawn.method, drawn.limit)
    cells = grid.fill(drawn.values)
    empty = low - _BELOW * (high - low)
    values = np.where(np.isnan(cells), empty, cells).ravel()
    shades = [f"{each.lower()}{_OPACITY}" for each in stops(drawn.method)]
    steps_of_cells = np.where(np.isnan(cells), -1, steps(np.nan_to_num(cells), drawn.method, drawn.limit))
    notes = [f"{drawn.output.meaning}; unit: {drawn.unit}; {drawn.method.sentence}"]
    if grid.overlap:
        notes.append("Tiles overlap: the mean of the tiles over a place is shown.")
    if not grid.exact:
        notes.append("Tiles lie on no common grid: edges moved by up to half a cell.")
    element = {
        "type": "griddata",
        "interpretation": "choropleth",
        "gridWidth": cells.shape[1],
        "origin": [grid.x - start[0], grid.y - start[1], 0],
        "dx": grid.dx,
        "dy": grid.dy,
        "values": [float(f"{value:.{_DIGITS}g}") for value in values],
        "colorRange": shades,
        "rangeValues": [float(value) for value in np.linspace(low, high, len(shades))],
        "normalizeRange": False,
        "minColor": _CLEAR,
        "maxColor": shades[-1],
    }
    return {
        "name": f"{drawn.method.title}: {drawn.output.name}",
        "description": " ".join(notes),
        "elements": [element, *_regions(grid, steps_of_cells, drawn, start)],
    }


def _regions(grid: TileGrid, steps_of_cells: NDArray[np.int64], drawn: DrawnMap, start: Point) -> Iterator[object]:
    fills, limits = step_colours(drawn.method).tolist(), step_limits(drawn.method, drawn.limit).tolist()
    for region in cell_regions(steps_of_cells):
        outline, *holes = ([[x, y, 0] for x, y in ring[:-1]] for ring in region.outlines(grid, start))
        red, green, blue = fills[region.value]
        yield {
            "type": "polyline",
            "closed": True,
            "points": outline,
            "holes": holes,
            "fillColor": f"#{red:02x}{green:02x}{blue:02x}{_OPACITY}",
            "lineColor": _CLEAR,
            "lineWidth": 0,
            "group": drawn.column,
            "label": {
                "value": f"{limits[region.value]:.3g} to {limits[region.value + 1]:.3g}",
                "visibility": "onhover",
            },
        }
