"""MIL_BASELINE: dictionaries `{slide}.pt` with `feats` or `features` (n, d), perhaps `coords` (n, 2).

Coordinates are copied from CLAM or TRIDENT, so they are level-0 pixels of the top-left corner. The encoder is unknown.
Some files have a leading batch axis of one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mil.features.containers import arrays, matrices
from mil.features.containers.matrices import RefusalError
from mil.features.formats import Header, Reading, Slide

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


def read(path: Path, content: Mapping[str, arrays.Values], header: Header, reading: Reading) -> Slide:
    """Return the slide."""
    features = arrays.matrix(_features(content), reading.batch_axis)
    coords = content.get("coords")
    if coords is None:
        return Slide(features, None, header)
    if not arrays.is_array(coords):
        raise RefusalError(f"'coords' is a {type(coords).__name__}, expected a tensor or an array")
    return Slide(features, arrays.points(coords, len(features), reading.batch_axis), header)


def _features(content: Mapping[str, arrays.Values]) -> arrays.Values:
    present = [key for key in _FEATURES if key in content]
    if len(present) > 1:
        raise RefusalError("it holds both 'feats' and 'features', expected one of them")
    return content[present[0]]
