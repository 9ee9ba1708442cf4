"""Owkin rl_benchmarks: `features/{extractor}/{cohort}/{slide's file name}/features.npy`, (n, 3 + d).

The first three columns are the address of a tile: DeepZoom level, x and y, counted in tiles of 224 pixels. The corner
at level 0 is address * 224 * 2^(levels - 1 - level), but the number of levels is not stored. The benchmark cuts tiles
at half a micrometre a pixel, so with the resolution of the slide (`data.slide_mpp`) the factor is the nearest power of
two. Without it, or where tiles lie on several levels, there are no coordinates.
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mil.features.containers import arrays, matrices
from mil.features.containers.matrices import RefusalError
from mil.features.formats import Header, Reading, read_torchmil

SUFFIXES = (".npy",)
COMPANIONS = ("coords", "coords_*")
_ADDRESS = 3
_TILE = 224.0
_MPP = 0.5
_LEVELS = 40  # a slide of 2^39 pixels
_SAMPLE = 64
_WIDTHS = frozenset({192, 384, 512, 640, 768, 1024, 1280, 1536, 1792, 2048, 2560, 3072, 3328})
_FILE = "features.npy"
_ROOTS = ("slides_classification", "slide_classification")  # the README's folder, and the script's own default


def slide(path: Path) -> str:
    """Return the name of the folder, which is the name of the slide; "" for files not named features.npy."""
    return path.parent.name if path.name == _FILE else ""


def matches(path: Path, content: arrays.Array) -> bool:
    """Return whether the first columns are addresses; without tiles, whether the width is an encoder's plus three."""
    if (
        content.ndim != 2
        or content.dtype.kind != "f"
        or content.shape[1] <= _ADDRESS
        or read_torchmil.matches(path, content)
    ):
        return False
    if not len(content):
        return path.name == _FILE or content.shape[1] - _ADDRESS in _WIDTHS
    return _addressed(np.asarray(content[:_SAMPLE, :_ADDRESS], np.float64))


def _addressed(address: NDArray[np.float64]) -> bool:
    if not _whole(address) or not 0 < address[:, 0].min() <= address[:, 0].max() < _LEVELS:
        return False
    return len(np.unique(address, axis=0)) == len(address)  # features after a ReLU may have equal rows of zeros


def _whole(address: NDArray[np.float64]) -> bool:
    return bool((np.isfinite(address) & (address >= 0) & (address == np.floor(address))).all())


def certain(width: int) -> bool:
    """Return whether a matrix of this width can only be Owkin's: no encoder has the full width, or one has the rest."""
    return width not in _WIDTHS or width - _ADDRESS in _WIDTHS


def header(path: Path, content: arrays.Array, reading: Reading) -> Header:
    """Return the header, with a size of tiles where `slide_mpp` is given."""
    tiles, width, dtype = matrices.layout(content)
    factor = _factor(content, reading)
    return Header(
        tiles=tiles,
        width=width - _ADDRESS,
        dtype=dtype,
        encoder=_extractor(path),
        producer="Owkin rl_benchmarks",
        extent=_TILE * factor if factor else None,
        mpp=reading.slide_mpp * factor if factor and reading.slide_mpp else None,
        has_coords=factor is not None,
        tile_px=_TILE if factor else None,
        slide_mpp=reading.slide_mpp,
    )


def features(path: Path, content: arrays.Array, header: Header, reading: Reading, rows: slice) -> Tensor:
    """Return the features of some tiles, without the addresses."""
    return arrays.matrix(content[rows])[:, _ADDRESS:].contiguous()


def coords(path: Path, content: arrays.Array, header: Header, reading: Reading) -> Tensor | None:
    """Return the coordinates, where they can be computed."""
    if header.extent is None:
        return None
    address = np.asarray(content[:, :_ADDRESS], np.float64)  # (n, 3)
    if not _whole(address) or len(np.unique(address[:, 0])) > 1:
        raise RefusalError("its first three columns are no addresses of one DeepZoom level")
    return arrays.points(address[:, 1:] * header.extent, len(address))


def _factor(content: arrays.Array, reading: Reading) -> int | None:
    if reading.slide_mpp is None or len(np.unique(content[:_SAMPLE, 0])) != 1:
        return None
    return int(2 ** max(0, round(math.log2(_MPP / reading.slide_mpp))))


def _extractor(path: Path) -> str | None:
    folders = path.parts
    # Only in the folders of the benchmark: any other folder "features" does not name an encoder.
    place = next(
        (i for i, part in enumerate(folders) if part in _ROOTS and folders[i + 1 : i + 2] == ("features",)), None
    )
    return folders[place + 2] if place is not None and path.name == _FILE and len(folders) > place + 4 else None
