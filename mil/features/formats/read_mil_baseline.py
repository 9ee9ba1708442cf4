"""MIL_BASELINE: dictionaries `{slide}.pt` with `feats` or `features` (n, d), perhaps `coords` (n, 2).

Coordinates are copied from CLAM or TRIDENT, so they are level-0 pixels of the top-left corner. The encoder is unknown.
Some files have a leading batch axis of one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mil.features.containers import arrays, matrices
from mil.features.containers.matrices import RefusalError
from mil.features.formats import Header, Reading

SUFFIXES = (".pt", ".pth")
_FEATURES = ("feats", "features")


def matches(path: Path, content: Any) -> bool:
    """Return whether there is a dictionary with features."""
    return isinstance(content, dict) and any(arrays.is_array(content.get(key)) for key in _FEATURES)


def header(path: Path, content: Mapping[str, arrays.Values], reading: Reading) -> Header:
    """Return the header."""
    tiles, width, dtype = matrices.layout(_features(content), reading.batch_axis)
    return Header(
        tiles=tiles,
        width=width,
        dtype=dtype,
        encoder=None,
        producer="MIL_BASELINE",
        extent=None,
        mpp=None,
        has_coords=content.get("coords") is not None,
        slide_mpp=reading.slide_mpp,
    )


def features(path: Path, content: Mapping[str, arrays.Values], header: Header, reading: Reading, rows: slice) -> Tensor:
    """Return the features of some tiles."""
    return arrays.matrix(arrays.some(_features(content), rows, reading.batch_axis), reading.batch_axis)


def coords(path: Path, content: Mapping[str, arrays.Values], header: Header, reading: Reading) -> Tensor | None:
    """Return the coordinates, where the dictionary has them."""
    stored = content.get("coords")
    if stored is None:
        return None
    if not arrays.is_array(stored):
        raise RefusalError(f"'coords' is a {type(stored).__name__}, expected a tensor or an array")
    return arrays.points(stored, header.tiles, reading.batch_axis)


def _features(content: Mapping[str, arrays.Values]) -> arrays.Values:
    present = [key for key in _FEATURES if key in content]
    if len(present) > 1:
        raise RefusalError("it holds both 'feats' and 'features', expected one of them")
    return content[present[0]]
