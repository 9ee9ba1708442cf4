"""TRIDENT: `{mag}x_{size}px_{overlap}px_overlap/features_{encoder}/{slide}.h5`.

`features` (n, d) in chunks of one row, `coords` (n, 2) with the level-0 extent of a tile among its attributes. The
encoder is an attribute of `features` since August 2025; before, only the name of the folder says it. Only the
magnification is stored, and 20x means 0.5 micrometres a pixel within ten percent.

Vectors of whole slides lie in `slide_features_{encoder}/{slide}.h5`: `features` (d,), with the `coords` of the tiles
that the slide encoder read. The folder in which they were written, an attribute, names the encoder.
"""

import re
from pathlib import Path

from torch import Tensor

from mil.features.containers import hdf5
from mil.features.formats import Header, Reading

SUFFIXES = (".h5",)
COMPANIONS = ("slide_features_*",)
_JOB = re.compile(r"[\d.]+x_\d+px_\d+px_overlap")
_SIZES = ("patch_size_level0", "patch_size", "target_magnification")
_VECTORS = "slide_features_"
_NOMINAL = 10  # micrometres a pixel at a magnification of one


def matches(path: Path, content: hdf5.File) -> bool:
    """Return whether `coords` has TRIDENT's extent or `features` the encoder as an attribute."""
    marks = (("features", "encoder"), ("coords", "patch_size_level0"))
    return hdf5.has(content, "features") and any(
        hdf5.has(content, key) and mark in hdf5.dataset(content, key).attrs for key, mark in marks
    )


def header(path: Path, content: hdf5.File, reading: Reading) -> Header:
    """Return the header; the resolution is nominal."""
    features = hdf5.dataset(content, "features")
    if _is_vector(content):
        return Header.of_vector(*hdf5.row_layout(features), _slide_encoder(path, content), "TRIDENT", "slide")
    tiles, width, dtype = hdf5.layout(features, reading.batch_axis)
    coords = hdf5.grid(content, "coords", tiles, reading.batch_axis)
    extent, tile_px, magnification = (None if coords is None else hdf5.number(coords, name) for name in _SIZES)
    return Header(
        tiles=tiles,
        width=width,
        dtype=dtype,
        encoder=hdf5.text(features, "encoder") or _encoder_of(path),
        producer="TRIDENT",
        extent=extent,
        mpp=_NOMINAL / magnification if magnification else None,
        has_coords=coords is not None,
        tile_px=tile_px,
        slide_mpp=reading.slide_mpp,
        slide_size=None if coords is None else hdf5.size(coords, "level0_width", "level0_height"),
    )


def features(path: Path, content: hdf5.File, header: Header, reading: Reading, rows: slice) -> Tensor:
    """Return the features of some tiles."""
    if _is_vector(content):
        return hdf5.row(hdf5.dataset(content, "features"))[rows]
    return hdf5.matrix(hdf5.dataset(content, "features"), reading.batch_axis, rows)


def coords(path: Path, content: hdf5.File, header: Header, reading: Reading) -> Tensor | None:
    """Return the coordinates, which are stored as level-0 pixels of the top-left corner."""
    if _is_vector(content):
        return None
    stored = hdf5.grid(content, "coords", header.tiles, reading.batch_axis)
    return None if stored is None else hdf5.points(stored)


def _is_vector(content: hdf5.File) -> bool:
    """Return whether the file holds one vector; an empty slide's `(0,)` is none."""
    shape = hdf5.dataset(content, "features").shape
    return len(shape) == 1 and shape[0] > 0


def _slide_encoder(path: Path, content: hdf5.File) -> str | None:
    """Return the slide encoder, by the folder that the file was written into, or else lies in."""
    written = Path(hdf5.text(hdf5.dataset(content, "features"), "savetodir") or "")
    for folder in (written, path.parent):
        if folder.name.startswith(_VECTORS):
            return folder.name.removeprefix(_VECTORS)
    return None


def _encoder_of(path: Path) -> str | None:
    folder = path.parent
    # Only in the folder of a job: any other folder, such as "features_final", does not name an encoder.
    if folder.name.startswith("features_") and _JOB.fullmatch(folder.parent.name):
        return folder.name.removeprefix("features_")
    return None
