"""STAMP: `{extractor}[-{hash}]/{path of the slide}.h5`.

`feats` (n, d) and `coords` (n, 2), the top-left corners in micrometres, which become level-0 pixels only with the
resolution of the slide (`data.slide_mpp`). Attributes of the file, by version of STAMP:

    1        nothing; coordinates in pixels of tiles of 256 micrometres and 224 pixels
    2.0      `unit` um, `tile_size` in micrometres
    2.1 on   `unit` um, `tile_size_um`, `tile_size_px`, `extractor`, `stamp_version`, lately `feat_type`

A tile is cut as whole level-0 pixels, `tile_size_um` divided by the resolution and rounded up (2.5, `tiling.py`).

Multiplex files hold `patch_embeddings` without coordinates. Files of slide encoders, `{encoder}-slide[-{hash}]/` and
`{encoder}-pat[-{hash}]/{patient}.h5`, hold `feats` (d,) or (1, d), and the attributes `encoder` and lately `feat_type`.
"""

import math
import re
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.features.containers import hdf5
from mil.features.containers.grids import lowest
from mil.features.containers.matrices import RefusalError
from mil.features.formats import TILE, Header, Reading

SUFFIXES = (".h5",)
_KEYS = ("feats", "patch_embeddings")
_MARKS = ("stamp_version", "extractor", "encoder", "unit", "feat_type")
_HASH = re.compile(r"-[0-9a-fA-F]{6,}$")
_FIRST = "STAMP 1"
_FIRST_UM, _FIRST_PX = 256.0, 224.0
_SLACK = 0.02  # of a tile, as whole pixels are stored


def matches(path: Path, content: hdf5.File) -> bool:
    """Return whether there are `feats` with coordinates or STAMP's attributes, or `patch_embeddings`."""
    marked = hdf5.has(content, "coords") or any(mark in content.attrs for mark in _MARKS)
    return hdf5.has(content, "patch_embeddings") or (hdf5.has(content, "feats") and marked)


def header(path: Path, content: hdf5.File, reading: Reading) -> Header:
    """Return the header, with extent and coordinates only where the resolution of the slide is given."""
    if (level := _level(content)) != TILE:
        return Header.of_vector(*_vector(content), hdf5.text(content, "encoder"), _producer(content), level)
    tiles, width, dtype = hdf5.layout(_features(content), reading.batch_axis)
    has_coords = hdf5.grid(content, "coords", tiles, reading.batch_axis) is not None
    producer = _producer(content)
    um, px = _tile(content, producer)
    return Header(
        tiles=tiles,
        width=width,
        dtype=dtype,
        encoder=_HASH.sub("", hdf5.text(content, "extractor") or "") or None,
        producer=producer,
        extent=math.ceil(um / reading.slide_mpp) if um and reading.slide_mpp else None,
        mpp=um / px if um and px else None,
        has_coords=has_coords and reading.slide_mpp is not None and _in_known_unit(content, producer),
        tile_px=px,
        slide_mpp=reading.slide_mpp,
        grid=_grid(content, um, reading, tiles) if producer != _FIRST else (),
    )


def features(path: Path, content: hdf5.File, header: Header, reading: Reading, rows: slice) -> Tensor:
    """Return the features of some tiles."""
    stored = _features(content)
    if header.level != TILE:
        return hdf5.row(stored)[rows] if len(stored.shape) == 1 else hdf5.matrix(stored, rows=rows)
    return hdf5.matrix(stored, reading.batch_axis, rows)


def coords(path: Path, content: hdf5.File, header: Header, reading: Reading) -> Tensor | None:
    """Return the coordinates; micrometres become level-0 pixels."""
    if header.level != TILE:
        return None
    stored = hdf5.grid(content, "coords", header.tiles, reading.batch_axis)
    if stored is None or not header.has_coords or reading.slide_mpp is None:
        return None
    places = hdf5.places(stored)  # (n, 2)
    if header.producer == _FIRST:
        _refuse_stride(places)
        places = places / _FIRST_PX * _FIRST_UM
    return _pixels(places, reading.slide_mpp)


def _grid(content: hdf5.File, um: float | None, reading: Reading, tiles: int) -> tuple[float, ...]:
    """Return the lowest positions in tiles, where they are to become pixels."""
    stored = hdf5.grid(content, "coords", tiles, reading.batch_axis)
    return () if stored is None or um is None or reading.slide_mpp is None else lowest(hdf5.places(stored) / um)


def _features(content: hdf5.File) -> h5py.Dataset:
    return hdf5.dataset(content, next((key for key in _KEYS if hdf5.has(content, key)), _KEYS[0]))


def _producer(content: hdf5.File) -> str:
    version = hdf5.text(content, "stamp_version")
    if version or "unit" in content.attrs:
        return f"STAMP {version or 2}"
    return _FIRST if hdf5.has(content, "feats") else "STAMP multiplex"


def _tile(content: hdf5.File, producer: str) -> tuple[float | None, float | None]:
    """Return the side of a tile in micrometres and in pixels."""
    if producer == _FIRST:
        return _FIRST_UM, _FIRST_PX
    um = hdf5.number(content, "tile_size_um") or hdf5.number(content, "tile_size")
    return um, hdf5.number(content, "tile_size_px")


def _in_known_unit(content: hdf5.File, producer: str) -> bool:
    return producer == _FIRST or hdf5.text(content, "unit") == "um"


def _level(content: hdf5.File) -> str:
    """Return what the rows are vectors of.

    Raises:
        RefusalError: The file names a kind that is not known.
    """
    kind = hdf5.text(content, "feat_type")
    if kind not in (None, TILE, "slide", "patient"):
        raise RefusalError(f"feat_type is '{kind}', expected tile, slide or patient")
    # Before `feat_type`, files of slides and patients named an encoder, those of tiles an extractor.
    older = "encoder" in content.attrs and "extractor" not in content.attrs
    return kind or ("slide" if older else TILE)


def _vector(content: hdf5.File) -> tuple[int, str]:
    """Return width and dtype of the one vector of a file.

    Raises:
        RefusalError: It holds several.
    """
    stored = _features(content)
    if len(stored.shape) == 1:
        return hdf5.row_layout(stored)
    rows, width, dtype = hdf5.layout(stored)
    if rows != 1:
        raise RefusalError(f"'feats' has shape {stored.shape}, expected one vector of a slide or patient")
    return width, dtype


def _refuse_stride(places: NDArray[np.float64]) -> None:
    steps = np.concatenate([np.diff(np.unique(axis)) for axis in places.T])
    if steps.size and abs(steps.min() / _FIRST_PX - max(1, round(steps.min() / _FIRST_PX))) > _SLACK:
        raise RefusalError(
            f"'coords' name no unit and stand {steps.min():g} apart, expected {_FIRST_PX:g} (STAMP 1) or unit=um"
        )


def _pixels(um: NDArray[np.float64], slide_mpp: float) -> Tensor:
    return torch.from_numpy((um / slide_mpp).round().astype(np.int64))
