"""The check of a feature matrix that every container makes before it reads values."""

from typing import Any, Protocol

import numpy as np

RATIO = 1100
"""Largest ratio of declared to stored bytes: deflate cannot shrink data by more than 1032."""
_TEXT = 512
_FLOATS = ("float16", "float32", "bfloat16", "float64")


class RefusalError(ValueError):
    """A file is broken or not allowed; the container adds the name of the file to the message."""


class Shaped(Protocol):
    """An array, a tensor, or an array that is still on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    def dtype(self) -> Any:
        """Type of the values, numpy's or torch's."""


def layout(values: Shaped, batch_axis: bool = False, name: str = "features") -> tuple[int, int, str]:
    """Return tiles, width and dtype of a feature matrix; both are 0 for `(0,)`, as some write an empty slide.

    With `batch_axis`, a matrix may have a leading axis of one.

    Raises:
        RefusalError: It is not a matrix, or not of floating point.
    """
    stored, shape = tuple(values.shape), unbatched(values, batch_axis)
    if shape != (0,) and len(shape) != 2:
        raise RefusalError(f"'{name}' has shape {stored}, expected (tiles, width){_hint(shape)}")
    tiles, width = shape if len(shape) == 2 else (0, 0)
    if tiles and not width:
        raise RefusalError(f"'{name}' has shape {stored}, expected at least one feature a tile")
    return tiles, width, _dtype(values, name)


def short(text: str, name: str) -> str:
    """Return a text of a file that messages and records show, such as the name of an encoder.

    Raises:
        RefusalError: It is longer than a name can be.
    """
    if len(text) > _TEXT:
        raise RefusalError(f"{name} has {len(text)} characters, expected at most {_TEXT}")
    return text


def unbatched(values: Shaped, batch_axis: bool) -> tuple[int, ...]:
    """Return the shape, without a leading axis of one where `batch_axis` allows it."""
    shape = tuple(values.shape)
    return shape[1:] if batch_axis and len(shape) == 3 and shape[0] == 1 else shape


def _hint(shape: tuple[int, ...]) -> str:
    if len(shape) == 3 and shape[0] == 1:
        return "; data.batch_axis=true accepts a leading batch axis of one"
    return "; one row alone is the embedding of a whole slide" if len(shape) == 1 else ""


def _dtype(values: Shaped, name: str) -> str:
    dtype = str(values.dtype).removeprefix("torch.")
    if isinstance(values.dtype, np.dtype):
        # numpy has no bfloat16: producers store its two bytes as they are
        dtype = "bfloat16" if values.dtype == np.dtype("V2") else values.dtype.newbyteorder("=").name
    if dtype not in _FLOATS:
        raise RefusalError(f"'{name}' is {dtype}, expected float16, float32 or bfloat16")
    return dtype
