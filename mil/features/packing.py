"""Pack a folder of features into one file.

The file is created at its full size and closed. Tiles are then written to their offsets, and a journal lists the slides
that have reached the disk. HDF5 is not open while tiles are written, so a process that is killed at any moment can be
resumed.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, TextIO

import h5py
import numpy as np
import torch
from torch import Tensor

from mil import files
from mil.errors import ConfigError, FeatureError
from mil.features.formats import Header
from mil.features.packed import KINDS, MARK, NAMES, VERSION, Packed, as_bytes, digest, header_json
from mil.features.resolutions import check_resolutions
from mil.features.store import FeatureStore
from mil.progress import advance
from mil.tables import listed

DTYPES = {"float16": torch.float16, "float32": torch.float32, "bfloat16": torch.bfloat16}
_SYNC_BYTES = 2**28

Progress = Callable[[str, int, int], None]
"""Called with the name of the step, the number of slides done, and the number of slides."""


@dataclass(frozen=True)
class Packing:
    """The result of packing."""

    slides: int
    tiles: int
    dtype: str
    before: int
    """bytes of all source files"""
    after: int
    """bytes of the packed file"""
    rounding: float
    """largest change of a value by the conversion to another dtype"""
    resumed: int
    """slides that an earlier, interrupted process had written"""


_Source = tuple[str, int, int]
"""Path, size and modification time of the file or folder that a slide is read from."""


@dataclass(frozen=True)
class _Plan:
    """What is written, and where."""

    slides: Sequence[str]
    headers: Sequence[Header]
    sources: Sequence[_Source]
    dtype: str
    width: int

    @cached_property
    def offsets(self) -> list[int]:
        """First row of each slide, and the number of rows."""
        return [0, *accumulate(header.tiles for header in self.headers)]

    def to_json(self) -> str:
        """Return the plan as one line of JSON; an interrupted packing is resumed only with the same plan."""
        each = zip(self.slides, self.sources, self.headers, strict=True)
        slides = {slide: [*source, asdict(header)] for slide, source, header in each}
        return json.dumps({"version": VERSION, "dtype": self.dtype, "slides": slides})


def pack(
    store: FeatureStore,
    out: Path,
    slides: Sequence[str] | None = None,
    dtype: str | None = None,
    progress: Progress | None = None,
    begin_anew: bool = False,
) -> Packing:
    """Write slides of a store into `out`, which appears only when it is complete and verified.

    Args:
        store: The store with the slides.
        out: A new file. The folder `<out>.partial` keeps the work of an interrupted process.
        slides: Ids of the slides; None for all.
        dtype: float16, float32 or bfloat16; None keeps what is stored, the widest where slides differ.
        progress: Called after each slide of each step.
        begin_anew: Whether the work of an interrupted process on other files, or with other options, is removed and not
            an error.

    Raises:
        FeatureError: `out` exists or lies among the slides, slides are unreadable or differ in width, a source has
            changed since an interrupted process began, another process packs into `out`, or the verification fails.
        ConfigError: The dtype is unknown.
    """
    out = out.resolve() if out.is_symlink() else out  # a link is written through
    if out.exists():
        raise FeatureError(f"{out} is there already, expected a new file")
    if {folder.resolve() for folder in store.folders} & set(out.resolve().parents):
        raise FeatureError(f"{out} lies in the folder that is packed, where it would be a slide: expected another")
    report = progress or advance
    plan = _make_plan(store, store.slides if slides is None else slides, dtype, report)
    partial = out.with_name(out.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    with files.locked(partial) as mine:
        if not mine:
            raise FeatureError(f"{partial} is in use: another process packs into {out}")
        job = _Job(store, plan, partial, report, begin_anew)
        resumed = len(job.done)
        rounding = job.write()
        job.verify()
        job.file.replace(out)
    files.settle(out.parent)
    shutil.rmtree(partial)
    before = sum({path: size for path, size, _ in plan.sources}.values())  # a packed file holds many slides
    return Packing(len(plan.slides), plan.offsets[-1], plan.dtype, before, out.stat().st_size, rounding, resumed)


class _Job:
    """A packing, new or resumed."""

    def __init__(
        self, store: FeatureStore, plan: _Plan, folder: Path, progress: Progress, begin_anew: bool = False
    ) -> None:
        self.store, self.plan, self.progress = store, plan, progress
        self.file, self.journal = folder / "cohort.h5", folder / "journal.jsonl"
        self.done: dict[str, tuple[str, float]] = {}  # digest and rounding of the slides that have reached the disk
        if begin_anew and self.journal.exists() and self._is_of_another_plan():
            self.journal.unlink()
        if self.journal.exists():
            self._resume(folder)
        else:
            self._begin()

    def _is_of_another_plan(self) -> bool:
        return self.journal.read_text(encoding="utf-8").partition("\n")[0] != self.plan.to_json()

    def _resume(self, folder: Path) -> None:
        begun, *lines = self.journal.read_text(encoding="utf-8").split("\n")
        if begun != self.plan.to_json():
            raise FeatureError(f"{folder} was begun {_difference(begun, self.plan)}: remove it to begin anew")
        complete = lines[:-1]  # text after the last end of a line was being written when the process was killed
        self.done = {slide: (sha256, lost) for slide, sha256, lost in map(json.loads, complete)}
        files.write(self.journal, "\n".join([begun, *complete, ""]))

    def _begin(self) -> None:
        plan, tiles = self.plan, self.plan.offsets[-1]
        with h5py.File(self.file, "w") as file:
            file.attrs[MARK] = VERSION
            file["offsets"] = np.array(plan.offsets, dtype=np.int64)
            file["slides"] = np.array([slide.encode(*NAMES) for slide in plan.slides], dtype="S")
            file["headers"] = np.frombuffer(header_json(list(plan.headers)), dtype=np.uint8)
            _reserve(file, "sha256", (len(plan.slides), 32), "u1")
            _reserve(file, "coords", (tiles, 2), "i8")
            _reserve(file, "features", (tiles, plan.width), KINDS[plan.dtype])
        # the journal is written only when the file with its full size has reached the disk
        with self.file.open("r+b") as laid:
            os.fsync(laid.fileno())
        files.write(self.journal, plan.to_json() + "\n")

    def write(self) -> float:
        """Write the missing slides and return the largest rounding of all."""
        places, lines, unsynced = self._offsets(), list[str](), 0
        with self.file.open("r+b") as target, self.journal.open("a", encoding="utf-8") as journal:
            for count, slide in enumerate(self.plan.slides, 1):
                if slide not in self.done:
                    unsynced += self._write_slide(target, places, count - 1)
                    lines.append(json.dumps([slide, *self.done[slide]]) + "\n")
                self.progress("packing", count, len(self.plan.slides))
                if unsynced >= _SYNC_BYTES or count == len(self.plan.slides):
                    _sync(target, journal, lines)
                    lines, unsynced = [], 0
            target.seek(places["sha256"])
            target.write(b"".join(bytes.fromhex(self.done[slide][0]) for slide in self.plan.slides))
            _sync(target, journal, [])
        return max((lost for _, lost in self.done.values()), default=0.0)

    def _write_slide(self, target: BinaryIO, places: Mapping[str, int], number: int) -> int:
        slide, row = self.plan.slides[number], self.plan.offsets[number]
        if not self.plan.headers[number].tiles:
            self.done[slide] = (digest(torch.empty(0), None), 0.0)
            return 0
        features, coords, lost = self._read(number)
        content = as_bytes(features)
        target.seek(places["features"] + row * self.plan.width * features.element_size())
        target.write(content)
        xy = torch.full((len(features), 2), -1, dtype=torch.int64) if coords is None else coords
        target.seek(places["coords"] + row * xy.element_size() * 2)
        target.write(xy.numpy().tobytes())
        self.done[slide] = (digest(features, coords), lost)
        return len(content)

    def _read(self, number: int) -> tuple[Tensor, Tensor | None, float]:
        """Return a slide's features and coordinates as they will be stored, and the largest rounding."""
        slide, path = self.plan.slides[number], self.store.path(self.plan.slides[number])
        sources = self.store.sources(slide)
        source = self.store.read(slide)
        coords_as_planned = (source.coords is not None) == self.plan.headers[number].has_coords
        if not coords_as_planned or _source(sources) != self.plan.sources[number]:
            raise FeatureError(f"{path} has changed while slide '{slide}' was packed")
        features, lost = _converted(source.features, DTYPES[self.plan.dtype])
        if not np.isfinite(lost):
            raise FeatureError(f"{path}: slide '{slide}' holds values beyond {self.plan.dtype}, expected dtype float32")
        return features, source.coords, lost

    def _offsets(self) -> dict[str, int]:
        """Return the offsets of the datasets, in bytes."""
        with h5py.File(self.file, "r") as file:
            return {name: file[name].id.get_offset() or 0 for name in ("features", "coords", "sha256")}

    def verify(self) -> None:
        """Read everything back; where that fails, the next process starts from the beginning."""
        packed = Packed(self.file)
        try:
            for count, slide in enumerate(self.plan.slides, 1):
                packed.verify(slide)
                self.progress("reading back", count, len(self.plan.slides))
        except FeatureError:
            self.journal.unlink()
            raise


def _make_plan(store: FeatureStore, slides: Sequence[str], dtype: str | None, progress: Progress) -> _Plan:
    if dtype not in (None, *DTYPES):
        raise ConfigError(f"dtype is '{dtype}', expected {', '.join(DTYPES)}")
    sources = {slide: _source(store.sources(slide)) for slide in sorted(slides)}
    headers = _headers(store, list(sources), progress)
    check_resolutions({slide: header for slide, header in headers.items() if header.tiles}, store.folder)
    widths = {header.width: slide for slide, header in headers.items() if header.tiles}
    if len(widths) != 1:
        listing = " and ".join(f"{width} (slide '{slide}')" for width, slide in sorted(widths.items())) or "no tiles"
        raise FeatureError(f"features under {store.folder} are of several widths: {listing}, expected one")
    read_as = {"float64": "float32"}  # the type in which every layout reads it
    kinds = {read_as.get(header.dtype, header.dtype) for header in headers.values() if header.tiles}
    chosen = dtype or (kinds.pop() if len(kinds) == 1 else "float32")
    # positions are stored as level-0 pixels: what showed their resolution is not needed any more
    stored = [replace(header, dtype=chosen, grid=(), step=None) for header in headers.values()]
    return _Plan(list(headers), stored, list(sources.values()), chosen, *widths)


def _headers(store: FeatureStore, slides: Sequence[str], progress: Progress) -> dict[str, Header]:
    headers: dict[str, Header] = {}
    wrong: dict[str, FeatureError] = {}
    read = store.headers(slides, progress=lambda done, total: progress("reading headers", done, total))
    for slide, header in read.items():
        if isinstance(header, FeatureError):
            wrong[slide] = header
        else:
            headers[slide] = header
    if wrong:
        first = next(iter(wrong.values()))
        raise FeatureError(f"{len(wrong)} of {len(read)} slides cannot be read: {listed(list(wrong))}; {first}")
    return headers


def _source(paths: Sequence[Path]) -> _Source:
    """Return what shows whether the files of a slide, or zarr folders, have changed."""
    files = list[Path]()
    for path in paths:
        within = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
        files += within if path.is_dir() else [path]
    states = [file.stat() for file in files]
    modified = max((state.st_mtime_ns for state in states), default=0)
    return ",".join(str(path.absolute()) for path in paths), sum(state.st_size for state in states), modified


def _difference(begun: str, plan: _Plan) -> str:
    """Describe how the plan in a journal differs from this one."""
    try:
        then, now = json.loads(begun), json.loads(plan.to_json())
        if then["version"] != VERSION or then["dtype"] != plan.dtype:
            return f"as version {then['version']} with dtype {then['dtype']}, expected {VERSION} with {plan.dtype}"
        old, new = then["slides"], now["slides"]
        differing = [slide for slide in sorted({*old, *new}) if old.get(slide) != new.get(slide)]
    except (ValueError, LookupError, TypeError):
        return "by something else"
    return f"on other files or with other options for {len(differing)} slides ({listed(differing)}), expected the same"


def _reserve(file: h5py.File, name: str, shape: tuple[int, int], kind: str) -> None:
    """Create a dataset with space in the file, without writing values."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    layout.set_obj_track_times(False)  # otherwise no two files would be identical
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(np.dtype(kind)), space, layout)


def _converted(features: Tensor, dtype: torch.dtype) -> tuple[Tensor, float]:
    """Return tiles in another dtype, and the largest change of a value."""
    if features.dtype == dtype:
        return features, 0.0
    converted = features.to(dtype)
    lost = (converted.float() - features.float()).abs().max() if len(converted) else torch.zeros(())
    return converted, float(lost)


def _sync(target: BinaryIO, journal: TextIO, lines: list[str]) -> None:
    """Bring tiles to the disk before the journal lists them."""
    target.flush()
    os.fsync(target.fileno())
    journal.writelines(lines)
    journal.flush()
    os.fsync(journal.fileno())
