"""Torch files with features only: CLAM's `pt_files/{slide}.pt`, TRIDENT's `features_{encoder}/{slide}.pt`.

One matrix (n, d), without coordinates; the encoder is unknown. CLAM stores a tensor, TRIDENT a numpy array. The extent
of a tile is in CLAM's patches file, where there is one.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from mil.features.containers import arrays, matrices
from mil.features.formats import Header, Reading, read_clam, read_slideflow

SUFFIXES = (".pt", ".pth")


def matches(path: Path, content: Any) -> bool:
    """Return whether the content is a tensor or an array, and no file of slideflow lies next to it."""
    return arrays.is_array(content) and not read_slideflow.matches(path, content)


def header(path: Path, content: arrays.Values, reading: Reading) -> Header:
    """Return the header, with the extent from CLAM's patches file where there is one."""
    tiles, width, dtype = matrices.layout(content, reading.batch_axis)
    of_clam = isinstance(content, Tensor)
    extent, tile_px = read_clam.tile_sizes(path) if of_clam else (None, None)
    return Header(
        tiles=tiles,
        width=width,
        dtype=dtype,
        encoder=None,
        producer="CLAM" if of_clam else "TRIDENT",
        extent=extent,
        mpp=None,
        has_coords=False,
        tile_px=tile_px,
        slide_mpp=reading.slide_mpp,
    )


def features(path: Path, content: arrays.Values, header: Header, reading: Reading, rows: slice) -> Tensor:
    """Return the features of some tiles."""
    return arrays.matrix(arrays.some(content, rows, reading.batch_axis), reading.batch_axis)


def coords(path: Path, content: arrays.Values, header: Header, reading: Reading) -> Tensor | None:
    """Return None: there are no coordinates."""
    return None
