"""Zarr folders as LazySlide and wsidata write them: SpatialData's tree with tables in AnnData's encoding."""

import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import ArrayLike, NDArray
from pyarrow import parquet

SPEC = {"height": 256, "width": 256, "mpp": 0.5, "ops_level": 1, "ops_downsample": 1.0, "base_downsample": 2.0}


def write_array(
    parent: "zarr.Group", name: str, values: ArrayLike, chunks: tuple[int, ...] | None = None, **attributes: str
) -> "zarr.Array[Any]":
    array = np.asarray(values)
    texts = array.dtype.kind in "UO"
    kind: Any = str if texts else array.dtype
    stored = parent.create_array(name, shape=array.shape, dtype=kind, chunks=chunks or "auto")
    if array.size:
        stored[...] = array.astype(object) if texts else array
    stored.attrs.update(
        attributes or {"encoding-type": "string-array" if texts else "array", "encoding-version": "0.2.0"}
    )
    return stored


def write_ids(obs: "zarr.Group", name: str, ids: ArrayLike, encoding: str) -> None:
    values = np.asarray(ids)
    if encoding == "categorical":
        categories, codes = np.unique(values, return_inverse=True)
        column = obs.create_group(name, attributes={"encoding-type": "categorical", "ordered": False})
        write_array(column, "codes", codes.astype("i1" if len(categories) < 128 else "i4"))
        write_array(column, "categories", categories)
    elif encoding == "nullable":
        column = obs.create_group(name, attributes={"encoding-type": "nullable-integer"})
        write_array(column, "values", values)
        write_array(column, "mask", np.zeros(len(values), bool))
    else:
        write_array(obs, name, values.astype(str) if encoding == "text" else values)


def write_table(
    root: "zarr.Group",
    name: str,
    features: NDArray[np.generic],
    ids: ArrayLike,
    encoding: str = "number",
    rows: int = 4,
) -> None:
    table = root.require_group("tables").create_group(name, attributes={"encoding-type": "anndata"})
    write_array(table, "X", features, (min(rows, max(len(features), 1)), *features.shape[1:]))
    columns = {"encoding-type": "dataframe", "_index": "_index", "column-order": ["tile_id", "library_id"]}
    obs = table.create_group("obs", attributes=columns)
    write_ids(obs, "tile_id", ids, encoding)
    write_ids(obs, "library_id", np.full(len(features), name.split("_")[-1]), "categorical")
    write_ids(obs, "_index", np.arange(len(features)), "text")


def write_shapes(path: Path, tiling: str, ids: ArrayLike, coords: ArrayLike, side: float = 512) -> Path:
    shapes = zarr.open_group(path, mode="a").require_group("shapes").require_group(tiling)
    x, y = np.asarray(coords).T
    file = path / str(shapes.path) / "shapes.parquet"
    boxes = pa.array([box(left, top, side) for left, top in zip(x, y, strict=True)], pa.binary())
    parquet.write_table(pa.table({"tile_id": np.asarray(ids), "tissue_id": x * 0, "geometry": boxes}), file)
    return file


def box(left: float, top: float, side: float) -> bytes:
    """A square in well-known binary form, with shapely's order of corners."""
    right, bottom = left + side, top + side
    ring = [right, top, right, bottom, left, bottom, left, top, right, top]
    return struct.pack("<BIII10d", 1, 3, 1, 5, *ring)


def write_slide(
    path: Path,
    features: NDArray[np.generic],
    coords: ArrayLike,
    ids: ArrayLike | None = None,
    *,
    model: str = "uni2",
    tiling: str = "tiles",
    encoding: str = "number",
    version: Literal[2, 3] = 3,
    spec: Mapping[str, object] = SPEC,
    order: ArrayLike | None = None,
) -> Path:
    """Write a slide; the shapes have the order of `order`, the features the given one."""
    tile_ids = np.arange(len(features)) if ids is None else np.asarray(ids)
    attributes: dict[str, Any] = {
        "tile_spec": {tiling: dict(spec)},
        "slide_properties": {"mpp": 0.25, "magnification": 40, "shape": [80_000, 100_000]},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr 3 warns about strings
        root = zarr.open_group(path, mode="w", zarr_format=version, attributes=attributes)
        write_table(root, f"{model}_{tiling}", features, tile_ids, encoding)
        places = np.arange(len(tile_ids)) if order is None else np.asarray(order)
        write_shapes(path, tiling, tile_ids[places], np.asarray(coords).reshape(-1, 2)[places])
    return path
