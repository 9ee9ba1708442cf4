"""TRIDENT's patch features: `{mag}x_{size}px_{overlap}px_overlap/features_{encoder}/{slide}.h5`.

`features` (n, d) in rows of one chunk each, `coords` (n, 2) with the tile's level-0 extent among its attributes. The
encoder is an attribute of `features` since August 2025; before, only the folder's name says it.
"""

import re
from pathlib import Path

import h5py

from mil.data import hdf5
from mil.data.formats import Header, Slide

SUFFIXES = (".h5",)
_JOB = re.compile(r"[\d.]+x_\d+px_\d+px_overlap")


def matches(path: Path) -> bool:
    """Whether `coords` knows its extent as TRIDENT writes it, or `features` its encoder."""
    with hdf5.opened(path) as file:
        marks = (("features", "encoder"), ("coords", "patch_size_level0"))
        return hdf5.has(file, "features") and any(
            hdf5.has(file, key) and mark in hdf5.dataset(file, key).attrs for key, mark in marks
        )


def header(path: Path) -> Header:
    """What the file says of itself."""
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
    features = hdf5.dataset(file, "features")
    tiles, width, dtype = hdf5.layout(features)
    coords = hdf5.grid(file, "coords", tiles)
    return Header(
        tiles=tiles,
        width=width,
        dtype=dtype,
        encoder=hdf5.text(features, "encoder") or _encoder_of(path),
        producer="TRIDENT",
        extent=hdf5.number(coords, "patch_size_level0") if coords is not None else None,
        mpp=None,  # only a nominal magnification is stored, and "20x" is 0.5 by ten percent
        has_coords=coords is not None,
    )


def _encoder_of(path: Path) -> str | None:
    folder = path.parent
    # Only within a job's folder, or a user's own "features_final" would name an encoder.
    if folder.name.startswith("features_") and _JOB.fullmatch(folder.parent.name):
        return folder.name.removeprefix("features_")
    return None
