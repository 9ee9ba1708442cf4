"""CLAM: `FEATURES/h5_files/{slide}.h5`, next to `patches/{slide}.h5`; also plain HDF5 with the same datasets (nnMIL).

`features` (n, d) and `coords` (n, 2), top-left corners in level-0 pixels, without attributes: the encoder is unknown.
The extent of a tile is stored in the patches file only, as the patch size times the downsampling of the level from
which it was cut. CLAM writes chunks of 32 rows; files with other chunks come from other software and are read too.
"""

from pathlib import Path

from torch import Tensor

from mil.features.containers import hdf5
from mil.features.formats import Header, Reading, opened, read_moozy

SUFFIXES = (".h5", ".hdf5")
_CHUNK = 32


def matches(path: Path, content: hdf5.File) -> bool:
    """Return whether there are `features`, perhaps `coords`, and no attribute on either or on the file."""
    if read_moozy.matches(path, content):
        return False
    datasets = [hdf5.dataset(content, key) for key in ("features", "coords") if hdf5.has(content, key)]
    return hdf5.has(content, "features") and not any(len(stored.attrs) for stored in (content, *datasets))


def header(path: Path, content: hdf5.File, reading: Reading) -> Header:
    """Return the header, with the extent from the patches file where there is one."""
    features = hdf5.dataset(content, "features")
    tiles, width, dtype = hdf5.layout(features, reading.batch_axis)
    extent, tile_px = tile_sizes(path)
    return Header(
        tiles=tiles,
        width=width,
        dtype=dtype,
        encoder=None,
        producer="CLAM" if features.chunks and features.chunks[0] == _CHUNK else "plain HDF5 (CLAM's schema)",
        extent=extent,
        mpp=None,
        has_coords=hdf5.grid(content, "coords", tiles, reading.batch_axis) is not None,
        tile_px=tile_px,
        slide_mpp=reading.slide_mpp,
    )


def features(path: Path, content: hdf5.File, header: Header, reading: Reading, rows: slice) -> Tensor:
    """Return the features of some tiles."""
    return hdf5.matrix(hdf5.dataset(content, "features"), reading.batch_axis, rows)


def coords(path: Path, content: hdf5.File, header: Header, reading: Reading) -> Tensor | None:
    """Return the coordinates, which are stored as level-0 pixels of the top-left corner."""
    stored = hdf5.grid(content, "coords", header.tiles, reading.batch_axis)
    return None if stored is None else hdf5.points(stored)


def tile_sizes(path: Path) -> tuple[float | None, float | None]:
    """Return the side of a tile in level-0 pixels and as cut, from the patches file that belongs to `path`."""
    for folder in (path.parent.parent, path.parent.parent.parent):
        patches = folder / "patches" / f"{path.stem}.h5"
        if patches != path and patches.is_file():
            return _tile_sizes_in(patches)
    return None, None


def _tile_sizes_in(patches: Path) -> tuple[float | None, float | None]:
    with opened(patches) as content:
        if not hdf5.has(content, "coords"):
            return None, None
        coords = hdf5.dataset(content, "coords")
        size, downsample = hdf5.number(coords, "patch_size"), hdf5.number(coords, "downsample")
    return size * downsample if size and downsample else None, size
