"""Mussel's features: CLAM's schema with what was cut written on `coords`.

`features` (n, d), at times bfloat16 as two opaque bytes; `coords` (n, 2), top-left in level-0 pixels, with `mpp` (as
cut), `patch_size` (in level-0 pixels) and the side to which tiles were resized. Nothing says which encoder made them.
"""

from pathlib import Path

from mil.features.containers import hdf5
from mil.features.formats import Header, Reading, Slide

SUFFIXES = (".h5",)
_SIZES = ("patch_size", "mpp", "patch_size_to_resize_to_for_desired_mpp")


def matches(path: Path, content: hdf5.File) -> bool:
    """Whether `coords` knows the resolution beside the patch size, and the patch size is not TRIDENT's."""
    if not (hdf5.has(content, "features") and hdf5.has(content, "coords")):
        return False
    attributes = hdf5.dataset(content, "coords").attrs
    return "mpp" in attributes and "patch_size" in attributes and "patch_size_level0" not in attributes


def header(path: Path, content: hdf5.File, reading: Reading) -> Header:
    """What the file says of itself."""
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
    )


def read(path: Path, content: hdf5.File, header: Header, reading: Reading) -> Slide:
    """The whole slide; coordinates are already level-0 and top-left."""
    return Slide(*hdf5.tiles(content, "features", reading.batch_axis), header)
