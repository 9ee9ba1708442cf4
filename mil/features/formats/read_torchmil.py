"""torchmil: processed folders `features/{bag}.npy` (n, d), `coords/{bag}.npy`, `labels/{bag}.npy`, ...

Features may lie one folder deeper (`features/features_UNI/{bag}.npy`). The unit of the coordinates is not stored: they
may be positions on a grid or pixels of any level. They are taken as level-0 corners only where they are whole numbers
on a grid with a step above one; otherwise there are none. Labels and adjacency are not read.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mil.features.containers import arrays, matrices
from mil.features.formats import Header, Reading

SUFFIXES = (".npy",)
COMPANIONS = ("labels", "inst_labels", "patch_labels", "coords", "adj_mats", "splits.csv")
_FOLDERS = COMPANIONS[:-1]


def matches(path: Path, content: arrays.Array) -> bool:
    """Return whether a folder of labels, coordinates or adjacency next to the features has a file of the same name."""
    return any(_companion(path, folder) for folder in _FOLDERS)


def header(path: Path, content: arrays.Array, reading: Reading) -> Header:
    """Return the header."""
    tiles, width, dtype = matrices.layout(content, reading.batch_axis)
    return Header(
        tiles=tiles,
        width=width,
        dtype=dtype,
        encoder=None,
        producer="torchmil",
        extent=None,
        mpp=None,
        has_coords=_pixels(path, tiles) is not None,
        slide_mpp=reading.slide_mpp,
    )


def features(path: Path, content: arrays.Array, header: Header, reading: Reading, rows: slice) -> Tensor:
    """Return the features of some tiles."""
    return arrays.matrix(arrays.some(content, rows, reading.batch_axis), reading.batch_axis)


def coords(path: Path, content: arrays.Array, header: Header, reading: Reading) -> Tensor | None:
    """Return the coordinates, where they are pixels."""
    pixels = _pixels(path, header.tiles)
    return None if pixels is None else arrays.points(pixels, header.tiles)


def _companion(path: Path, folder: str) -> Path | None:
    places = (above / folder / path.name for above in (path.parent.parent, path.parent.parent.parent))
    return next((place for place in places if place != path and place.is_file()), None)


def _pixels(path: Path, tiles: int) -> NDArray[np.float64] | None:
    coords_file = _companion(path, "coords")
    if coords_file is None:
        return None
    with arrays.opened(coords_file, bulk=True) as stored:
        places = arrays.places(stored, tiles)
    if not len(places) or (places % 1).any():
        return None
    step = np.gcd.reduce((places - places.min(axis=0)).astype(np.int64), axis=None)
    return places if step > 1 else None
