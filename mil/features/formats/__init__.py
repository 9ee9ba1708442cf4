"""The producers' layouts, one a module; a module here is found by being here.

A *container* (HDF5, a torch file, a numpy file, a zarr folder) is opened once and safely, by its ending; a *layout*
says whether it is what the container holds, and reads it (see `Format`). Which layout a file has is decided by what the
file holds, never by where it lies or what it is called; where the content leaves it open, the user decides (`Reading`).
"""

import importlib
import pkgutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast

from torch import Tensor

from mil.errors import ConfigError, FeatureError
from mil.slide_names import FEATURE_ENDINGS, slide_id

CONTAINERS = dict(
    zip(FEATURE_ENDINGS, ("hdf5", "hdf5", "pickles", "pickles", "arrays", "arrays", "zarrs"), strict=True)
)
"""The module of `mil.features.containers` that opens files of an ending; imported when the first such file is met."""


@dataclass(frozen=True)
class Reading:
    """What the user says of files that leave it open.

    Attributes:
        layout: `data.layout`, the name of a module of this package; None detects it by content.
        batch_axis: `data.batch_axis`, take features `(1, n, d)` and coordinates `(1, n, 2)` for `(n, d)` and `(n, 2)`.
        slide_mpp: `data.slide_mpp`, micrometres a level-0 pixel, for producers that store micrometres.
    """

    layout: str | None = None
    batch_axis: bool = False
    slide_mpp: float | None = None


DETECTED = Reading()
"""Nothing was said: everything is as the files have it."""


@dataclass(frozen=True)
class Header:
    """What a feature file says of itself, known without reading the features.

    Attributes:
        tiles: Number of tiles, `n`.
        width: Width of the features, `d`; 0 where an empty slide's file does not know it.
        dtype: As stored: float16, float32, bfloat16 or float64.
        encoder: The encoder as the producer names it; None where the file does not say.
        producer: Whose layout it is, with the version where the file says it.
        extent: Side of a tile in level-0 pixels; None where the file does not say.
        mpp: Micrometres a pixel of the tiles as they were cut, nominal (10 / magnification) where only a magnification
            is stored; None where the file does not say.
        has_coords: Whether tiles have level-0 coordinates.
        tile_px: Side of a tile in pixels at `mpp`; None where the file does not say.
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


@dataclass(frozen=True)
class Slide:
    """One slide's tiles, whoever wrote them.

    Attributes:
        features: `(n, d)`, float16, float32 or bfloat16 as stored; float64 is read as float32.
        coords: `(n, 2)` int64, x and y of each tile's top-left corner in level-0 pixels; None where unknown.
        header: What the file says of itself.
    """

    features: Tensor
    coords: Tensor | None
    header: Header


class Format(Protocol):
    """What a module of this package offers; `content` is what `opened` gives.

    Two further attributes may be left out. `BESIDE: tuple[str, ...]` names folders (`labels`, `slide_features_*`) and
    endings of files (`.index.npz`) that lie beside this layout's features and are never slides. `slide(path) -> str`
    gives the slide's name where it is not the file's own, and nothing ("") for every other path.
    """

    SUFFIXES: tuple[str, ...]
    """Endings of this layout's files, keys of `CONTAINERS`."""

    def matches(self, path: Path, content: Any) -> bool:
        """Whether the container holds this layout."""

    def header(self, path: Path, content: Any, reading: Reading) -> Header:
        """What the file says of itself."""

    def read(self, path: Path, content: Any, header: Header, reading: Reading) -> Slide:
        """The whole slide; the container is opened in bulk, and `header` is its header."""


@cache
def formats() -> dict[str, Format]:
    """Every layout of this package: `trident` is module `read_trident`."""
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name.removeprefix("read_"): cast(Format, importlib.import_module(f"{__name__}.{name}")) for name in modules}


@cache
def suffixes() -> tuple[str, ...]:
    """The endings of files that may hold features."""
    return tuple(sorted({suffix for layout in formats().values() for suffix in layout.SUFFIXES}))


@cache
def beside() -> tuple[str, ...]:
    """Patterns of folders, and endings of files, that lie beside features and are no slides."""
    return tuple(sorted({name for layout in formats().values() for name in getattr(layout, "BESIDE", ())}))


def slide_of(path: Path) -> str:
    """The id of the slide whose features lie at `path`."""
    for layout in _candidates(path).values():
        if name := layout.slide(path) if hasattr(layout, "slide") else "":
            return slide_id(name)
    return slide_id(path.name)


def opened(path: Path, bulk: bool = False) -> AbstractContextManager[Any]:
    """A container opened for reading, by its ending.

    Args:
        path: The file, or the folder.
        bulk: Opened to read whole arrays fast; only for containers whose header was read before.

    Raises:
        FeatureError: An unknown ending, or whatever is wrong with it, in one line.
    """
    if path.suffix.lower() not in CONTAINERS:
        raise FeatureError(f"{path} has no known layout: expected a name ending in {' or '.join(suffixes())}")
    module = importlib.import_module(f"mil.features.containers.{CONTAINERS[path.suffix.lower()]}")
    return cast(AbstractContextManager[Any], module.opened(path, bulk=bulk))


def examine(path: Path, reading: Reading = DETECTED) -> tuple[str, Header]:
    """The layout of a file, by its content, and its header; the file is opened once.

    Raises:
        FeatureError: No layout claims the file, several do, it is not of the layout asked for, or it cannot be read.
        ConfigError: There is no such layout.
    """
    if reading.layout is not None and reading.layout not in formats():
        raise ConfigError(f"data.layout={reading.layout}, expected one of {', '.join(formats())}")
    with opened(path) as content:
        layout = _claimed(path, content, reading.layout)
        return layout, formats()[layout].header(path, content, reading)


def read(path: Path, layout: str, header: Header, reading: Reading = DETECTED) -> Slide:
    """The whole slide, once `examine` has said what it is.

    Raises:
        FeatureError: Whatever is wrong with it, in one line.
    """
    with opened(path, bulk=True) as content:
        return formats()[layout].read(path, content, header, reading)


def _candidates(path: Path) -> dict[str, Format]:
    ending = path.suffix.lower()
    return {name: layout for name, layout in formats().items() if ending in layout.SUFFIXES}


def _claimed(path: Path, content: Any, requested: str | None) -> str:
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
    raise FeatureError(f"{path} {problem}: {_held(content, claims)}")


def _held(content: Any, claims: list[str]) -> str:
    if claims:
        return f"it is of {' or '.join(claims)}"
    if hasattr(content, "shape"):
        return f"it is a {type(content).__name__} of {content.dtype} and shape {tuple(content.shape)}"
    if not hasattr(content, "keys"):
        return f"it is a {type(content).__name__}, expected features as one of them writes them"
    named = ", ".join(f"'{key}'" for key in islice(content, 10))
    return f"it holds {named or 'nothing'}, expected 'features' as one of them writes it"
