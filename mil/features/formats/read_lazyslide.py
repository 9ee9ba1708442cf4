"""LazySlide and wsidata: zarr folders of SpatialData with `tables/{model}_{tiles}/` and `shapes/{tiles}/`.

    tables/{model}_{tiles}/X              (n, d)  features, AnnData's dense array
    tables/{model}_{tiles}/obs/tile_id    (n,)    which tile each row is
    shapes/{tiles}/shapes.parquet                 tile_id, geometry: a box in level-0 pixels, as well-known binary
    attributes: tile_spec {tiles: {width, height, mpp, base_downsample, ...}}, slide_properties {mpp, shape, ...}

LazySlide 0.5 to 0.13 write the geometry and no x, y; files with x, y instead are read too. The level-0 extent is the
box; without one it is `int(width * base_downsample)`, as `TileSpec.base_width` of wsidata computes it. Rows of the two
tables are joined on `tile_id`; their orders may differ. `{tiles}` names a tiling, by default `tiles`. A store may hold
several tables of features, one for each encoder or tiling: `data.table` names one, or its encoder.

    tables/{model}_{tiles}/uns/agg_ops/{key}/features  (1, e)  the slide's vector, by the slide encoder of
    tables/{model}_{tiles}/uns/agg_ops/{key}/encoder           this name; only one a slide is read, not one a tissue

It is read where `data.table` names the aggregation, `{key}` or `{model}_{tiles}/{key}`: `data.table=agg_slide`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from mil.features.containers import arrays, matrices, zarrs
from mil.features.containers.boxes import boxes
from mil.features.containers.matrices import RefusalError
from mil.features.containers.zarrs import Folder
from mil.features.encoders import folded
from mil.features.formats import Header, Reading

if TYPE_CHECKING:
    import zarr

SUFFIXES = (".zarr",)
_SHAPES = "shapes.parquet"


@dataclass(frozen=True)
class _Table:
    """A table of features: its name, its tiling and its encoder."""

    name: str
    tiling: str
    encoder: str


def matches(path: Path, content: Folder) -> bool:
    """Return whether there is a table named after one of the tilings."""
    return bool(_tables(content))


def header(path: Path, content: Folder, reading: Reading) -> Header:
    """Return the header, from the table, the specification of its tiling, and the boxes of its tiles."""
    if (vector := _aggregation(content, reading)) is not None:
        rows, width, dtype = matrices.layout(zarrs.array(content, *vector, "features"))
        if rows != 1:
            raise RefusalError(f"{'/'.join(vector)} holds {rows} vectors, expected one of the whole slide")
        return Header.of_vector(width, dtype, zarrs.text(content, *vector, "encoder"), "LazySlide", "slide")
    table = _table(content, reading)
    tiles, width, dtype = matrices.layout(_features(content, table))
    spec, slide = _spec(content, table.tiling), _mapping(content.attributes.get("slide_properties"))
    places = _boxes(content, table, tiles)
    extent, height = _sides(spec) if places is None else _common_sides(places, spec)
    return Header(
        tiles=tiles,
        width=width,
        dtype=dtype,
        encoder=table.encoder,
        producer="LazySlide",
        extent=extent,
        mpp=arrays.positive(spec.get("mpp")),
        has_coords=places is not None,
        tile_px=arrays.positive(spec.get("width")),
        slide_mpp=reading.slide_mpp or arrays.positive(slide.get("mpp")),
        slide_size=_size(slide),
        extent_height=height if height != extent else None,
    )


def features(path: Path, content: Folder, header: Header, reading: Reading, rows: slice) -> Tensor:
    """Return the features of some tiles, in the order of the table of features."""
    if (vector := _aggregation(content, reading)) is not None:
        return arrays.matrix(zarrs.whole(zarrs.array(content, *vector, "features"), rows=rows))
    return arrays.matrix(zarrs.whole(_features(content, _table(content, reading)), rows=rows))


def coords(path: Path, content: Folder, header: Header, reading: Reading) -> Tensor | None:
    """Return the coordinates of the tiles, in the order of the table of features."""
    if _aggregation(content, reading) is not None:
        return None
    places = _boxes(content, _table(content, reading), header.tiles)
    return None if places is None else arrays.points(places[:, :2], header.tiles)


def _tables(content: Folder) -> list[_Table]:
    if not zarrs.has(content, "tables"):
        return []
    spec = content.attributes.get("tile_spec")
    tilings = set(spec) if isinstance(spec, dict) else set()
    if zarrs.has(content, "shapes"):
        tilings.update(zarrs.group(content, "shapes"))
    tables = []
    for name in zarrs.group(content, "tables"):
        # the longest match: a table of tiling "fine_tiles" is not one of "tiles"
        fitting = max((tiling for tiling in tilings if name.endswith(f"_{tiling}")), key=len, default="")
        if fitting and len(name) > len(fitting) + 1:
            tables.append(_Table(name, fitting, name[: -len(fitting) - 1]))
    return tables


def _table(content: Folder, reading: Reading) -> _Table:
    tables = _tables(content)
    names = ", ".join(f"'{table.name}'" for table in tables) or "none"
    if reading.table is None:
        if len(tables) == 1:
            return tables[0]
        raise RefusalError(f"it holds {len(tables)} tables of features ({names}): data.table=... chooses one")
    requested = [table for table in tables if table.name == reading.table]
    requested = requested or [table for table in tables if folded(table.encoder) == folded(reading.table)]
    if len(requested) == 1:
        return requested[0]
    problem = f"has {len(requested)} tables of that encoder" if requested else "has no such table"
    raise RefusalError(f"data.table={reading.table}: it {problem}, expected one of {names}")


def _aggregation(content: Folder, reading: Reading) -> tuple[str, ...] | None:
    """Return where the vector of the slide lies that `data.table` names; None where it names a table of tiles.

    Raises:
        RefusalError: Several tables have an aggregation of that name.
    """
    if reading.table is None:
        return None
    places: list[tuple[str, ...]] = []
    for table in _tables(content):
        if not zarrs.has(content, "tables", table.name, "uns", "agg_ops"):
            continue
        place = ("tables", table.name, "uns", "agg_ops")
        keys = zarrs.group(content, *place)
        places += [(*place, key) for key in keys if reading.table in (key, f"{table.name}/{key}")]
    if len(places) > 1:
        names = ", ".join(f"'{place[1]}/{place[4]}'" for place in places)
        raise RefusalError(f"data.table={reading.table}: it has {len(places)} such vectors, expected one of {names}")
    return places[0] if places else None


def _features(content: Folder, table: _Table) -> "zarr.Array[Any]":
    return zarrs.array(content, "tables", table.name, "X")


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _spec(content: Folder, tiling: str) -> Mapping[str, object]:
    return _mapping(_mapping(content.attributes.get("tile_spec")).get(tiling))


def _size(properties: Mapping[str, object]) -> tuple[float, float] | None:
    shape = properties.get("shape")  # height and width, as of an array
    sides = [arrays.positive(side) for side in shape] if isinstance(shape, list) and len(shape) == 2 else [None, None]
    return None if sides[0] is None or sides[1] is None else (sides[1], sides[0])


def _sides(spec: Mapping[str, object]) -> tuple[float | None, float | None]:
    """Return width and height of a tile at level 0, as the specification has them."""
    factor = arrays.positive(spec.get("base_downsample"))
    sides = []
    for name in ("width", "height"):
        base, side = arrays.positive(spec.get(f"base_{name}")), arrays.positive(spec.get(name))
        sides.append(base or (float(int(side * factor)) if side and factor else None))
    return sides[0], sides[1]


def _common_sides(places: NDArray[np.float64], spec: Mapping[str, object]) -> tuple[float | None, float | None]:
    """Return width and height of the boxes `(n, 4)`; where they have none or differ, those of the specification."""
    sides = np.unique(places[:, 2:] - places[:, :2], axis=0)
    if len(sides) != 1 or not (sides > 0).all():
        return _sides(spec)
    return float(sides[0, 0]), float(sides[0, 1])


def _boxes(content: Folder, table: _Table, tiles: int) -> NDArray[np.float64] | None:
    """Return left, top, right and bottom of the tiles `(n, 4)`, in the order of the features; None without shapes."""
    place = ("shapes", table.tiling, _SHAPES)
    if not zarrs.has(content, *place):
        return None
    ids = zarrs.column(zarrs.group(content, "tables", table.name, "obs"), "tile_id", tiles)
    corners = not {"x", "y"} - set(zarrs.column_names(content, place))
    shapes = zarrs.table(content, place, ("tile_id", "x", "y") if corners else ("tile_id", "geometry"))
    rows = _joined(zarrs.texts(shapes["tile_id"], "tile_id"), ids)
    if corners:
        xy = arrays.places(np.stack([shapes["x"], shapes["y"]], axis=1)[rows], tiles)
        return np.hstack([xy, xy])
    return boxes(shapes["geometry"][rows])


def _joined(shape_ids: list[str], ids: list[str]) -> NDArray[np.intp]:
    """Return the row of each tile of the features in the table of shapes, `(n,)`."""
    tile_ids = pd.Index(shape_ids, dtype=object)
    for where, index in (("shapes", tile_ids), ("features", pd.Index(ids, dtype=object))):
        if not index.is_unique:
            raise RefusalError(f"tile_id '{index[index.duplicated()][0]}' is there twice in the table of {where}")
    rows = tile_ids.get_indexer(pd.Index(ids, dtype=object))
    if (rows < 0).any():
        raise RefusalError(f"tile_id '{ids[int(rows.argmin())]}' has features, but no place in '{_SHAPES}'")
    return rows
