"""Mussel: the datasets of CLAM, with the size of the tiles as attributes of `coords`.

`features` (n, d), at times bfloat16 as two opaque bytes; `coords` (n, 2), top-left in level-0 pixels, with `mpp` (as
cut), `patch_size` (in level-0 pixels) and the side to which tiles were resized. The encoder is unknown.
"""

from pathlib import Path

from torch import Tensor

from mil.features.containers import hdf5
from mil.features.formats import Header, Reading

SUFFIXES = (".h5",)
_SIZES = ("patch_size", "mpp", "patch_size_to_resize_to_for_desired_mpp")


def matches(path: Path, content: hdf5.File) -> bool:
    """Return whether `coords` has Mussel's resolution and patch size, and not TRIDENT's patch size."""
    if not (hdf5.has(content, "features") and hdf5.has(content, "coords")):
        return False
    attributes = hdf5.dataset(content, "coords").attrs
    return "mpp" in attributes and "patch_size" in attributes and "patch_size_level0" not in attributes


def header(path: Path, content: hdf5.File, reading: Reading) -> Header:
    """Return the header."""
    tiles, width, dtype = hdf5.layout(hdf5.dataset(content, "features"), reading.batch_axis)
    coords = hdf5.grid(content, "coords", tiles, reading.batch_axis)
    extent, mpp, tile_px = (None if coords is None else hdf5.number(coords, name) for name in _SIZES)
    return Header(
        tiles=tiles,
        width=width,
        dtype=dtype,
        encoder=None,
        producer="Mussel",
        extent=extent,
        mpp=mpp,
        has_coords=True,
        tile_px=tile_px,
        slide_mpp=reading.slide_mpp or (None if coords is None else hdf5.number(coords, "native_mpp")),
        slide_size=None if coords is None else hdf5.pair(coords, "level_dim"),
    )


def features(path: Path, content: hdf5.File, header: Header, reading: Reading, rows: slice) -> Tensor:
    """Return the features of some tiles."""
    return hdf5.matrix(hdf5.dataset(content, "features"), reading.batch_axis, rows)


def coords(path: Path, content: hdf5.File, header: Header, reading: Reading) -> Tensor | None:
    """Return the coordinates, which are stored as level-0 pixels of the top-left corner."""
    stored = hdf5.grid(content, "coords", header.tiles, reading.batch_axis)
    return None if stored is None else hdf5.points(stored)
