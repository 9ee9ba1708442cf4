"""HDF5 files of unknown origin, read without touching other files or trusting what the file declares.

HDF5 can name other files as a dataset's storage (external storage, external links, virtual datasets), declare
terabytes in a kilobyte, and ask for filter plug-ins. `dataset` refuses all of this before any data are read, and
`opened` turns whatever h5py raises on a broken file into a message of one line.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.errors import FeatureError
from mil.features.containers import matrices
from mil.features.containers.matrices import RATIO, RefusalError
from mil.storage import special_kind

os.environ.setdefault("HDF5_PLUGIN_PRELOAD", "::")  # read when the library starts: no file gets a plug-in loaded

import h5py

_FILTERS = {
    h5py.h5z.FILTER_DEFLATE: "gzip",
    h5py.h5z.FILTER_SHUFFLE: "shuffle",
    h5py.h5z.FILTER_FLETCHER32: "fletcher32",
    h5py.h5z.FILTER_LZF: "lzf",
}
ALL = slice(None)
"""All rows."""
_ATTRIBUTE_BYTES = 65_536
_LINKS = 10_000  # a producer writes a handful of top-level names


class File(h5py.File):  # type: ignore[misc]  # h5py ships no types
    """An open file, with the datasets that were checked so far."""

    def __init__(self, source: object) -> None:
        super().__init__(source, "r", locking=False)
        self.checked: dict[str, h5py.Dataset] = {}


@contextmanager
def opened(path: Path, bulk: bool = False) -> Iterator[File]:
    """Open an HDF5 file for reading, without a lock, so that read-only mounts work.

    Args:
        path: The file.
        bulk: Makes no difference: values are read when a dataset is read.

    Raises:
        FeatureError: The file is broken, or holds what is not allowed.
    """
    try:
        if (kind := special_kind(path)) is not None:  # opening a pipe waits for ever
            raise RefusalError(f"it is {kind}, expected a file")
        with File(path) as file:
            if file.id.get_create_plist().get_sizes() != (8, 8):
                raise RefusalError("offsets and lengths are not of 8 bytes, as HDF5 writes them")
            yield file
    except RefusalError as error:
        raise FeatureError(f"{path}: {error}") from error
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise FeatureError(f"{path} cannot be read as HDF5: {_reason(error)}") from error


def keys(file: File) -> list[str]:
    """Return the names at the top of the file; links are not followed."""
    if len(file) > _LINKS:
        raise RefusalError(f"it holds {len(file)} names, expected at most {_LINKS}")
    return list(file)


def has(file: File, key: str) -> bool:
    """Return whether the name `key` stands at the top of the file; a link is not followed."""
    return "/" not in key and bool(file.id.links.exists(key.encode()))


def dataset(file: File, key: str) -> h5py.Dataset:
    """Return the dataset `key` at the top of the file.

    Raises:
        RefusalError: It is missing, a link, a group, stored in another file, or larger than the stored bytes allow.
    """
    if key not in file.checked:
        file.checked[key] = _checked(file, key)
    return file.checked[key]


def _checked(file: File, key: str) -> h5py.Dataset:
    if not has(file, key):
        raise RefusalError(f"there is no dataset '{key}'; it holds {_listed(keys(file))}")
    if file.id.links.get_info(key.encode()).type != h5py.h5l.TYPE_HARD:
        link = file.get(key, getlink=True)
        raise RefusalError(f"'{key}' is a {type(link).__name__}, expected data in the file itself")
    item = file[key]
    if not isinstance(item, h5py.Dataset):
        raise RefusalError(f"'{key}' is a {type(item).__name__}, expected a dataset")
    _check_storage(file, key, item)
    _check_size(file, key, item)
    return item


def layout(stored: h5py.Dataset, batch_axis: bool = False) -> tuple[int, int, str]:
    """Return tiles, width and dtype of a feature matrix; see `matrices.layout`."""
    return matrices.layout(stored, batch_axis, str(stored.name).lstrip("/"))


def matrix(stored: h5py.Dataset, batch_axis: bool = False, rows: slice = ALL) -> Tensor:
    """Return some rows of a feature matrix as stored: float16, float32 or bfloat16; float64 becomes float32."""
    tiles, width, dtype = layout(stored, batch_axis)
    kind = {"float16": "f2", "float32": "f4", "float64": "f4", "bfloat16": "V2"}[dtype]
    values = _values(stored, (tiles, width), kind, rows)  # (n, d)
    if dtype == "bfloat16":
        return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(values)


def row(stored: h5py.Dataset) -> Tensor:
    """Return the vector of a whole slide, stored as `(d,)`, as one row `(1, d)`."""
    kind = {"float16": "f2", "float32": "f4", "float64": "f4"}[row_layout(stored)[1]]
    return torch.from_numpy(_values(stored, (1, stored.shape[0]), kind))


def row_layout(stored: h5py.Dataset) -> tuple[int, str]:
    """Return width and dtype of the vector of a whole slide.

    Raises:
        RefusalError: It is no vector, or not of floating point.
    """
    dtype = stored.dtype.newbyteorder("=").name
    if len(stored.shape) != 1 or not stored.shape[0] or dtype not in ("float16", "float32", "float64"):
        raise RefusalError(f"{_quoted(stored)} has shape {stored.shape} of {dtype}, expected (width,) of floats")
    return int(stored.shape[0]), dtype


def grid(file: File, key: str, tiles: int, batch_axis: bool = False) -> h5py.Dataset | None:
    """Return the dataset of the coordinates, with a row for each tile; None where the file has none.

    Raises:
        RefusalError: The shape does not fit the features, or the values are not numbers.
    """
    if not has(file, key):
        return None
    stored = dataset(file, key)
    if matrices.unbatched(stored, batch_axis) != (tiles, 2) and (tiles or 0 not in stored.shape):
        raise RefusalError(f"{_quoted(stored)} has shape {stored.shape}, expected ({tiles}, 2) for {tiles} tiles")
    if stored.dtype.kind not in "iuf":
        raise RefusalError(f"{_quoted(stored)} is {stored.dtype}, expected pixels")
    return stored


def points(stored: h5py.Dataset) -> Tensor:
    """Return coordinates, `(n, 2)` int64; floats, as in older files, are rounded.

    Raises:
        RefusalError: Values that are not finite or too large for a pixel.
    """
    if stored.dtype.kind in "iu":
        return torch.from_numpy(_values(stored, _pairs(stored), "i8"))
    return torch.from_numpy(places(stored).round().astype(np.int64))


def places(stored: h5py.Dataset) -> NDArray[np.float64]:
    """Return coordinates, `(n, 2)`, in the unit in which they are stored.

    Raises:
        RefusalError: Values that are not finite or too large for a position on a slide.
    """
    values = _values(stored, _pairs(stored), "f8").astype(np.float64, copy=False)
    if not (np.abs(values) < 2**53).all():
        raise RefusalError(f"{_quoted(stored)} holds values that are no pixels (not finite, or beyond 2^53)")
    return values


def _pairs(stored: h5py.Dataset) -> tuple[int, int]:
    return math.prod(stored.shape) // 2, 2


def text(item: h5py.Dataset | File, name: str) -> str | None:
    """Return a text attribute; None where it is absent, empty, not text, or the word `None`.

    On a broken file the HDF5 library may never return from this, so call it only in a process with a time limit.
    """
    attribute = _attribute(item, name)
    if attribute is None or (attribute.dtype.kind != "S" and h5py.check_string_dtype(attribute.dtype) is None):
        return None
    value = item.attrs[name]
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if not isinstance(value, str) or value in ("", "None"):
        return None
    return matrices.short(value, f"{_quoted(item)}: attribute '{name}'")


def pair(item: h5py.Dataset | File, name: str) -> tuple[float, float] | None:
    """Return a numeric attribute of two positive values; None where there is none."""
    values = _numbers(item, name)
    if values is None or values.shape != (2,) or not (np.isfinite(values) & (values > 0)).all():
        return None
    return float(values[0]), float(values[1])


def size(item: h5py.Dataset | File, width: str, height: str) -> tuple[float, float] | None:
    """Return two positive numeric attributes; None where one of them is missing."""
    sides = number(item, width), number(item, height)
    return None if sides[0] is None or sides[1] is None else (sides[0], sides[1])


def number(item: h5py.Dataset | File, name: str) -> float | None:
    """Return a positive numeric attribute, the first where there is one for each axis; None where there is none."""
    values = _numbers(item, name)
    first = float(values.flat[0]) if values is not None and values.size else 0.0
    return first if math.isfinite(first) and first > 0 else None


def _numbers(item: h5py.Dataset | File, name: str) -> NDArray[np.float64] | None:
    attribute = _attribute(item, name)
    if attribute is None or attribute.dtype.kind not in "iuf":
        return None
    values = np.empty(attribute.shape, attribute.dtype)
    attribute.read(values)
    return values.astype(np.float64)


def _attribute(item: h5py.Dataset | File, name: str) -> h5py.h5a.AttrID | None:
    try:
        attribute = item.attrs.get_id(name)
    except KeyError:
        return None
    if math.prod(attribute.shape) * attribute.dtype.itemsize > _ATTRIBUTE_BYTES:
        raise RefusalError(f"{_quoted(item)}: attribute '{name}' is larger than {_ATTRIBUTE_BYTES} bytes")
    return attribute


def _check_storage(file: File, key: str, item: h5py.Dataset) -> None:
    plan = item.id.get_create_plist()
    if plan.get_external_count():
        raise RefusalError(f"'{key}' is stored in another file, expected data in the file itself")
    if item.is_virtual:
        raise RefusalError(f"'{key}' is a virtual dataset, expected data in the file itself")
    filters = [plan.get_filter(index)[0] for index in range(plan.get_nfilters())]
    unknown = sorted(set(filters) - set(_FILTERS))
    if unknown:
        expected = ", ".join(_FILTERS.values())
        raise RefusalError(f"'{key}' uses HDF5 filter {unknown[0]}, expected {expected} or none")


def _check_size(file: File, key: str, item: h5py.Dataset) -> None:
    if item.shape is None:
        raise RefusalError(f"'{key}' has no shape, expected a matrix")
    _check_bytes(item, file.id.get_filesize())


def _check_bytes(item: h5py.Dataset, stored: int) -> None:
    declared = math.prod(item.shape)
    if declared and item.chunks is not None:
        declared = max(declared, math.prod(item.chunks))
    if declared * item.dtype.itemsize > RATIO * stored:
        raise RefusalError(f"{_quoted(item)} declares {item.shape} of {item.dtype}, but {stored} bytes are stored")


def _values(stored: h5py.Dataset, shape: tuple[int, int], kind: str, rows: slice = ALL) -> NDArray[np.generic]:
    # HDF5 fills the array itself, converting type and byte order on the way: no second copy.
    first, last, _ = rows.indices(shape[0])
    if first == 0:  # once for a matrix that is read in pieces
        _check_bytes(stored, stored.id.get_storage_size())  # walks the index of chunks, as reading does
    shape = (last - first, shape[1])
    try:
        values = np.empty(shape, dtype=kind)
    except MemoryError as error:
        needed = math.prod(shape) * np.dtype(kind).itemsize / 2**30
        raise RefusalError(f"{_quoted(stored)} needs {needed:.1f} GiB of memory, more than there is") from error
    if values.size and rows == ALL:
        stored.read_direct(values.reshape(stored.shape))  # a view: only axes of one differ
    elif values.size:
        stored.read_direct(values, np.s_[0, first:last] if stored.ndim == 3 else np.s_[first:last])
    return values


def _quoted(stored: h5py.Dataset) -> str:
    return f"'{str(stored.name).lstrip('/')}'"


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:10]) or "nothing"
    return shown + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _reason(error: Exception) -> str:
    line = " ".join(str(error.args[-1] if error.args else error).split())
    inner = line[line.find("(") + 1 : -1] if line.endswith(")") and "(" in line else line
    return inner or type(error).__name__
