"""slideflow: `{slide}.pt`, next to it `{slide}.index.npz` or `.index.npy`, and one `bags_config.json` a folder.

The bag is a tensor (n, d). The index holds the centres of the tiles (n, 2) in level-0 pixels, in the same order. The
extent at level 0 is not stored: it is the side of a tile in micrometres (`tile_um`, or `tile_px` at a magnification
such as "20x") divided by the resolution of the slide, which the user gives (`data.slide_mpp`). Without it there are no
coordinates.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mil.features.containers import arrays, matrices
from mil.features.containers.grids import neighbour_step
from mil.features.containers.matrices import RefusalError
from mil.features.formats import Header, Reading

SUFFIXES = (".pt",)
COMPANIONS = (".index.npz", ".index.npy", "_att.npz", "_att.npy")
_CONFIG = "bags_config.json"
_CONFIG_BYTES = 2**20
_MAGNIFIED = re.compile(r"(\d+(?:\.\d+)?)x")


def matches(path: Path, content: Any) -> bool:
    """Return whether there is a tensor or an array, and an index or a configuration next to it."""
    return arrays.is_array(content) and (_index(path) is not None or path.with_name(_CONFIG).is_file())


def header(path: Path, content: arrays.Values, reading: Reading) -> Header:
    """Return the header, from the bag and the configuration of the folder."""
    tiles, width, dtype = matrices.layout(content, reading.batch_axis)
    config = _config(path)
    tile_px = arrays.positive(config.get("tile_px"))
    mpp = _mpp(config.get("tile_um"), tile_px)
    extent = tile_px * mpp / reading.slide_mpp if tile_px and mpp and reading.slide_mpp else None
    index = _index(path)
    extractor = config.get("extractor")
    name = extractor.get("class") if isinstance(extractor, dict) else None
    name = matrices.short(name, f"the extractor of {_CONFIG}") if isinstance(name, str) else None
    return Header(
        tiles=tiles,
        width=width,
        dtype=dtype,
        encoder=name.rpartition(".")[2] or None if name else None,
        producer="slideflow",
        extent=extent,
        mpp=mpp,
        has_coords=extent is not None and index is not None,
        tile_px=tile_px,
        slide_mpp=reading.slide_mpp,
        step=None if extent is None or index is None else _step(_centres(index, tiles), extent),
    )


def features(path: Path, content: arrays.Values, header: Header, reading: Reading, rows: slice) -> Tensor:
    """Return the features of some tiles."""
    return arrays.matrix(arrays.some(content, rows, reading.batch_axis), reading.batch_axis)


def coords(path: Path, content: arrays.Values, header: Header, reading: Reading) -> Tensor | None:
    """Return the coordinates: corners are half an extent from the stored centres."""
    index = _index(path)
    if index is None or header.extent is None:
        return None
    return arrays.points(_centres(index, header.tiles) - header.extent / 2, header.tiles)


def _step(centres: NDArray[np.float64], extent: float) -> float | None:
    step = neighbour_step(centres)
    return None if step is None else step / extent


def _centres(index: Path, tiles: int) -> NDArray[np.float64]:
    with arrays.opened(index, bulk=True) as stored:
        return arrays.places(stored, tiles)


def _index(path: Path) -> Path | None:
    candidates = (path.with_name(f"{path.stem}.index{ending}") for ending in (".npz", ".npy"))
    return next((index for index in candidates if index.is_file()), None)


def _config(path: Path) -> dict[str, object]:
    config = path.with_name(_CONFIG)
    if not config.is_file():
        return {}
    with arrays.named(config):
        if arrays.require_file(config) > _CONFIG_BYTES:
            raise RefusalError(f"it is larger than {_CONFIG_BYTES} bytes")
        with arrays.parsing("JSON"):
            document = json.loads(config.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise RefusalError(f"it holds a {type(document).__name__}, expected a dictionary")
        return document


def _mpp(tile_um: object, tile_px: float | None) -> float | None:
    if isinstance(tile_um, str):
        match = _MAGNIFIED.fullmatch(tile_um.strip().lower())
        magnification = arrays.positive(float(match[1])) if match else None
        return 10 / magnification if magnification else None
    side = arrays.positive(tile_um)
    return side / tile_px if side and tile_px else None
