"""What a slide's features are, whatever file holds them: values of a few tiles, compared within the rounding of a type.

The bytes of a packed, cached or converted copy are others than those of the original, and its values may be rounded to
float16 or bfloat16. So values are compared, not digests: those of the same columns of the same tiles.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from mil.errors import MilError
from mil.features.pieces import Pieces

VALUES = 32
"""Values a slide; of `TILES` tiles, as far as it has so many."""
TILES, MANY_TILES = 4, 256
"""Tiles of a sample that is recorded, and of one that confirms that two slides are the same."""
LEAST = 64
"""Values that a slide has at least where equal ones say that it is the same: a row of a clinical table, read as a bag
of one tile, is often that of several patients."""
ROUNDING = 2.0**-6
"""Largest relative difference: bfloat16 rounds by 2^-8, a stored sample once more, and so may both copies."""
SMALLEST = 2.0**-23
"""Differences that float16 makes of values near zero, whose steps there are 2^-24."""


@dataclass(frozen=True)
class ContentSample:
    """The number and the width of a slide's tiles, and some of their values.

    Attributes:
        tiles: Number of tiles.
        width: Values of a tile.
        values: Values of the same columns of tiles from the first to the last.
    """

    tiles: int
    width: int
    values: tuple[float, ...]

    def is_of(self, sample: "ContentSample") -> bool:
        """Return whether both are of the same features, as far as the values show and whatever their type."""
        if (self.tiles, self.width, len(self.values)) != (sample.tiles, sample.width, len(sample.values)):
            return False
        these, those = np.array(self.values), np.array(sample.values)
        return bool((np.abs(these - those) <= _allowed(these, those)).all())

    def text(self) -> str:
        """Return the sample as a short text, with the values in bfloat16."""
        return f"{self.tiles}x{self.width}:" + _bfloat16(self.values)

    @classmethod
    def parse(cls, text: str) -> "ContentSample":
        """Return the sample of a text.

        Raises:
            ValueError: It is something else.
        """
        shape, _, digits = text.partition(":")
        tiles, _, width = shape.partition("x")
        upper = np.frombuffer(bytes.fromhex(digits), dtype=">u2").astype(np.uint32)
        return cls(int(tiles), int(width), tuple(map(float, (upper << 16).view(np.float32))))


Samples = tuple[ContentSample, ...]
"""Of a slide: that of each encoder, where several are joined."""


def texts(samples: Samples) -> str:
    """Return the samples of a slide as one text."""
    return "+".join(sample.text() for sample in samples)


def parse(text: str) -> Samples:
    """Return the samples of a slide from their text.

    Raises:
        ValueError: It is something else.
    """
    return tuple(map(ContentSample.parse, text.split("+")))


def sample(pieces: Pieces, tiles: int = TILES, singly: bool = False) -> ContentSample | None:
    """Return values of a slide's tiles; None where it has too few to be told from others by them.

    None also where they cannot be read, which whoever trains on them says.

    Args:
        pieces: The slide.
        tiles: How many tiles.
        singly: Whether each is read by itself, as where reading several reads all between them.
    """
    header = pieces.header
    count = min(tiles, header.tiles)
    if header.tiles * header.width < LEAST:
        return None
    rows = np.arange(count) * (header.tiles - 1) // max(1, count - 1)
    columns = np.arange(min(header.width, max(1, VALUES // count)))
    columns = columns * (header.width - 1) // max(1, len(columns) - 1)
    try:
        drawn = [pieces.drawn(part) for part in (np.split(rows, count) if singly else [rows])]
    except (MilError, OSError):
        return None
    values = torch.cat(drawn).float().numpy()[:, columns]
    return ContentSample(header.tiles, header.width, tuple(map(float, values.ravel())))


def column_extremes(features: NDArray[np.float32]) -> ContentSample | None:
    """Return the smallest and the largest values of some columns, which do not depend on the order of the tiles.

    None of a slide with too few values to be told from others by them.

    Args:
        features: Features `(n, d)` of all tiles of a slide.
    """
    if features.size < LEAST:
        return None
    tiles, width = features.shape
    columns = features[:, np.arange(min(width, VALUES // 2)) * (width - 1) // max(1, min(width, VALUES // 2) - 1)]
    return ContentSample(tiles, width, (*map(float, columns.min(0)), *map(float, columns.max(0))))


def same_slides(samples: Mapping[str, Samples]) -> list[list[str]]:
    """Return groups of slides with the same features, as far as their samples show; in the given order."""
    by_shape: dict[tuple[tuple[int, int], ...], list[str]] = {}
    for slide, each in samples.items():
        by_shape.setdefault(_shape(each), []).append(slide)
    groups: list[list[str]] = []
    for slides in by_shape.values():
        groups += _same_values(slides, samples) if len(slides) > 1 else []
    place = {slide: number for number, slide in enumerate(samples)}
    return sorted((sorted(group, key=place.__getitem__) for group in groups), key=lambda group: place[group[0]])


def shared(slides: Mapping[str, Samples], recorded: Iterable[Samples]) -> list[str]:
    """Return the slides whose features are among recorded ones, as far as samples show."""
    by_shape: dict[tuple[tuple[int, int], ...], list[Samples]] = {}
    for each in recorded:
        by_shape.setdefault(_shape(each), []).append(each)
    return [slide for slide, each in slides.items() if any(map(partial(_same, each), by_shape.get(_shape(each), ())))]


def _bfloat16(values: Sequence[float]) -> str:
    rounded = torch.tensor(values, dtype=torch.float32).bfloat16()
    return rounded.view(torch.int16).numpy().astype(">i2").tobytes().hex()


def _shape(samples: Samples) -> tuple[tuple[int, int], ...]:
    return tuple((each.tiles, each.width) for each in samples)


def _same(these: Samples, those: Samples) -> bool:
    return len(these) == len(those) and all(map(ContentSample.is_of, these, those))


def _allowed(these: NDArray[np.float64], those: NDArray[np.float64]) -> NDArray[np.float64]:
    allowed: NDArray[np.float64] = ROUNDING * np.maximum(np.abs(these), np.abs(those)) + SMALLEST
    return allowed


def _same_values(slides: Sequence[str], samples: Mapping[str, Samples]) -> list[list[str]]:
    """Return groups of slides of one shape with the same values: those are near each other in order of their sums."""
    values = {slide: np.array([value for each in samples[slide] for value in each.values]) for slide in slides}
    ordered = sorted(slides, key=lambda slide: float(values[slide].sum()))
    sums = [float(values[slide].sum()) for slide in ordered]
    reach = [2 * float(_allowed(values[slide], values[slide]).sum()) for slide in ordered]
    group_of: dict[str, list[str]] = {}
    for place, slide in enumerate(ordered):
        for later in range(place + 1, len(ordered)):
            if sums[later] - sums[place] > reach[place]:
                break
            if _same(samples[slide], samples[ordered[later]]):
                group = group_of.setdefault(slide, [slide])
                group_of.setdefault(ordered[later], group)
                if ordered[later] not in group:
                    group.append(ordered[later])
    return [group for slide, group in group_of.items() if group[0] == slide]
