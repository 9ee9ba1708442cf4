"""MOOZY: `{case}.h5` with one vector `features` (d,) of a patient and nothing else.

The file names no encoder: give `encoder=moozy`. Other slide encoders whose own scripts write such files are read too,
with their encoder.
"""

from pathlib import Path

from torch import Tensor

from mil.features.containers import hdf5
from mil.features.formats import Header, Reading

SUFFIXES = (".h5",)


def matches(path: Path, content: hdf5.File) -> bool:
    """Return whether `features` is one vector without coordinates, and no attribute names an encoder."""
    if not hdf5.has(content, "features") or hdf5.has(content, "coords"):
        return False
    stored = hdf5.dataset(content, "features")
    return len(stored.shape) == 1 and stored.shape[0] > 0 and "encoder" not in stored.attrs


def header(path: Path, content: hdf5.File, reading: Reading) -> Header:
    """Return the header, of one patient."""
    stored = hdf5.dataset(content, "features")
    return Header.of_vector(*hdf5.row_layout(stored), hdf5.text(content, "encoder"), "MOOZY", "patient")


def features(path: Path, content: hdf5.File, header: Header, reading: Reading, rows: slice) -> Tensor:
    """Return the patient's vector as a slide of one row."""
    return hdf5.row(hdf5.dataset(content, "features"))[rows]


def coords(path: Path, content: hdf5.File, header: Header, reading: Reading) -> Tensor | None:
    """Return None: a vector has no place."""
    return None
