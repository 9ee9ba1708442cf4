"""LazySlide's layout, a zarr folder a slide, as LazySlide 0.13 with SpatialData 0.7 writes it.

Needs the extra `mil-zoo[zarr]`.
"""

import json
import struct
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mil.simulation.layouts.scan import SCAN, TILE, TILE_MPP, Floats, Ints, Scan

if TYPE_CHECKING:
    import zarr

Attributes = dict[str, Any]
_VERSION = {"encoding-version": "0.2.0"}
_ARRAY: Attributes = {"encoding-type": "array", **_VERSION}
_TEXTS: Attributes = {"encoding-type": "string-array", **_VERSION}
_TEXT: Attributes = {"encoding-type": "string", **_VERSION}
_FRAME: Attributes = {"encoding-type": "dataframe", **_VERSION, "_index": "_index"}
_CATEGORIES: Attributes = {"encoding-type": "categorical", **_VERSION, "ordered": False}
_DICT: Attributes = {"encoding-type": "dict", "encoding-version": "0.1.0"}
_REGION = {"region": "tiles", "region_key": "library_id", "instance_key": "tile_id"}
_TABLE: Attributes = {
    "encoding-type": "anndata",
    "encoding-version": "0.1.0",
    "spatialdata-encoding-type": "ngff:regions_table",
    **_REGION,
    "version": "0.2",
}
_AXES = [{"name": name, "type": "space", "unit": "unit"} for name in ("x", "y")]
_SHAPES: Attributes = {
    "encoding-type": "ngff:shapes",
    "axes": ["x", "y"],
    "coordinateTransformations": [
        {"type": "identity", "input": {"name": "xy", "axes": _AXES}, "output": {"name": "global", "axes": _AXES}}
    ],
    "spatialdata_attrs": {"version": "0.3"},
}
_GEOMETRY = {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": None}


def write_lazyslide(folder: Path, slide: str, features: Floats, cells: Ints, scan: Scan = SCAN) -> None:
    """`<slide>.zarr` with features `(n, d)` in `tables/simulated_tiles` and their boxes in `shapes/tiles`."""
    import zarr

    path = folder / f"{slide}.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr warns that its form of texts may change
        root = zarr.open_group(path, mode="w-", zarr_format=3, attributes=_attributes(cells, scan))
        _write_table(root.create_group("tables"), features, scan.encoder)
        root.create_group("shapes").create_group("tiles", attributes=_SHAPES)
    _write_shapes(path / "shapes" / "tiles" / "shapes.parquet", scan.corners(cells), scan.extent)


def _attributes(cells: Ints, scan: Scan) -> Attributes:
    width, height = scan.size(cells)
    left, top = scan.bounds
    factor = scan.extent / TILE
    spec = {
        "height": TILE,
        "width": TILE,
        "stride_height": TILE - scan.overlap,
        "stride_width": TILE - scan.overlap,
        "mpp": TILE_MPP,
        "ops_level": 0,
        "ops_downsample": factor,
        "base_level": 0,
        "base_downsample": factor,
        "tissue_name": "tissues",
    }
    properties = {
        "shape": [height, width],
        "n_level": 1,
        "level_shape": [[height, width]],
        "level_downsample": [1.0],
        "mpp": scan.mpp,
        "magnification": float(scan.magnification),
        "bounds": [left, top, width - left, height - top],
        "raw": "{}",
    }
    return {
        "spatialdata_attrs": {"version": "0.2", "spatialdata_software_version": "0.7.3"},
        "slide_properties": properties,
        "tile_spec": {"tiles": spec},
    }


def _write_table(tables: "zarr.Group", features: Floats, encoder: str) -> None:
    """The features as AnnData encodes them."""
    tiles, width = features.shape
    table = tables.create_group(f"{encoder}_tiles", attributes=_TABLE)
    table.create_array("X", data=features, attributes=_ARRAY)
    obs = table.create_group("obs", attributes={**_FRAME, "column-order": ["tile_id", "library_id"]})
    obs.create_array("tile_id", data=np.arange(tiles), attributes=_ARRAY)
    library = obs.create_group("library_id", attributes=_CATEGORIES)
    library.create_array("codes", data=np.zeros(tiles, np.int8), attributes=_ARRAY)
    _write_texts(library, "categories", ["tiles"])
    _write_texts(obs, "_index", map(str, range(tiles)))
    var = table.create_group("var", attributes={**_FRAME, "column-order": []})
    _write_texts(var, "_index", map(str, range(width)))
    for name in ("layers", "obsm", "obsp", "varm", "varp"):
        table.create_group(name, attributes=_DICT)
    attrs = table.create_group("uns", attributes=_DICT).create_group("spatialdata_attrs", attributes=_DICT)
    for name, value in _REGION.items():
        attrs.create_array(name, shape=(), dtype=str, attributes=_TEXT)[...] = np.array(value, dtype=object)


def _write_texts(group: "zarr.Group", name: str, texts: Iterable[str]) -> None:
    values = np.array(list(texts), dtype=object)
    group.create_array(name, shape=values.shape, dtype=str, attributes=_TEXTS)[...] = values


def _write_shapes(path: Path, corners: Ints, extent: int) -> None:
    """The tiles as a table of polygons, in GeoParquet."""
    import pyarrow as pa
    from pyarrow import parquet

    ids = np.arange(len(corners))
    boxes = pa.array([_box(corner, extent) for corner in corners], pa.binary())
    geo = {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": _GEOMETRY}}
    columns = {"tile_id": ids, "tissue_id": 0 * ids, "geometry": boxes}
    parquet.write_table(pa.table(columns, metadata={"geo": json.dumps(geo)}), path)


def _box(corner: NDArray[np.int64], extent: int) -> bytes:
    """A tile's outline in OGC's binary form: little-endian, a polygon of one ring of five points, as of shapely's."""
    ring = corner + extent * np.array([[1, 0], [1, 1], [0, 1], [0, 0], [1, 0]])
    points: bytes = ring.astype("<f8").tobytes()
    return struct.pack("<BIII", 1, 3, 1, 5) + points
