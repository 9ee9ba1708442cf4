"""LazySlide and wsidata: zarr folders of SpatialData with `tables/{model}_{tiles}/` and `shapes/{tiles}/`.

    tables/{model}_{tiles}/X              (n, d)  features, AnnData's dense array
    tables/{model}_{tiles}/obs/tile_id    (n,)    which tile each row is
    shapes/{tiles}/shapes.parquet                 tile_id, x, y: top-left corner in level-0 pixels
    attributes: tile_spec {tiles: {width, mpp, base_width, base_height, ...}}

Rows of the two tables are joined on `tile_id`; their orders may differ. `{tiles}` names a tiling, by default `tiles`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import Tensor

from mil.features.containers import arrays, matrices, zarrs
from mil.features.containers.matrices import RefusalError
from mil.features.containers.zarrs import Folder
from mil.features.formats import Header, Reading, Slide

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
    """Return the header, from the table and the specification of its tiling."""
    table = _table(content)
    tiles, width, dtype = matrices.layout(_features(content, table))
    spec = _spec(content, table.tiling)
    base, height = arrays.positive(spec.get("base_width")), arrays.positive(spec.get("base_height"))
    return Header(
        tiles=tiles,
        width=width,
        dtype=dtype,
        encoder=table.encoder,
        producer="LazySlide",
        extent=base if height in (base, None) else None,  # only square tiles have one extent
        mpp=arrays.positive(spec.get("mpp")),
        has_coords=zarrs.has(content, "shapes", table.tiling, _SHAPES),
        tile_px=arrays.positive(spec.get("width")),
    )


def read(path: Path, content: Folder, header: Header, reading: Reading) -> Slide:
    """Return the slide, with tiles in the order of the table of features."""
    table = _table(content)
    stored = _features(content, table)
    tiles, _, _ = matrices.layout(stored)
    ids = zarrs.column(zarrs.group(content, "tables", table.name, "obs"), "tile_id", tiles)
    features = arrays.matrix(zarrs.whole(stored))
    if not zarrs.has(content, "shapes", table.tiling, _SHAPES):
        return Slide(features, None, header)
    return Slide(features, _corners(content, table.tiling, ids), header)


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


def _table(content: Folder) -> _Table:
    tables = _tables(content)
    if len(tables) != 1:
        names = ", ".join(f"'{table.name}'" for table in tables) or "none"
        raise RefusalError(
            f"it holds {len(tables)} tables of features ({names}), and data.layout cannot decide between them"
        )
    return tables[0]


def _features(content: Folder, table: _Table) -> "zarr.Array[Any]":
    return zarrs.array(content, "tables", table.name, "X")


def _spec(content: Folder, tiling: str) -> Mapping[str, object]:
    specs = content.attributes.get("tile_spec")
    spec = specs.get(tiling) if isinstance(specs, dict) else None
    return spec if isinstance(spec, dict) else {}


def _corners(content: Folder, tiling: str, ids: list[str]) -> Tensor:
    shapes = zarrs.table(content, ("shapes", tiling, _SHAPES), ("tile_id", "x", "y"))
    tile_ids = pd.Index(zarrs.texts(shapes["tile_id"], "tile_id"), dtype=object)
    for where, index in (("shapes", tile_ids), ("features", pd.Index(ids, dtype=object))):
        if not index.is_unique:
            raise RefusalError(f"tile_id '{index[index.duplicated()][0]}' is there twice in the table of {where}")
    rows = tile_ids.get_indexer(pd.Index(ids, dtype=object))  # (n,)
    if (rows < 0).any():
        raise RefusalError(f"tile_id '{ids[int(rows.argmin())]}' has features, but no place in '{_SHAPES}'")
    return arrays.points(np.stack([shapes["x"], shapes["y"]], axis=1)[rows], len(ids))
