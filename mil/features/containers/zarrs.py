"""Zarr folders of unknown origin, read without touching other files or trusting what the metadata declare.

A zarr folder is a tree of small JSON files and chunks. It can contain links, declare terabytes without storing a byte,
and ask for codecs that run code. The metadata of each array are therefore checked before the zarr library opens it;
consolidated metadata at the top are not used. Needs the extra `mil-zoo[zarr]`.
"""

import importlib.util
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mil.errors import FeatureError
from mil.features.containers.arrays import Array, named, parsing, require_file
from mil.features.containers.matrices import RATIO, RefusalError, short

if TYPE_CHECKING:
    import zarr
    from pyarrow import parquet

_NEEDED = ("zarr", "pyarrow")
_METADATA_BYTES = 2**26  # consolidated metadata of a slide with many elements
_CODECS = {"bytes", "vlen-utf8", "blosc", "zstd", "gzip", "zlib", "lz4", "crc32c"}
_ENTRIES = 1_000_000
_THRIFT = {"thrift_string_size_limit": 2**24, "thrift_container_size_limit": 2**20}


@dataclass(frozen=True)
class Folder:
    """A group of a zarr folder, which may hold groups, arrays and foreign files.

    Attributes:
        path: Its path.
        attributes: Its attributes.
    """

    path: Path
    attributes: Mapping[str, object]

    def keys(self) -> list[str]:
        """Return the names of its folders; links are not followed."""
        with os.scandir(self.path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())


@contextmanager
def opened(path: Path, bulk: bool = False) -> Iterator[Folder]:
    """Open the group at the top of a zarr folder, of version 2 or 3.

    Args:
        path: The folder.
        bulk: Makes no difference: chunks are read when an array is read.

    Raises:
        FeatureError: Whatever is wrong with the folder, or with what a layout finds in it; or the extra is missing.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise FeatureError(f'{path} needs {" and ".join(missing)} to be read: pip install "mil-zoo[zarr]"')
    with named(path):
        if not path.is_dir():
            raise RefusalError("it is no folder, as zarr has")
        yield Folder(path, _attributes(path, *_metadata(path)))


def group(parent: Folder, *names: str) -> Folder:
    """Return a group below another one.

    Raises:
        RefusalError: It is missing, a link, or not a group.
    """
    path = _below(parent, names)
    return Folder(path, _attributes(path, *_metadata(path)))


def has(parent: Folder, *names: str) -> bool:
    """Return whether a group contains a file or folder; links count, and are refused when they are opened."""
    return os.path.lexists(parent.path.joinpath(*names))


def array(parent: Folder, *names: str) -> "zarr.Array[Any]":
    """Return an array below a group; `whole` reads its values.

    Raises:
        RefusalError: It is missing, a link, not an array, has an unknown codec, or is larger than its chunks allow.
    """
    import zarr
    from zarr.storage import LocalStore

    path = _below(parent, names)
    version, metadata = _metadata(path)
    if "shape" not in metadata:
        kind = _attributes(path, version, metadata).get("encoding-type", "group")
        raise RefusalError(f"'{'/'.join(names)}' is a {kind}, expected a dense array")
    with parsing("zarr"):
        _check_codecs(version, metadata)
        stored = _stored_bytes(path)
        stored_array = zarr.open_array(store=LocalStore(path, read_only=True), mode="r", zarr_format=version)
        itemsize = stored_array.dtype.itemsize if stored_array.dtype.kind in "iufb" else 1
        declared = max(stored_array.size, math.prod(stored_array.chunks) if stored_array.size else 0) * itemsize
    if declared > RATIO * stored:
        raise RefusalError(f"'{'/'.join(names)}' declares {declared} bytes, but {stored} are stored")
    return stored_array


def whole(stored_array: "zarr.Array[Any]", complete: bool = True, rows: slice = slice(None)) -> Array:
    """Return the values of an array, or those of some rows.

    Args:
        stored_array: The array, from `array`.
        complete: Refuse an array with missing chunks. Zarr leaves chunks out where all values are the same, and so
            reads a lost chunk as one of these.
        rows: The rows; whether chunks are missing is looked at with the first one.

    Raises:
        RefusalError: A chunk is missing or broken.
    """
    with parsing("zarr"):
        looked_at = complete and stored_array.size and not rows.start
        lost = stored_array.nchunks - stored_array.nchunks_initialized if looked_at else 0
        if lost > 0:
            raise RefusalError(f"{lost} of {stored_array.nchunks} chunks of the features are missing")
        return np.asarray(stored_array[...] if rows == slice(None) else stored_array[rows])


def column(parent: Folder, name: str, length: int) -> list[str]:
    """Return a column of ids in an encoding of AnnData: integers or texts, plain, nullable or categorical.

    Raises:
        RefusalError: It is missing, of another length, or neither whole numbers nor texts.
    """
    _, metadata = _metadata(_below(parent, (name,)))
    if "shape" in metadata:
        return texts(_vector(parent, name, length), name)
    inner = group(parent, name)
    if has(inner, "categories"):
        categories = texts(whole(array(inner, "categories"), complete=False), name)
        places = _vector(inner, "codes", length)
        if places.dtype.kind not in "iu" or not ((places >= 0) & (places < len(categories))).all():
            raise RefusalError(f"'{name}' has missing values, expected one for each tile")
        return [categories[place] for place in places.tolist()]
    if not has(inner, "values") or _vector(inner, "mask", length).any():
        raise RefusalError(f"'{name}' has missing values, or is neither numbers, texts nor categories")
    return texts(_vector(inner, "values", length), name)


def text(parent: Folder, *names: str) -> str | None:
    """Return a single text below a group; None where there is none."""
    if not has(parent, *names):
        return None
    values = whole(array(parent, *names), complete=False)
    entry = values.reshape(-1)[0] if values.size == 1 else None
    return short(str(entry), names[-1]) if isinstance(entry, str) else None


def texts(values: Array, name: str) -> list[str]:
    """Return ids as text.

    Raises:
        RefusalError: Values that are neither whole numbers nor texts.
    """
    entries = values.tolist()
    if any(isinstance(value, bool) or not isinstance(value, int | str) for value in entries):
        raise RefusalError(f"'{name}' holds values that are neither whole numbers nor texts")
    return [str(value) for value in entries]


def column_names(parent: Folder, names: Sequence[str]) -> list[str]:
    """Return the names of the columns of a parquet file below a group.

    Raises:
        RefusalError: The file is missing, a link, or broken.
    """
    with _parquet(parent, names) as file:
        return list(file.schema_arrow.names)


def table(parent: Folder, names: Sequence[str], columns: Sequence[str]) -> dict[str, Array]:
    """Return columns of a parquet file below a group.

    Raises:
        RefusalError: The file is missing, a link, broken, implausibly long, or lacks one of the columns.
    """
    with _parquet(parent, names) as file:
        lacking = [name for name in columns if name not in file.schema_arrow.names]
        if lacking:
            raise RefusalError(f"'{'/'.join(names)}' has no column {', '.join(lacking)}")
        rows = file.metadata.num_rows
        size = _below(parent, names).stat().st_size
        if 8 * rows * len(columns) > RATIO * size:
            raise RefusalError(f"'{'/'.join(names)}' declares {rows} rows in {size} bytes")
        columns_read = file.read(columns=list(columns), use_threads=False)
        return {name: columns_read.column(name).to_numpy() for name in columns}


@contextmanager
def _parquet(parent: Folder, names: Sequence[str]) -> "Iterator[parquet.ParquetFile]":
    import pyarrow
    from pyarrow import parquet

    path = _below(parent, names)
    with parsing("parquet"):
        require_file(path)
        try:
            with parquet.ParquetFile(path, **_THRIFT) as file:
                yield file
        except pyarrow.ArrowException as error:
            raise RefusalError(f"'{'/'.join(names)}' cannot be read as parquet: {str(error)[:200]!r}") from error


def _below(parent: Folder, names: Sequence[str]) -> Path:
    path = parent.path
    for name in names:
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise RefusalError(f"it names {name!r}, which is no name within the folder")
        path = path / name
        if path.is_symlink():
            raise RefusalError(f"'{path.relative_to(parent.path)}' is a link, expected data in the folder itself")
    if not path.exists():
        raise RefusalError(f"there is no '{'/'.join(names)}' in it")
    return path


def _metadata(path: Path) -> tuple[Literal[2, 3], dict[str, object]]:
    files: tuple[tuple[Literal[2, 3], str], ...] = ((3, "zarr.json"), (2, ".zarray"), (2, ".zgroup"))
    for version, name in files:
        if os.path.lexists(path / name):
            return version, _json(path / name)
    raise RefusalError(f"'{path.name}' has no zarr.json, .zarray or .zgroup, expected zarr's metadata")


def _attributes(path: Path, version: int, metadata: Mapping[str, object]) -> dict[str, object]:
    if version == 3:
        attributes = metadata.get("attributes", {})
    else:
        attributes = _json(path / ".zattrs") if os.path.lexists(path / ".zattrs") else {}
    if not isinstance(attributes, dict):
        raise RefusalError(f"'{path.name}' has attributes that are no dictionary")
    return attributes


def _json(path: Path) -> dict[str, object]:
    with parsing("zarr"):
        if path.is_symlink() or require_file(path) > _METADATA_BYTES:
            raise RefusalError(f"'{path.name}' is a link, or larger than metadata are")
        document = json.loads(path.read_bytes())
    if not isinstance(document, dict):
        raise RefusalError(f"'{path.name}' holds a {type(document).__name__}, expected zarr's metadata")
    return document


def _check_codecs(version: int, metadata: Mapping[str, Any]) -> None:
    # zarr finds codecs by name among all that is installed; some of numcodecs' run pickles
    if version == 3:
        codecs = [codec["name"] for codec in metadata["codecs"]]
    else:
        codecs = [
            codec["id"] for codec in (*(metadata.get("filters") or ()), metadata.get("compressor")) if codec is not None
        ]
    unknown = sorted({str(codec) for codec in codecs} - _CODECS)
    if unknown:
        raise RefusalError(f"it uses the codec '{unknown[0]}', expected one of {', '.join(sorted(_CODECS))}")
    if version == 3 and metadata.get("storage_transformers"):
        raise RefusalError("it uses storage transformers, expected none")


def _stored_bytes(path: Path) -> int:
    total = entries = 0
    for folder, folders, files in os.walk(path):
        entries += len(folders) + len(files)
        if entries > _ENTRIES:
            raise RefusalError(f"'{path.name}' has over {_ENTRIES} files")
        for name in (*folders, *files):
            status = Path(folder, name).lstat()
            if Path(folder, name).is_symlink():
                raise RefusalError(f"'{path.name}' holds a link, expected data in the folder itself")
            total += status.st_size if name in files else 0
    return total


def _vector(parent: Folder, name: str, length: int) -> Array:
    stored_array = array(parent, name)
    if stored_array.shape != (length,):
        raise RefusalError(f"'{name}' has shape {stored_array.shape}, expected ({length},)")
    return whole(stored_array, complete=False)
