"""CLAM's features: `FEATURES/h5_files/{slide}.h5`, beside them `patches/{slide}.h5`.

`features` (n, d) and `coords` (n, 2), top-left in level-0 pixels, without a single attribute: nothing says which
encoder made them. A tile's extent stands in the patches file only, as the patch size times the downsampling of the
level it was cut from.
"""

from pathlib import Path

import h5py

from mil.data import hdf5
from mil.data.formats import Header, Slide

SUFFIXES = (".h5",)


def matches(path: Path) -> bool:
    """Whether there are `features`, perhaps `coords`, and no attribute on either."""
    with hdf5.opened(path) as file:
        own = [hdf5.dataset(file, key) for key in ("features", "coords") if hdf5.has(file, key)]
        return hdf5.has(file, "features") and not any(len(stored.attrs) for stored in own)


def header(path: Path) -> Header:
    """What the file, and the patches file where one is found, say of the slide."""
    with hdf5.opened(path) as file:
        return _header(path, file)


def read(path: Path, said: Header | None = None) -> Slide:
    """The whole slide; coordinates are already level-0 and top-left."""
    said = said or header(path)
    with hdf5.opened(path, bulk=True) as file:
        features = hdf5.matrix(hdf5.dataset(file, "features"))
        coords = hdf5.grid(file, "coords", len(features))
        return Slide(features, hdf5.points(coords) if coords is not None else None, said)


def _header(path: Path, file: h5py.File) -> Header:
    tiles, width, dtype = hdf5.layout(hdf5.dataset(file, "features"))
    return Header(
        tiles=tiles,
        width=width,
        dtype=dtype,
        encoder=None,
        producer="CLAM",
        extent=_extent(path),
        mpp=None,
        has_coords=hdf5.grid(file, "coords", tiles) is not None,
    )


def _extent(path: Path) -> float | None:
    for folder in (path.parent.parent, path.parent.parent.parent):
        patches = folder / "patches" / path.name
        if patches.is_file() and patches != path:
            return _extent_in(patches)
    return None


def _extent_in(patches: Path) -> float | None:
    with hdf5.opened(patches) as file:
        if not hdf5.has(file, "coords"):
            return None
        coords = hdf5.dataset(file, "coords")
        size, downsample = hdf5.number(coords, "patch_size"), hdf5.number(coords, "downsample")
    return size * downsample if size and downsample else None
