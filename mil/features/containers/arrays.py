"""Numpy files of unknown origin, read without pickles, and checks of arrays and tensors in memory.

A `.npy` file has a header, which may claim anything, and then the values; the header must fit the number of bytes. Of a
`.npz` archive one array is read: `arr_0` or `locations`.
"""

import io
import math
import os
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from tokenize import TokenError
from typing import Any, BinaryIO, Literal, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.errors import FeatureError
from mil.features.containers.matrices import RATIO, RefusalError, layout, unbatched

Array = NDArray[Any]
Values = Array | Tensor


_HEADER = 10_000
_MEMBERS = ("arr_0.npy", "locations.npy")
# On a broken file numpy, torch, zarr and the libraries below them raise nearly anything, warnings included.
_BROKEN = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError),
    *(SyntaxError, SystemError, TokenError, TypeError, UnpicklingError, ValueError, Warning),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)


@contextmanager
def opened(path: Path, bulk: bool = False) -> Iterator[Array]:
    """Open the array in a `.npy` or `.npz` file, as stored.

    Args:
        path: The file.
        bulk: Read the values into memory; otherwise those of a `.npy` file are mapped.

    Raises:
        FeatureError: Whatever is wrong with the file, or with what a layout finds in it.
    """
    with named(path):
        with parsing("a numpy array"):
            require_file(path)
            values = _member(path) if path.suffix.lower() == ".npz" else _values(path, bulk)
        yield values


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Turn a `RefusalError` into a message that names the file.

    Raises:
        FeatureError: In place of a `RefusalError`, or where memory runs out.
    """
    try:
        yield
    except RefusalError as error:
        raise FeatureError(f"{path}: {error}") from error
    except MemoryError as error:
        raise FeatureError(f"{path} needs more memory than there is") from error


@contextmanager
def parsing(kind: str) -> Iterator[None]:
    """Turn whatever a library raises or warns of while it reads a broken file into a `RefusalError`.

    Raises:
        RefusalError: In place of those errors.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    except RefusalError:
        raise
    except _BROKEN as error:
        line = " ".join(str(error.args[-1] if error.args else error).split())
        reason = "".join(letter for letter in line if letter.isprintable())[:200] or type(error).__name__
        raise RefusalError(f"it cannot be read as {kind}: {reason}") from error


def require_file(path: Path) -> int:
    """Return the size of a regular file.

    Raises:
        RefusalError: The path is a pipe, which would block for ever when opened, a device, or a folder.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise RefusalError("it is no regular file")
    return status.st_size


def is_array(value: object) -> TypeGuard[Values]:
    """Whether a value is an array or a tensor."""
    return isinstance(value, Tensor | np.ndarray)


def matrix(values: Values, batch_axis: bool = False) -> Tensor:
    """Return a feature matrix, `(n, d)`, as stored: float16, float32 or bfloat16; float64 becomes float32.

    Raises:
        RefusalError: As `layout` does.
    """
    tiles, width, dtype = layout(values, batch_axis)
    tensor = values.detach() if isinstance(values, Tensor) else _tensor(values, dtype)
    return tensor.reshape(tiles, width).to(torch.float32 if dtype == "float64" else tensor.dtype).contiguous()


def some(values: Values, rows: slice, batch_axis: bool = False) -> Values:
    """Return the rows of some tiles of a feature matrix `(n, d)` or, with a batch axis, `(1, n, d)`."""
    return values[:, rows] if batch_axis and values.ndim == 3 else values[rows]


def points(values: Values, tiles: int, batch_axis: bool = False) -> Tensor:
    """Return coordinates, `(n, 2)` int64; floats are rounded.

    Raises:
        RefusalError: Another shape or length than the features have, not numbers, or no pixels.
    """
    return torch.from_numpy(places(values, tiles, batch_axis).round().astype(np.int64))


def places(values: Values, tiles: int, batch_axis: bool = False) -> NDArray[np.float64]:
    """Return coordinates, `(n, 2)`, in the unit in which they are stored; exact for any pixel.

    Raises:
        RefusalError: Another shape or length than the features have, not numbers, or or too large for a position.
    """
    shape = unbatched(values, batch_axis)
    if shape != (tiles, 2) and (tiles or 0 not in shape):
        raise RefusalError(f"coordinates have shape {tuple(values.shape)}, expected ({tiles}, 2) for {tiles} tiles")
    if isinstance(values, Tensor):
        values = values.detach().to(torch.float64 if values.is_floating_point() else values.dtype).numpy()
    if values.dtype.kind not in "iuf":
        raise RefusalError(f"coordinates are {values.dtype}, expected numbers")
    exact = values.astype(np.float64).reshape(tiles, 2)
    if not (np.abs(exact) < 2**53).all():
        raise RefusalError("coordinates hold values that are no pixels (not finite, or beyond 2^53)")
    return exact


def positive(value: object) -> float | None:
    """Return a number that can be a length or a resolution; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 1e-6 < value < 1e9 else None


def _tensor(values: Array, dtype: str) -> Tensor:
    # torch refuses read-only memory, such as a mapped file
    native = np.require(values, values.dtype.newbyteorder("="), ["C", "W"])
    return (
        torch.from_numpy(native.view(np.int16)).view(torch.bfloat16)
        if dtype == "bfloat16"
        else torch.from_numpy(native)
    )


def _values(path: Path, bulk: bool) -> Array:
    with path.open("rb") as file:
        dtype, shape, order = _declared(file, os.fstat(file.fileno()).st_size)
        if not bulk and 0 not in shape:
            return np.memmap(file, dtype, "r", file.tell(), shape, order)
        return np.fromfile(file, dtype, math.prod(shape)).reshape(shape, order=order)


def _member(path: Path) -> Array:
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if info.filename in _MEMBERS]
        if len(members) != 1:
            raise RefusalError(f"it holds {len(members)} arrays called arr_0 or locations, expected one")
        if members[0].file_size > RATIO * path.stat().st_size:
            raise RefusalError(
                f"'{members[0].filename}' declares {members[0].file_size} bytes, more than can be stored"
            )
        content = archive.read(members[0])
    dtype, shape, order = _declared(start := io.BytesIO(content), len(content))
    return np.frombuffer(content, dtype, offset=start.tell()).reshape(shape, order=order)


def _declared(file: BinaryIO, size: int) -> tuple[np.dtype[Any], tuple[int, ...], Literal["C", "F"]]:
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise RefusalError(f"it is of numpy's file version {version}, expected (1, 0) or (2, 0)")
    first = version == (1, 0)
    reader = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = reader(file, max_header_size=_HEADER)
    if dtype.hasobject:
        raise RefusalError("it holds Python objects, expected numbers")
    if dtype.fields is not None or dtype.subdtype is not None or any(side < 0 for side in shape):
        raise RefusalError(f"it declares {shape} of {dtype}, expected a plain array")
    if math.prod(shape) * dtype.itemsize != size - file.tell():
        raise RefusalError(f"it declares {shape} of {dtype}, but {size - file.tell()} bytes are stored")
    return dtype, shape, "F" if fortran else "C"
