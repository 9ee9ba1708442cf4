"""Layouts of feature files, one module for each producer; every module of this package is used.

A *container* (HDF5, torch file, numpy file, zarr folder) is opened according to the ending of its name. A *layout*
decides whether the container holds what its producer writes, and reads it (see `Format`). The content alone decides
which layout a file has, never its folder or name; where the content is ambiguous, the user decides (`Reading`).
"""

import importlib
import pkgutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from mil.errors import ConfigError, FeatureError
from mil.slide_names import FEATURE_ENDINGS, slide_id

if TYPE_CHECKING:  # options are checked by the names of the layouts, without torch
    from torch import Tensor

CONTAINERS = dict(
    zip(FEATURE_ENDINGS, ("hdf5", "hdf5", "pickles", "pickles", "arrays", "arrays", "zarrs"), strict=True)
)
"""The module of `mil.features.containers` that opens files with an ending; imported for the first such file."""


TILE = "tile"
"""What the rows of most feature files are vectors of; those of slide encoders are of a slide or a patient."""


@dataclass(frozen=True)
class Reading:
    """Options for files whose content is ambiguous.

    Attributes:
        layout: `data.layout`, the name of a module of this package; None detects it by content.
        batch_axis: `data.batch_axis`, take features `(1, n, d)` and coordinates `(1, n, 2)` for `(n, d)` and `(n, 2)`.
        slide_mpp: `data.slide_mpp`, micrometres a level-0 pixel, for producers that store micrometres.
        table: `data.table`, which of several tables of features in one file is read, by its name or its encoder's.
    """

    layout: str | None = None
    batch_axis: bool = False
    slide_mpp: float | None = None
    table: str | None = None


DETECTED = Reading()
"""No options: everything is taken as the files have it."""


@dataclass(frozen=True)
class Header:
    """What a feature file states about its slide, known without reading the features.

    Attributes:
        tiles: Number of tiles, `n`.
        width: Width of the features, `d`; 0 where an empty slide's file does not know it.
        dtype: As stored: float16, float32, bfloat16 or float64.
        encoder: The encoder as the producer names it; None where the file does not say.
        producer: The software that wrote it, with the version where the file names it.
        extent: Side of a tile in level-0 pixels; None where the file does not say.
        mpp: Micrometres a pixel of the tiles as they were cut, nominal (10 / magnification) where only a magnification
            is stored; None where the file does not say.
        has_coords: Whether tiles have level-0 coordinates.
        tile_px: Side of a tile in pixels at `mpp`; None where the file does not say.
        slide_mpp: Micrometres a level-0 pixel, from the file or as the user says; None where unknown.
        slide_size: Width and height of the slide in level-0 pixels; None where the file does not say.
        extent_height: Height of a tile in level-0 pixels where it differs from its width, `extent`.
        grid: The lowest positions of tiles along both axes in tiles, ascending, where they are stored in micrometres:
            they show whether slides can have one resolution.
        step: Step of the grid of tiles in tiles, where their size depends on the resolution that the user states.
        level: What a row is a vector of: "tile"; "slide" or "patient", of which a file has one row.
        blocks: Name and width of each encoder's part of the features, where several were joined; else none.
    """

    tiles: int
    width: int
    dtype: str
    encoder: str | None
    producer: str
    extent: float | None
    mpp: float | None
    has_coords: bool
    tile_px: float | None = None
    slide_mpp: float | None = None
    slide_size: tuple[float, float] | None = None
    extent_height: float | None = None
    grid: tuple[float, ...] = ()
    step: float | None = None
    level: str = TILE
    blocks: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of_vector(cls, width: int, dtype: str, encoder: str | None, producer: str, level: str) -> "Header":
        """Return the header of a file with one vector of a whole slide or patient, which has no place on a slide."""
        return cls(1, width, dtype, encoder, producer, None, None, has_coords=False, level=level)

    @property
    def itemsize(self) -> int:
        """Bytes of a value in memory; float64 is read as float32."""
        return 2 if self.dtype in ("float16", "bfloat16") else 4


@dataclass(frozen=True)
class Slide:
    """The tiles of one slide, whichever software wrote them.

    Attributes:
        features: `(n, d)`, float16, float32 or bfloat16 as stored; float64 is read as float32.
        coords: `(n, 2)` int64, x and y of each tile's top-left corner in level-0 pixels; None where unknown.
        header: The header of the file.
    """

    features: "Tensor"
    coords: "Tensor | None"
    header: Header


class Format(Protocol):
    """What a module of this package defines; `content` is what `opened` yields.

    Two further names are optional. `COMPANIONS: tuple[str, ...]` names folders (`labels`, `slide_features_*`) and
    endings of files (`.index.npz`) that the producer writes next to the features and that are never slides.
    `slide(path)` returns the name of the slide where it differs from the name of the file, and "" for every other path.
    """

    SUFFIXES: tuple[str, ...]
    """Endings of the files of this layout, keys of `CONTAINERS`."""

    def matches(self, path: Path, content: Any) -> bool:
        """Return whether the container has this layout."""

    def header(self, path: Path, content: Any, reading: Reading) -> Header:
        """Return the header of the file."""

    def features(self, path: Path, content: Any, header: Header, reading: Reading, rows: slice) -> "Tensor":
        """Return the features `(m, d)` of some tiles of the slide, `header` being its header."""

    def coords(self, path: Path, content: Any, header: Header, reading: Reading) -> "Tensor | None":
        """Return the coordinates `(n, 2)` of all tiles; None where they are not known."""


@cache
def formats() -> dict[str, Format]:
    """Return every layout of this package by name: `trident` is the module `read_trident`."""
    return {name: cast(Format, importlib.import_module(f"{__name__}.read_{name}")) for name in names()}


@cache
def names() -> tuple[str, ...]:
    """Return the names of the layouts, without importing them."""
    return tuple(sorted(module.name.removeprefix("read_") for module in pkgutil.iter_modules(__path__)))


@cache
def suffixes() -> tuple[str, ...]:
    """Return the endings of files that may hold features."""
    return tuple(sorted({suffix for layout in formats().values() for suffix in layout.SUFFIXES}))


@cache
def companions() -> tuple[str, ...]:
    """Return patterns of folders and endings of files that lie next to features and are not slides."""
    return tuple(sorted({name for layout in formats().values() for name in getattr(layout, "COMPANIONS", ())}))


def slide_of(path: Path) -> str:
    """Return the id of the slide whose features lie at `path`."""
    for layout in _candidates(path).values():
        if name := layout.slide(path) if hasattr(layout, "slide") else "":
            return slide_id(name)
    return slide_id(path.name)


def opened(path: Path, bulk: bool = False) -> AbstractContextManager[Any]:
    """Open a container for reading, according to its ending.

    Args:
        path: The file, or the folder.
        bulk: Open it to read whole arrays fast; only for containers whose header was read before.

    Raises:
        FeatureError: The ending is unknown, or the container is broken.
    """
    if path.suffix.lower() not in CONTAINERS:
        raise FeatureError(f"{path} has no known layout: expected a name ending in {' or '.join(suffixes())}")
    module = importlib.import_module(f"mil.features.containers.{CONTAINERS[path.suffix.lower()]}")
    return cast(AbstractContextManager[Any], module.opened(path, bulk=bulk))


def examine(path: Path, reading: Reading = DETECTED) -> tuple[str, Header]:
    """Return the name of the layout of a file, decided by its content, and its header.

    Raises:
        FeatureError: No layout fits, several fit, the requested one does not fit, or the file cannot be read.
        ConfigError: There is no such layout.
    """
    if reading.layout is not None and reading.layout not in names():
        raise ConfigError(f"data.layout={reading.layout}, expected one of {', '.join(names())}")
    with opened(path) as content:
        layout = _matching_layout(path, content, reading.layout)
        return layout, formats()[layout].header(path, content, reading)


def read(path: Path, layout: str, header: Header, reading: Reading = DETECTED) -> Slide:
    """Return the slide, with the layout and header that `examine` returned.

    Raises:
        FeatureError: The file cannot be read.
    """
    producer = formats()[layout]
    with opened(path, bulk=True) as content:
        features = producer.features(path, content, header, reading, slice(None))
        current = header if len(features) == header.tiles else replace(header, tiles=len(features))
        return Slide(features, producer.coords(path, content, current, reading), header)


def read_rows(path: Path, layout: str, header: Header, reading: Reading, runs: Sequence[slice]) -> "list[Tensor]":
    """Return the features `(m, d)` of runs of tiles; others are not held in memory where the container allows it.

    Raises:
        FeatureError: The file cannot be read.
    """
    with opened(path) as content:
        if path.suffix.lower() == ".zarr" and len(runs) > 1:  # every run would unpack its chunks anew
            hull = slice(runs[0].start, runs[-1].stop)
            rows = formats()[layout].features(path, content, header, reading, hull)
            return [rows[run.start - hull.start : run.stop - hull.start] for run in runs]
        return [formats()[layout].features(path, content, header, reading, run) for run in runs]


def compare(path: Path) -> None:
    """Compare a file with the checksums in it, where its container has some that reading parts of it skips.

    Raises:
        FeatureError: It differs.
    """
    if CONTAINERS.get(path.suffix.lower()) == "pickles":
        from mil.features.containers import pickles

        pickles.compare(path)


def read_coords(path: Path, layout: str, header: Header, reading: Reading) -> "Tensor | None":
    """Return the coordinates `(n, 2)` of all tiles; None where they are not known.

    Raises:
        FeatureError: The file cannot be read.
    """
    with opened(path) as content:
        return formats()[layout].coords(path, content, header, reading)


def _candidates(path: Path) -> dict[str, Format]:
    ending = path.suffix.lower()
    return {name: layout for name, layout in formats().items() if ending in layout.SUFFIXES}


def _matching_layout(path: Path, content: Any, requested: str | None) -> str:
    candidates = _candidates(path)
    claims = [name for name, layout in candidates.items() if layout.matches(path, content)]
    if requested in claims:
        return requested
    if len(claims) == 1 and requested is None:
        return claims[0]
    if claims and requested is None:
        raise FeatureError(f"{path} can be read as {' or '.join(claims)}, data.layout=... decides")
    problem = (
        f"is not of data.layout={requested}"
        if requested
        else f"has no known layout ({', '.join(candidates) or 'none'})"
    )
    raise FeatureError(f"{path} {problem}: {_describe(content, claims)}")


def _describe(content: Any, claims: list[str]) -> str:
    if claims:
        return f"it is of {' or '.join(claims)}"
    if hasattr(content, "shape"):
        return f"it is a {type(content).__name__} of {content.dtype} and shape {tuple(content.shape)}"
    if not hasattr(content, "keys"):
        return f"it is a {type(content).__name__}, expected features as one of them writes them"
    named = ", ".join(f"'{key}'" for key in islice(content, 10))
    return f"it holds {named or 'nothing'}, expected 'features' as one of them writes it"
