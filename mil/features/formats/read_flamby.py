"""Features alone in a numpy file, as FLamby's Camelyon16 has them: flat `{slide}.tif.npy`, (n, 2048).

No coordinates, no word on the encoder. A matrix that begins with addresses is Owkin's; where it may be either, both
claim it, and `data.layout` decides.
"""

from pathlib import Path

from mil.features.containers import arrays
from mil.features.formats import Header, Reading, Slide, read_owkin, read_torchmil

SUFFIXES = (".npy",)


def matches(path: Path, content: arrays.Array) -> bool:
    """Whether nothing of torchmil's lies beside the file, and its first columns are not surely Owkin's addresses."""
    if read_torchmil.matches(path, content):
        return False
    return not read_owkin.matches(path, content) or not read_owkin.decided(content.shape[1])


def header(path: Path, content: arrays.Array, reading: Reading) -> Header:
    """The shape, which is all there is."""
    tiles, width, dtype = arrays.layout(content, reading.batch_axis)
    return Header(
        tiles=tiles,
        width=width,
        dtype=dtype,
        encoder=None,
        producer="FLamby or plain numpy",
        extent=None,
        mpp=None,
        has_coords=False,
    )


def read(path: Path, content: arrays.Array, header: Header, reading: Reading) -> Slide:
    """The features; there are no coordinates."""
    return Slide(arrays.matrix(content, reading.batch_axis), None, header)
