"""FLamby's Camelyon16 and plain numpy: `{slide}.tif.npy` with the features (n, 2048) only.

There are no coordinates, and the encoder is unknown. A matrix that starts with addresses is Owkin's; where both are
possible, both layouts match and `data.layout` decides.
"""

from pathlib import Path

from torch import Tensor

from mil.features.containers import arrays, matrices
from mil.features.formats import Header, Reading, read_owkin, read_torchmil

SUFFIXES = (".npy",)


def matches(path: Path, content: arrays.Array) -> bool:
    """Return whether no torchmil folder lies next to the file and the first columns need not be Owkin's addresses."""
    if read_torchmil.matches(path, content):
        return False
    return not read_owkin.matches(path, content) or not read_owkin.certain(content.shape[1])


def header(path: Path, content: arrays.Array, reading: Reading) -> Header:
    """Return the header, which knows only the shape."""
    tiles, width, dtype = matrices.layout(content, reading.batch_axis)
    return Header(
        tiles=tiles,
        width=width,
        dtype=dtype,
        encoder=None,
        producer="FLamby or plain numpy",
        extent=None,
        mpp=None,
        has_coords=False,
        slide_mpp=reading.slide_mpp,
    )


def features(path: Path, content: arrays.Array, header: Header, reading: Reading, rows: slice) -> Tensor:
    """Return the features of some tiles."""
    return arrays.matrix(arrays.some(content, rows, reading.batch_axis), reading.batch_axis)


def coords(path: Path, content: arrays.Array, header: Header, reading: Reading) -> Tensor | None:
    """Return None: there are no coordinates."""
    return None
