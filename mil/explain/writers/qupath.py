"""GeoJSON of tiles for QuPath: `.geojson.gz`, a feature a tile, with all scores as measurements.

What QuPath reads is in its source (`qupath.lib.io.QuPathTypeAdapters`, 0.7): `id` a UUID, `properties.objectType`
"tile", `color` an array of three integers, `measurements` an object of numbers. It crops scans to OpenSlide's bounds
(`OpenslideImageServer`), so that their origin is subtracted from coordinates.
"""

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import numpy as np

from mil.explain.file_names import file_name
from mil.explain.map_colours import colours, step_colours, steps
from mil.explain.tile_grid import TileGrid, tile_grid
from mil.explain.tile_scores import PatientScores, SlideScores, TilePlaces
from mil.explain.writers.merged_tiles import Point, cell_regions, whole
from mil.explain.writers.writing_options import DrawnMap, WritingOptions, drawn_maps
from mil.files import write

MOST_POLYGONS = 60_000
"""Above this number viewers take minutes to open a file and stall when it is moved."""
FOLDER, ENDING = "geojson", ".geojson.gz"


@dataclass(frozen=True, kw_only=True)
class _Feature:
    """A polygon with its colour and measurements."""

    rings: list[list[Point]]
    colour: list[int]
    measurements: Mapping[str, float]

    def text(self, slide: str) -> str:
        """Return the JSON of the feature."""
        content = {
            "type": "Feature",
            "id": str(uuid5(NAMESPACE_URL, json.dumps([slide, self.rings]))),
            "geometry": {"type": "Polygon", "coordinates": self.rings},
            "properties": {"objectType": "tile", "color": self.colour, "measurements": self.measurements},
        }
        return json.dumps(content, allow_nan=False)


def write_geojson(patient: PatientScores, slide: SlideScores, options: WritingOptions) -> list[Path]:
    """Write the tiles of a slide, coloured by the first output of the first method.

    Args:
        patient: The patient, whose slides share one scale of colours.
        slide: The slide, with places.
        options: Where; with scans the origin of their bounds is subtracted; with `merge` tiles are joined.

    Returns:
        The file.
    """
    places = slide.places
    assert places is not None
    start = options.origin(slide.slide)
    maps = list(drawn_maps(patient, slide))
    if options.merge:
        features = list(_merged(maps, tile_grid(places), start, slide.slide, options))
    else:
        features = list(_separate(maps, places, start))
    if len(features) > MOST_POLYGONS:
        hint = "" if options.merge else "; --merge joins neighbouring tiles of one colour step"
        options.warn(
            f"slide '{slide.slide}': {len(features):,} polygons in the GeoJSON; viewers stall above "
            f"{MOST_POLYGONS:,}{hint}"
        )
    lines = ",\n".join(feature.text(slide.slide) for feature in features)
    content = f'{{"type": "FeatureCollection", "features": [\n{lines}\n]}}\n'
    path = options.folder / FOLDER / f"{file_name(slide.slide)}{ENDING}"
    write(path, gzip.compress(content.encode(), compresslevel=6, mtime=0))
    return [path]


def _separate(maps: list[DrawnMap], places: TilePlaces, start: Point) -> Iterator[_Feature]:
    shown = maps[0]
    fills = colours(shown.values, shown.method, shown.limit).tolist()
    left, top = (places.x - start[0]).tolist(), (places.y - start[1]).tolist()
    right, bottom = (places.x + places.width - start[0]).tolist(), (places.y + places.height - start[1]).tolist()
    scores = {drawn.column: drawn.values.tolist() for drawn in maps}
    for tile, colour in enumerate(fills):
        x, y, end, foot = (whole(sides[tile]) for sides in (left, top, right, bottom))
        ring = [(x, y), (end, y), (end, foot), (x, foot), (x, y)]
        yield _Feature(
            rings=[ring], colour=colour, measurements={name: values[tile] for name, values in scores.items()}
        )


def _merged(
    maps: list[DrawnMap], grid: TileGrid, start: Point, slide: str, options: WritingOptions
) -> Iterator[_Feature]:
    shown = maps[0]
    cells = {drawn.column: grid.fill(drawn.values) for drawn in maps}
    values = cells[shown.column]
    taken = ~np.isnan(values)
    step_of_cell = np.where(taken, steps(np.where(taken, values, 0.0), shown.method, shown.limit), -1)
    fills = step_colours(shown.method).tolist()
    if grid.overlap:
        options.warn(f"slide '{slide}': tiles overlap; merged polygons have the mean of the tiles over each place")
    if not grid.exact:
        options.warn(
            f"slide '{slide}': tiles lie on no common grid; edges of merged polygons moved by up to half a cell"
        )
    for region in cell_regions(step_of_cell):
        means = {f"mean {name}": float(each[region.rows, region.columns].mean()) for name, each in cells.items()}
        area = len(region.rows) * grid.dx * grid.dy
        yield _Feature(
            rings=region.outlines(grid, start),
            colour=fills[region.value],
            measurements={**means, "area in pixels": area},
        )
