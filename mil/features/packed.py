"""The features of a cohort in one file, written by `mil convert`: opens in milliseconds, one read for each bag.

    features  (N, d)     all slides' tiles end to end, contiguous
    coords    (N, 2)     level-0 pixels, int64; -1 where a slide has none
    offsets   (s + 1,)   where each slide starts, and the last ends
    slides    (s,)       ids, UTF-8
    sha256    (s, 32)    of each slide's rows, features then coords
    headers   (bytes,)   JSON: the header of each slide's original file

The version of the format is the attribute `mil_packed`. The file has no text heap and no chunk index.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from mil.errors import FeatureError
from mil.features.containers import hdf5
from mil.features.containers.arrays import named, parsing
from mil.features.containers.matrices import RefusalError
from mil.features.formats import Header, Slide
from mil.storage import retried

VERSION = 1
MARK = "mil_packed"
KINDS = {"float16": "<f2", "float32": "<f4", "bfloat16": "V2"}
NAMES = ("utf-8", "surrogateescape")  # the name of a file need not be valid text
_HEADERS = TypeAdapter(list[Header])
ALL = slice(None)
"""All tiles."""
_INDEX_BYTES = 2**28
_PIECE_ROWS = 2**14


@dataclass(frozen=True)
class _Index:
    """Everything except the tiles."""

    state: tuple[int, int]
    """size and modification time of the file when this was read"""
    places: Mapping[str, int]
    """offsets in bytes at which features and coordinates start"""
    start: Mapping[str, int]
    headers: Mapping[str, Header]
    sha256: Mapping[str, str]


class Packed:
    """The slides of a packed file; the file is opened for each read and closed again.

    Attributes:
        path: The file.

    Raises:
        FeatureError: At first use: the file is not a packed one, is of a newer version, or is inconsistent.
    """

    def __init__(self, path: Path, remedy: str = "pack the cohort anew") -> None:
        """Open at first use; `remedy` says in messages what to do about tiles that have changed."""
        self.path, self.remedy = Path(path), remedy
        self._compared: set[str] = set()  # slides whose digest was right since the file was last changed
        self._changed: int | None = None

    @property
    def slides(self) -> list[str]:
        """Ids of the slides, sorted."""
        return sorted(self._index.headers)

    def header(self, slide: str) -> Header:
        """Return the header of the slide's original file, with the dtype of this file."""
        return self._index.headers[slide]

    def sha256(self, slide: str) -> str:
        """Return the digest of the slide's rows, in hexadecimal."""
        return self._index.sha256[slide]

    def read(self, slide: str) -> Slide:
        """Return a slide, whose rows are compared with their digest when this process reads them first.

        HDF5 is bypassed: it takes a hundred times longer to open a file than to read a small bag.

        Raises:
            FeatureError: The rows have changed since the file was written.
        """
        header = self._index.headers[slide]
        with self._opened() as file:
            content = Slide(self._features(file, slide, [ALL])[0], self._coords(file, slide), header)
        if slide not in self._compared:
            self._compare(slide, digest(content.features, content.coords))
        return content

    def read_rows(self, slide: str, runs: Sequence[slice]) -> list[Tensor]:
        """Return the features `(m, d)` of runs of a slide's tiles; only these are read.

        They are not compared with the slide's digest, which needs all tiles; `compare` does that.

        Raises:
            FeatureError: The file has changed since it was first read, or ends too early.
        """
        with self._opened() as file:
            return self._features(file, slide, runs)

    def coords(self, slide: str) -> Tensor | None:
        """Return the coordinates `(n, 2)` of a slide's tiles; None where it has none."""
        with self._opened() as file:
            return self._coords(file, slide)

    def compare(self, slide: str) -> None:
        """Compare a slide with its digest, once in a process, in pieces of bounded size.

        Raises:
            FeatureError: The rows have changed since the file was written.
        """
        if slide in self._compared:
            return
        header, hasher = self._index.headers[slide], hashlib.sha256()
        with self._opened() as file:
            for first in range(0, header.tiles, _PIECE_ROWS):
                last = min(first + _PIECE_ROWS, header.tiles)
                hasher.update(_as_stored(self._features(file, slide, [slice(first, last)])[0]))
            coords = self._coords(file, slide)
        if coords is not None:
            hasher.update(_as_stored(coords))
        self._compare(slide, hasher.hexdigest())

    def _compare(self, slide: str, sha256: str) -> None:
        if sha256 != self.sha256(slide):
            raise FeatureError(
                f"{self.path}: the tiles of slide {slide!r} differ from their digest: they have changed since they "
                f"were packed, or the disk is damaged; {self.remedy}"
            )
        self._compared.add(slide)

    @contextmanager
    def _opened(self) -> Iterator[io.BufferedReader]:
        index = self._index
        with named(self.path), parsing("a packed cohort"), self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            if _state(status) != index.state:
                raise RefusalError("it has changed while it was in use")
            if status.st_ctime_ns != self._changed:  # a copy may have the size and time of before
                self._compared.clear()
                self._changed = status.st_ctime_ns
            yield file

    def _features(self, file: io.BufferedReader, slide: str, runs: Sequence[slice]) -> list[Tensor]:
        index, header = self._index, self._index.headers[slide]
        place, start, kind = index.places["features"], index.start[slide], KINDS[header.dtype]
        spans = [run.indices(header.tiles)[:2] for run in runs]
        return [_tensor(_rows(file, place, start + first, (last - first, header.width), kind)) for first, last in spans]

    def _coords(self, file: io.BufferedReader, slide: str) -> Tensor | None:
        index, header = self._index, self._index.headers[slide]
        if not header.has_coords:
            return None
        return torch.from_numpy(_rows(file, index.places["coords"], index.start[slide], (header.tiles, 2), "<i8"))

    def verify(self, slide: str) -> None:
        """Read a slide anew and compare it with its digest.

        Raises:
            FeatureError: The rows have changed since the file was written.
        """
        self._compared.discard(slide)
        self.read(slide)

    @cached_property
    def _index(self) -> _Index:
        return retried(self._read_index, self.path, FeatureError)

    def _read_index(self) -> _Index:
        with hdf5.opened(self.path) as file:
            version = hdf5.number(file, MARK)
            if version is None:
                raise RefusalError(f"it is no packed cohort (no attribute '{MARK}'), expected one of mil convert")
            if version != VERSION:
                raise RefusalError(f"packed as version {version:g}, expected {VERSION}: a newer mil reads it")
            return _index_of(file, _state(self.path.stat()))


def digest(features: Tensor, coords: Tensor | None) -> str:
    """Return the sha256 of a slide's rows as they are stored."""
    hasher = hashlib.sha256(_as_stored(features))
    if coords is not None:
        hasher.update(_as_stored(coords))
    return hasher.hexdigest()


def _as_stored(rows: Tensor) -> memoryview:
    """Return the bytes of rows where they are: a copy may be gigabytes."""
    wide = rows.view(torch.int16) if rows.dtype == torch.bfloat16 else rows
    return np.ascontiguousarray(wide.numpy()).data


def as_bytes(features: Tensor) -> bytes:
    """Return tiles `(n, d)` as they are stored, row by row and little-endian."""
    wide = features.view(torch.int16) if features.dtype == torch.bfloat16 else features
    return wide.numpy().tobytes()


def _index_of(file: hdf5.File, state: tuple[int, int]) -> _Index:
    features = hdf5.dataset(file, "features")
    tiles, width, dtype = hdf5.layout(features)
    places = {"features": _offset(file, "features", KINDS.get(dtype, "V")), "coords": _offset(file, "coords", "<i8")}
    names = [bytes(name).decode(*NAMES) for name in _small(file, "slides", "S")]
    offsets, digests = _small(file, "offsets", "i"), _small(file, "sha256", "u")
    headers = _headers(file, len(names))
    if offsets.shape != (len(names) + 1,) or digests.shape != (len(names), 32) or len(set(names)) < len(names):
        raise RefusalError(f"offsets {offsets.shape} and sha256 {digests.shape} do not fit {len(names)} slides")
    counts = [header.tiles for header in headers]
    if [0, *accumulate(counts)] != offsets.tolist() or offsets[-1] != tiles or min(counts, default=0) < 0:
        raise RefusalError(f"offsets end at {offsets[-1]} of {tiles} tiles, or differ from the slides' own counts")
    if hdf5.dataset(file, "coords").shape != (tiles, 2) or any(
        header.tiles and (header.width, header.dtype) != (width, dtype) for header in headers
    ):
        raise RefusalError(f"slides or coords do not fit features {features.shape} of {dtype}")
    return _Index(
        state=state,
        places=places,
        start=dict(zip(names, offsets.tolist()[:-1], strict=True)),
        headers=dict(zip(names, headers, strict=True)),
        sha256={name: bytes(row).hex() for name, row in zip(names, digests, strict=True)},
    )


def _offset(file: hdf5.File, key: str, kind: str) -> int:
    """Return the offset of contiguous rows, after a check of type and byte order."""
    stored = hdf5.dataset(file, key)
    start: int | None = stored.id.get_offset()  # None where rows do not lie end to end
    if start is None or start + stored.nbytes > file.id.get_filesize() or stored.dtype != np.dtype(kind):
        raise RefusalError(f"'{key}' {stored.shape} of {stored.dtype} does not lie end to end within the file")
    return start


def _headers(file: hdf5.File, slides: int) -> list[Header]:
    try:
        headers = _HEADERS.validate_json(_small(file, "headers", "u").tobytes())
    except ValidationError as error:
        raise RefusalError(f"'headers' cannot be read: {error.errors()[0]['msg']}") from None
    if len(headers) != slides:
        raise RefusalError(f"'headers' tells of {len(headers)} slides, expected {slides}")
    return headers


def _small(file: hdf5.File, key: str, kinds: str) -> NDArray[Any]:
    stored = hdf5.dataset(file, key)
    if stored.dtype.kind not in kinds or stored.size * stored.dtype.itemsize > _INDEX_BYTES:
        raise RefusalError(f"'{key}' is {stored.shape} of {stored.dtype}, expected a small part of the index")
    values: NDArray[Any] = stored[()]
    return values


def _rows(file: io.BufferedReader, place: int, start: int, shape: tuple[int, int], kind: str) -> NDArray[Any]:
    rows = np.empty(shape, dtype=kind)
    file.seek(place + start * shape[1] * rows.itemsize)
    if file.readinto(rows.reshape(-1).view(np.uint8).data) != rows.nbytes:
        raise RefusalError(f"it ends before its tiles do, expected {rows.nbytes} bytes more")
    return rows


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _tensor(values: NDArray[Any]) -> Tensor:
    if values.dtype.kind == "V":
        return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(values)


def header_json(headers: list[Header]) -> bytes:
    """Return the headers as they are stored."""
    return json.dumps(_HEADERS.dump_python(headers, mode="json"), ensure_ascii=False).encode("utf-8", "replace")
