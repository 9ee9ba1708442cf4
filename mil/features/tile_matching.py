"""The tiles that two files of one slide share, found by their positions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mil.errors import EncoderError
from mil.features.formats import Header
from mil.features.geometry import MPP_TOLERANCE

Rows = NDArray[np.int64]
SHARE, PIXELS = 0.02, 2.0
"""Positions of the same tile may differ by this share of its side, and by so many level-0 pixels at least: producers
round micrometres and magnifications in different ways."""


@dataclass(frozen=True, eq=False)
class Match:
    """The shared tiles of one slide.

    Attributes:
        rows: For each encoder the rows of its file, `(m,)`, in the order of the first; None where all rows are shared
            in their order.
        tiles: Number of shared tiles, m.
        unmatched: For each encoder the number of its tiles that another lacks.
    """

    rows: tuple[Rows | None, ...]
    tiles: int
    unmatched: tuple[int, ...]


def tolerance(extent: float | None) -> float:
    """Return by how many level-0 pixels positions of the same tile may differ along each axis."""
    return max(PIXELS, SHARE * extent) if extent is not None else PIXELS


def match_tiles(places: list[Rows], within: float) -> Match:
    """Return which tiles of several files are the same: nearest neighbours of each other within the tolerance.

    Args:
        places: Level-0 positions `(n, 2)` of the tiles of each file.
        within: Largest difference along each axis, level-0 pixels.
    """
    first, *others = places
    rows: list[Rows] = [np.arange(len(first))]
    for positions in others:
        partner = _partners(first[rows[0]], positions, within)
        shared = partner >= 0
        rows = [*(each[shared] for each in rows), partner[shared]]
    unmatched = tuple(len(positions) - len(each) for positions, each in zip(places, rows, strict=True))
    kept_in_order = tuple(None if _is_all(each, len(at)) else each for each, at in zip(rows, places, strict=True))
    return Match(kept_in_order, len(rows[0]), unmatched)


def _partners(ours: Rows, theirs: Rows, within: float) -> Rows:
    """Return the row of `theirs` that is the same tile as each of `ours`, `(n,)`; -1 where there is none."""
    if not len(ours) or not len(theirs):
        return np.full(len(ours), -1, dtype=np.int64)
    if np.array_equal(ours, theirs):
        return np.arange(len(ours))
    distance, nearest = cKDTree(theirs).query(ours, p=np.inf)
    _, back = cKDTree(ours).query(theirs, p=np.inf)
    is_mutual = (back[nearest] == np.arange(len(ours))) & (distance <= within)
    return np.where(is_mutual, nearest, -1).astype(np.int64)


def _is_all(rows: Rows, count: int) -> bool:
    return len(rows) == count and bool((rows == np.arange(count)).all())


def refuse_other_tiles(slide: str, headers: dict[str, Header]) -> None:
    """Check that the encoders of a slide were given tiles of one size and resolution.

    Args:
        slide: Its id.
        headers: Of the slide's files, by encoder.

    Raises:
        EncoderError: What differs.
    """
    (name, first), *others = headers.items()
    for theirs, header in others:
        for what, unit, largest in (
            ("mpp", "micrometres a pixel", MPP_TOLERANCE),
            ("extent", "level-0 pixels wide", SHARE),
            ("tile_px", "pixels wide", SHARE),
        ):
            ours_value, value = getattr(first, what), getattr(header, what)
            if ours_value and value and max(ours_value, value) / min(ours_value, value) - 1 > largest:
                raise EncoderError(
                    f"slide '{slide}': tiles of {name} are {ours_value:.4g} {unit}, those of {theirs} {value:.4g}; "
                    "expected features of the same tiles"
                )
