"""The producers' layouts, one a module; a module here is found by being here.

A layout is three functions and the suffixes it looks at (see `Format`). Which layout a file has is decided by what
the file holds, never by where it lies or what it is called.
"""

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, cast

from torch import Tensor

from mil.data import hdf5
from mil.errors import FeatureError


@dataclass(frozen=True)
class Header:
    """What a feature file says of itself, known without reading the features.

    Attributes:
        tiles: Number of tiles, `n`.
        width: Width of the features, `d`; 0 where an empty slide's file does not know it.
        dtype: As stored: float16, float32, bfloat16 or float64.
        encoder: The encoder as the producer names it; None where the file does not say.
        producer: Whose layout it is.
        extent: Side of a tile in level-0 pixels; None where the file does not say.
        mpp: Micrometres a pixel of the tiles; None where the file does not say.
        has_coords: Whether tiles have level-0 coordinates.
    """

    tiles: int
    width: int
    dtype: str
    encoder: str | None
    producer: str
    extent: float | None
    mpp: float | None
    has_coords: bool


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
    """What a module of this package offers."""

    SUFFIXES: tuple[str, ...]
    """Endings of this layout's files, in lower case with the dot."""

    def matches(self, path: Path) -> bool:
        """Whether the file holds this layout."""

    def header(self, path: Path) -> Header:
        """What the file says of itself."""

    def read(self, path: Path, said: Header | None = None) -> Slide:
        """The whole slide; `said` is its header where it was read before."""


@cache
def formats() -> dict[str, Format]:
    """Every layout of this package by its module's name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: cast(Format, importlib.import_module(f"{__name__}.{name}")) for name in names}


def suffixes() -> tuple[str, ...]:
    """The endings of files that may hold features."""
    return tuple(sorted({suffix for layout in formats().values() for suffix in layout.SUFFIXES}))


def detect(path: Path) -> Format:
    """The layout of a file, by its content.

    Raises:
        FeatureError: No layout claims the file (naming what it holds), more than one does, or it cannot be read.
    """
    candidates = {name: layout for name, layout in formats().items() if path.suffix.lower() in layout.SUFFIXES}
    claims = [name for name, layout in candidates.items() if layout.matches(path)]
    if len(claims) > 1:
        raise FeatureError(f"{path} could be any of {', '.join(claims)}, expected one layout")
    if not claims:
        known = ", ".join(candidates or formats())
        raise FeatureError(f"{path} has no known layout ({known}): {_content(path)}")
    return candidates[claims[0]]


def _content(path: Path) -> str:
    if path.suffix.lower() != ".h5":
        return f"expected a name ending in {' or '.join(suffixes())}"
    with hdf5.opened(path) as file:
        found = [f"'{key}'" for key in hdf5.keys(file)[:10]]
    return f"it holds {', '.join(found) or 'nothing'}, expected a dataset 'features' as one of them writes it"
