"""Copies of cohorts on storage near the computer, `data.cache`: packed, verified, and made once for all runs.

    <folder>-<key>.json       what the copy holds, and what its slides' files were like
    <folder>-<key>.lock       held by the process that looks at the copy, or makes it
    <folder>-<key>-<n>.h5     the copy, a packed file; a newer one has a higher number
    <folder>-<key>-<n>.lock   held by every process that reads the copy, which is then not removed
    <folder>-<key>-<n>.h5.partial/    what a stopped process had copied; the next one goes on

The key is of the source's path, of how its files are read, and of the type of the copy. Slides whose file has another
size, or another time and other samples than when it was copied, are copied again.
"""

import fcntl
import glob
import hashlib
import json
import logging
import os
import shutil
import time
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mil import files
from mil.errors import ConfigError, FeatureError, ResourceError
from mil.features.feature_copy import FeatureCopy
from mil.features.fingerprints import Fingerprint, fingerprint, state_of
from mil.features.packed import KINDS, Packed
from mil.features.packing import pack
from mil.features.store import FeatureStore
from mil.memory import GIB
from mil.slide_names import file_stem

logger = logging.getLogger(__name__)
_ITEM_BYTES = {name: int(kind[-1]) for name, kind in KINDS.items()}
_PLACE = 16
"""Bytes of the two coordinates of a tile."""
_WAIT = 0.2
"""Seconds between two looks at a lock."""
_THREADS = 8
_REMEDY = "remove this file: the next run copies the cohort again"


@dataclass(frozen=True)
class CacheOptions:
    """What the user says of copies.

    Attributes:
        folder: `data.cache`.
        dtype: `data.cache_dtype`, float16 or bfloat16; None keeps what is stored.
        gib: `data.cache_gib`, size of all copies in the folder; None sets no limit.
    """

    folder: Path
    dtype: str | None = None
    gib: float | None = None


@dataclass(frozen=True)
class CopyNeeds:
    """What is still to be copied.

    Attributes:
        slides: Number of slides of the cohort.
        missing: Number of slides that are not in the copy, or whose file has changed since.
        bytes: Size of the copy that has to be written for them; 0 where none is missing.
        free: Bytes free on the disk of the copies.
    """

    slides: int
    missing: int
    bytes: int
    free: int


class _Record(BaseModel):
    """What a copy holds."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    number: int
    source: str
    dtype: str
    rounding: float
    slides: dict[str, tuple[int, int, str]]
    """size, time and sampled digest of each slide's file"""
    mpps: dict[str, float]


class FeatureCache:
    """The copy of the slides of one store.

    Args:
        options: Where copies are, and how large they may be.
        store: The slides; `attach` and `fill` let it read from the copy.
    """

    def __init__(self, options: CacheOptions, store: FeatureStore) -> None:
        self.options, self.store = options, store
        identity = [str(store.folder.absolute()), asdict(store.reading), options.dtype]
        key = "c" + hashlib.sha256(json.dumps(identity).encode("utf-8", "surrogateescape")).hexdigest()[:12]
        self._entry = _Entry(options.folder, f"{file_stem(store.folder.resolve().name)[:60]}-{key}")

    def attach(self) -> None:
        """Let the store read from an existing copy what is still the same, unless another process is making it anew."""
        if self._entry.record() is None:
            return
        with self._entry.locked() as mine:
            if mine:
                self._attach()

    def needs(self, slides: Iterable[str]) -> CopyNeeds:
        """Return what `fill` would copy."""
        ids = sorted(set(slides))
        missing = [slide for slide in ids if not self.store.is_copied(slide)]
        size = self._size(self._together(ids)) if missing else 0
        folder = next(
            path for path in (self.options.folder.absolute(), *self.options.folder.absolute().parents) if path.is_dir()
        )
        return CopyNeeds(len(ids), len(missing), size, shutil.disk_usage(folder).free)

    def fill(self, slides: Iterable[str]) -> None:
        """Copy what is missing, once for all processes, and let the store read the slides from the copy.

        Args:
            slides: Ids of slides that can be read.

        Raises:
            ConfigError: The copy is larger than `data.cache_gib`, or lies among the features.
            FeatureError: A slide cannot be read.
            ResourceError: The disk has not enough room.
            OSError: The disk became full, or cannot be written to.
        """
        ids = sorted(set(slides))
        with files.writing(self.options.folder):
            self.options.folder.mkdir(parents=True, exist_ok=True)
        with self._entry.locked(wait=True):
            self._attach()  # another process may have copied in the meantime
            needs = self.needs(ids)
            if needs.missing:
                self._copy(self._together(ids), needs)

    def _copy(self, slides: list[str], needs: CopyNeeds) -> None:
        entry, before = self._entry, self._entry.record()
        number = 1 if before is None else before.number + 1
        path = entry.path(number)
        self._make_room(needs, path)
        logger.info("copying %d of %d slides to %s, %s", needs.missing, needs.slides, path, size_text(needs.bytes))
        fingerprints = self.store.fingerprints(slides)
        earlier = self.store.rounding or ("", 0.0)
        with files.writing(path):
            packing = pack(self.store, path, slides, self.options.dtype, begin_anew=True)
        record = _Record(
            number=number,
            source=str(self.store.folder.absolute()),
            dtype=packing.dtype,
            rounding=max(packing.rounding, earlier[1]),
            slides={slide: (each.size, each.modified, each.sha256) for slide, each in fingerprints.items()},
            mpps={slide: mpp for slide, mpp in self.store.slide_mpps.items() if slide in fingerprints},
        )
        entry.write(record)
        self._attach()
        entry.remove_unused(keep=number)
        remark = f"; values were rounded to {record.dtype}, by at most {record.rounding:.3g}" if record.rounding else ""
        if packing.resumed:
            remark = f", {packing.resumed} of them before the copying was interrupted{remark}"
        logger.info("copied %d slides, each read back and compared%s", len(slides), remark)

    def _attach(self) -> None:
        record = self._entry.record()
        handle = None if record is None else self._entry.use(record.number)
        if record is None or handle is None:
            return
        packed = Packed(self._entry.path(record.number), _REMEDY)
        same = self._unchanged(record)
        copy = FeatureCopy(packed, same, record.mpps, record.dtype, record.rounding)
        weakref.finalize(copy, os.close, handle)
        try:
            complete = set(record.slides) <= set(packed.slides)
        except FeatureError as error:
            logger.warning("%s; it is copied again", error)
            return
        if complete:
            self.store.use_copy(copy)
            self._entry.touch(record, same)

    def _unchanged(self, record: _Record) -> dict[str, Fingerprint]:
        """Return the fingerprints of the slides whose files are what they were when they were copied."""
        before = {slide: Fingerprint(*each) for slide, each in record.slides.items() if slide in self.store}
        if self.store.is_packed:
            now = self.store.own_fingerprints(before)
            return {slide: now[slide] for slide, each in before.items() if each.has_same_content(now[slide])}

        def same(slide: str) -> Fingerprint | None:
            path, each = self.store.path(slide), before[slide]
            state = state_of(path)
            if (state.size, state.modified) == (each.size, each.modified):
                return each
            now = fingerprint(path) if state.size == each.size else None
            return now if now is not None and each.has_same_content(now) else None

        with ThreadPoolExecutor(_THREADS) as threads:
            each = zip(before, threads.map(same, before), strict=True)
            return {slide: now for slide, now in each if now is not None}

    def _together(self, slides: list[str]) -> list[str]:
        """Return the slides with those that the copy already holds for other cohorts."""
        return sorted({*slides, *filter(self.store.is_copied, self.store.slides)})

    def _size(self, slides: list[str]) -> int:
        headers = self.store.valid_headers(slides)
        sizes = {slide: _ITEM_BYTES.get(self.options.dtype or header.dtype, 4) for slide, header in headers.items()}
        return sum(header.tiles * (header.width * sizes[slide] + _PLACE) for slide, header in headers.items())

    def _make_room(self, needs: CopyNeeds, path: Path) -> None:
        """Remove copies that were not used for longest, and check that there is room.

        Raises:
            ConfigError: `data.cache_gib` is less than the copy, or than it with the copies that are in use.
            ResourceError: The disk has less.
        """
        folder, gib = self.options.folder, self.options.gib
        what = f"the copy of {needs.slides} slides needs {size_text(needs.bytes)}"
        if gib is not None:
            others = sorted(
                (entry for entry in _entries(folder) if entry.name != self._entry.name), key=_Entry.last_used
            )
            used = sum(entry.size() for entry in others if entry.is_used())
            if used + needs.bytes > gib * GIB:
                more = f", beside {size_text(used)} of copies that are in use" if used else ""
                raise ConfigError(f"data.cache_gib={gib:g}: {what}{more}, expected room for it; {_SMALLER}")
            for entry in others:
                if sum(map(_Entry.size, others)) + needs.bytes > gib * GIB:
                    entry.remove()
        begun = _disk_bytes(path.with_name(f"{path.name}.partial"))
        free = shutil.disk_usage(folder).free + begun
        if needs.bytes > free:
            raise ResourceError(
                f"data.cache={folder}: {what}, and {size_text(free)} are free on its disk: choose another folder, or "
                f"remove copies; {_SMALLER}"
            )


def attach_copies(options: CacheOptions, store: FeatureStore) -> None:
    """Let a store read from existing copies, of several encoders from one of each, see `FeatureCache.attach`."""
    for each in store.stores:
        FeatureCache(options, each).attach()
    store.copies_changed()


def needs_of_copies(options: CacheOptions, store: FeatureStore, slides: Iterable[str]) -> CopyNeeds:
    """Return what `fill_copies` would copy; a slide of which an encoder's features are missing counts once."""
    ids = sorted(set(slides))
    needs = [FeatureCache(options, each).needs(ids) for each in store.stores]
    missing = sum(not store.is_copied(slide) for slide in ids)
    return CopyNeeds(len(ids), missing, sum(each.bytes for each in needs), needs[0].free)


def fill_copies(options: CacheOptions, store: FeatureStore, slides: Iterable[str]) -> None:
    """Copy what is missing of a store, of several encoders into one copy of each, see `FeatureCache.fill`.

    Raises:
        ConfigError: The copies would lie among the features.
        MilError: As `FeatureCache.fill`.
    """
    place = options.folder.resolve()
    for folder in store.folders:
        if folder.is_dir() and folder.resolve() in (place, *place.parents):
            raise ConfigError(f"data.cache={options.folder}: lies in {folder}, which is read, expected another folder")
    ids = sorted(set(slides))
    for each in store.stores:
        FeatureCache(options, each).fill(ids)
    store.copies_changed()


_SMALLER = "data.cache_dtype=float16 makes a copy of float32 half as large"


@dataclass(frozen=True)
class _Entry:
    """The files of one copy in a folder of copies."""

    folder: Path
    name: str

    def path(self, number: int) -> Path:
        return self.folder / f"{self.name}-{number}.h5"

    def record(self) -> _Record | None:
        """Return what the copy holds; None where there is none, or its file was removed."""
        try:
            record = _Record.model_validate_json((self.folder / f"{self.name}.json").read_bytes())
        except (OSError, ValidationError):
            return None
        return record if self.path(record.number).is_file() else None

    def write(self, record: _Record) -> None:
        files.write_json(self.folder / f"{self.name}.json", record.model_dump(mode="json"))

    def touch(self, record: _Record, same: dict[str, Fingerprint]) -> None:
        """Note that the copy is used now, and the times of files that are newer with the same content."""
        now = {slide: (each.size, each.modified, each.sha256) for slide, each in same.items()}
        if any(now[slide] != record.slides[slide] for slide in now):
            self.write(record.model_copy(update={"slides": record.slides | now}))
        else:
            os.utime(self.folder / f"{self.name}.json")

    @contextmanager
    def locked(self, wait: bool = False) -> Iterator[bool]:
        """Lock the copy for this process; yield false where another one holds it and this one is not to wait."""
        handle = os.open(self.folder / f"{self.name}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            mine = _flock(handle, fcntl.LOCK_EX)
            if not mine and wait:
                logger.info("waiting: another process copies to %s", self.folder / self.name)
            while wait and not mine:
                time.sleep(_WAIT)
                mine = _flock(handle, fcntl.LOCK_EX)
            yield mine
        finally:
            os.close(handle)

    def use(self, number: int) -> int | None:
        """Return a handle that keeps others from removing the copy until it is closed; None where it is removed."""
        handle = os.open(self._lock(number), os.O_RDWR | os.O_CREAT, 0o666)
        if _flock(handle, fcntl.LOCK_SH) and self.path(number).is_file() and self._lock(number).exists():
            return handle
        os.close(handle)
        return None

    def last_used(self) -> float:
        paths = [path for path in self._paths() if path.exists()]
        records = [path for path in paths if path.suffix == ".json"]  # the time of a copy is when it was made
        return max((path.stat().st_mtime for path in records or paths), default=0.0)

    def is_used(self) -> bool:
        """Return whether a process makes or reads the copy."""
        with self.locked() as mine:
            handles = [os.open(path, os.O_RDWR) for path in self._numbered() if path.suffix == ".lock"]
            try:
                return not (mine and all(_flock(handle, fcntl.LOCK_EX) for handle in handles))
            finally:
                for handle in handles:
                    os.close(handle)

    def size(self) -> int:
        return sum(map(_disk_bytes, self._paths()))

    def remove(self) -> None:
        """Remove the copy, unless another process reads or makes it."""
        with self.locked() as mine:
            if mine and self.remove_unused():
                (self.folder / f"{self.name}.json").unlink(missing_ok=True)
                logger.info("removed the copy %s, which was not used for longest", self.folder / self.name)

    def remove_unused(self, keep: int | None = None) -> bool:
        """Remove the files of copies that no process reads, but for number `keep`; return whether none is left."""
        numbers = {int(path.name.removeprefix(f"{self.name}-").partition(".")[0]) for path in self._numbered()}
        left = False
        for number in numbers - {keep}:
            handle = os.open(self._lock(number), os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if _flock(handle, fcntl.LOCK_EX):
                    self.path(number).unlink(missing_ok=True)
                    shutil.rmtree(self.path(number).with_name(f"{self.path(number).name}.partial"), ignore_errors=True)
                    self._lock(number).unlink(missing_ok=True)
                else:
                    left = True
            finally:
                os.close(handle)
        return not left

    def _lock(self, number: int) -> Path:
        return self.folder / f"{self.name}-{number}.lock"

    def _numbered(self) -> Iterator[Path]:
        """Yield the files of single copies: their names go on with a number."""
        for path in self.folder.glob(f"{glob.escape(self.name)}-*"):
            if path.name.removeprefix(f"{self.name}-").partition(".")[0].isdigit():
                yield path

    def _paths(self) -> list[Path]:
        return [*self._numbered(), self.folder / f"{self.name}.json"]


def _entries(folder: Path) -> list[_Entry]:
    """Return the copies in a folder, complete or not."""
    names = [path.stem for path in folder.glob("*.lock") if not path.stem.rpartition("-")[2].isdigit()]
    return [entry for entry in (_Entry(folder, name) for name in names) if entry.size()]


def _flock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _disk_bytes(path: Path) -> int:
    """Return the bytes that a file, or a folder, takes on the disk: one that is being written may be sparse."""
    paths = [Path(place, name) for place, _, names in os.walk(path) for name in names] if path.is_dir() else [path]
    return sum(each.stat().st_blocks * 512 for each in paths if each.exists())


def size_text(count: int) -> str:
    """Return a number of bytes as text, in GiB or for small ones in MiB."""
    return f"{count / GIB:.3g} GiB" if count >= GIB / 10 else f"{count / 2**20:.3g} MiB"
