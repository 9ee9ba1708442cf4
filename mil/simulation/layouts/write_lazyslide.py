"""LazySlide's layout, a zarr folder a slide; needs the extra `mil-zoo[zarr]`."""

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mil.simulation.layouts.scan import EXTENT, SLIDE_MPP, TILE, TILE_MPP, Floats, Ints, corners, size

if TYPE_CHECKING:
    import zarr

Attributes = dict[str, Any]
_ARRAY: Attributes = {"encoding-type": "array", "encoding-version": "0.2.0"}
_TEXTS: Attributes = {"encoding-type": "string-array", "encoding-version": "0.2.0"}
_FRAME: Attributes = {"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"}
_CATEGORIES: Attributes = {"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False}
_SPEC = {
    "height": TILE,
    "width": TILE,
    "stride_height": TILE,
    "stride_width": TILE,
    "mpp": TILE_MPP,
    "ops_level": 0,
    "ops_downsample": EXTENT / TILE,
    "base_level": 0,
    "base_downsample": 1.0,
    "base_height": EXTENT,
    "base_width": EXTENT,
    "base_stride_height": EXTENT,
    "base_stride_width": EXTENT,
    "tissue_name": "tissues",
}
_GEOMETRY = {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": None}


def write_lazyslide(folder: Path, slide: str, features: Floats, cells: Ints) -> None:
    """`<slide>.zarr` with features `(n, d)` in `tables/simulated_tiles` and their corners in `shapes/tiles`."""
    import zarr

    width, height = size(cells)
    attributes: Attributes = {
        "tile_spec": {"tiles": _SPEC},
        "slide_properties": {"mpp": SLIDE_MPP, "magnification": 40, "shape": [height, width]},
    }
    # the second version, as SpatialData wrote it longest: texts have no settled form in the third
    root = zarr.open_group(folder / f"{slide}.zarr", mode="w-", zarr_format=2, attributes=attributes)
    _write_table(root.create_group("tables"), features)
    root.create_group("shapes").create_group("tiles", attributes={"encoding-type": "ngff:shapes"})
    _write_shapes(folder / f"{slide}.zarr" / "shapes" / "tiles" / "shapes.parquet", corners(cells))


def _write_table(tables: "zarr.Group", features: Floats) -> None:
    """The features as AnnData encodes them."""
    tiles, width = features.shape
    encoding = {"encoding-type": "anndata", "encoding-version": "0.1.0"}
    table = tables.create_group("simulated_tiles", attributes=encoding)
    table.create_array("X", data=features, attributes=_ARRAY)
    obs = table.create_group("obs", attributes={**_FRAME, "column-order": ["tile_id", "library_id"]})
    obs.create_array("tile_id", data=np.arange(tiles), attributes=_ARRAY)
    library = obs.create_group("library_id", attributes=_CATEGORIES)
    library.create_array("codes", data=np.zeros(tiles, np.int8), attributes=_ARRAY)
    _write_texts(library, "categories", ["tiles"])
    _write_texts(obs, "_index", map(str, range(tiles)))
    var = table.create_group("var", attributes={**_FRAME, "column-order": []})
    _write_texts(var, "_index", map(str, range(width)))


def _write_texts(group: "zarr.Group", name: str, texts: Iterable[str]) -> None:
    values = np.array(list(texts), dtype=object)
    group.create_array(name, shape=values.shape, dtype=str, attributes=_TEXTS)[...] = values


def _write_shapes(path: Path, places: NDArray[np.int64]) -> None:
    """The tiles as a table of polygons, in GeoParquet."""
    import pyarrow as pa
    from pyarrow import parquet

    ids, (x, y) = np.arange(len(places)), places.T
    columns = {"tile_id": ids, "x": x, "y": y, "tissue_id": 0 * ids, "geometry": [_box(place) for place in places]}
    geo = {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": _GEOMETRY}}
    parquet.write_table(pa.table(columns, metadata={"geo": json.dumps(geo)}), path)


def _box(place: NDArray[np.int64]) -> bytes:
    """A tile's outline in OGC's binary form: little-endian, a polygon of one ring of five points."""
    ring = place + EXTENT * np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
    points: bytes = ring.astype("<f8").tobytes()
    return struct.pack("<BIII", 1, 3, 1, 5) + points
