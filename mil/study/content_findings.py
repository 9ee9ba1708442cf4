"""What is in the feature files: digests, unusable values, and coordinates that cannot be right."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mil.errors import FeatureError, SplitError
from mil.features.content_samples import ContentSample, column_extremes, same_slides
from mil.features.formats import Header, Slide
from mil.features.processes import Progress, map_in_processes
from mil.features.store import FeatureStore
from mil.findings import Finding, Severity
from mil.splits.folds import Split
from mil.study.split_findings import apart

_OFF_GRID = 0.1
_SLACK = 0.1  # producers round steps that are no whole number of pixels
_CROWDED = 0.25


@dataclass(frozen=True)
class Places:
    """What is wrong with a slide's coordinates.

    Attributes:
        negative: Tiles at negative coordinates.
        doubled: Tiles at the coordinates of another tile.
        off_grid: Share of tiles whose neighbour in the row is not a whole number of steps away.
        crowded: Whether steps are less than a quarter of a tile, as where the unit is not level-0 pixels.
        outside: Tiles beyond the edges of the slide, whose size the file states.
    """

    negative: int = 0
    doubled: int = 0
    off_grid: float = 0.0
    crowded: bool = False
    outside: int = 0


@dataclass(frozen=True)
class Content:
    """What is in a slide's file.

    Attributes:
        wrong: Why it cannot be read; the other attributes are then empty.
        extremes: Smallest and largest values of some columns, which show a copy in any order of tiles and any type.
        tiles: Number of tiles.
        not_finite: Tiles with a NaN or infinite value.
        zero: Tiles that are zero throughout.
        constant: Whether several tiles are all the same.
        places: What is wrong with the coordinates.
    """

    wrong: str = ""
    extremes: ContentSample | None = None
    tiles: int = 0
    not_finite: int = 0
    zero: int = 0
    constant: bool = False
    places: Places = Places()

    @property
    def usable(self) -> bool:
        """Whether training can use the slide."""
        return not self.wrong and not self.not_finite


def contents(
    store: FeatureStore, slides: list[str], workers: int = 2, progress: Progress | None = None
) -> dict[str, Content]:
    """Return what is in the files of these slides, read in several processes."""
    return map_in_processes(slides, partial(content, store), partial(_died, store), workers, progress)


def content(store: FeatureStore, slide: str) -> Content:
    """Return what is in the file of one slide."""
    try:
        return examined(store.read(slide, check=False))
    except FeatureError as error:
        return Content(wrong=str(error))


def examined(slide: Slide) -> Content:
    """Return what a slide that was read holds."""
    values = slide.features.float().numpy()  # (n, d); numpy has no bfloat16
    extremes = np.stack([values.min(1), values.max(1)])  # (2, n); NaN where a tile has one
    finite = np.isfinite(extremes).all(0)
    return Content(
        extremes=column_extremes(values),
        tiles=len(values),
        not_finite=int((~finite).sum()),
        zero=int((extremes == 0).all(0).sum()),
        constant=len(values) > 1 and bool((values == values[0]).all()),
        places=Places() if slide.coords is None else _placed(slide.coords.numpy(), slide.header),
    )


def _placed(coords: NDArray[np.int64], header: Header) -> Places:
    outside = 0 if header.slide_size is None else int((coords >= np.array(header.slide_size)).any(1).sum())
    return replace(placed(coords, header.extent), outside=outside)


def _died(store: FeatureStore, slide: str, reason: str) -> Content:
    return Content(wrong=f"{store.path(slide)} cannot be read: {reason}")


def placed(coords: NDArray[np.int64], extent: float | None) -> Places:
    """Return what is wrong with coordinates `(n, 2)` of tiles that are `extent` pixels wide."""
    order = np.lexsort((coords[:, 0], coords[:, 1]))
    steps = np.diff(coords[order], axis=0)  # (n - 1, 2), along the rows
    row = steps[steps[:, 1] == 0, 0]
    ahead = row[row > 0]
    negative, doubled = int((coords < 0).any(1).sum()), int((row == 0).sum())
    if not len(ahead):
        return Places(negative, doubled)
    step = np.percentile(ahead, 5, method="lower")  # two grids, of two pieces of tissue, may come close
    off = np.abs(ahead / step - np.round(ahead / step)) > _SLACK
    crowded = extent is not None and bool(np.median(ahead) < _CROWDED * extent)
    return Places(negative, doubled, float(off.mean()), crowded)


_Kind = tuple[Severity, str, str, Callable[[Content], bool]]
"""Severity, code, message with places for the number of slides and of all, and whether a slide has the problem."""

_COORDINATES: list[_Kind] = [
    ("warning", f"coords-{code}", f"{{}} of {{}} slides have {message}", has_problem)
    for code, message, has_problem in (
        ("negative", "tiles at negative coordinates", lambda content: content.places.negative > 0),
        ("doubled", "several tiles at one place", lambda content: content.places.doubled > 0),
        ("off-grid", "tiles on no common grid", lambda content: content.places.off_grid > _OFF_GRID),
        ("outside", "tiles beyond the edges of the slide", lambda content: content.places.outside > 0),
        ("unit", "steps far below their tiles' extent", lambda content: content.places.crowded),
    )
]


def problems(contents: Mapping[str, Content], severity: Severity = "error") -> list[Finding]:
    """Return what is wrong within the files, each problem once; `severity` is that of slides that cannot be used."""
    tiles = sum(content.tiles for content in contents.values())
    where = f"of {tiles} tiles, in {{}} of {{}} slides, have"
    not_finite = f"{sum(content.not_finite for content in contents.values())} {where} NaN or infinite values"
    zero = f"{sum(content.zero for content in contents.values())} {where} zeros only, as of a failed extraction"
    kinds: list[_Kind] = [
        (severity, "not-finite", not_finite, lambda content: content.not_finite > 0),
        ("warning", "zero", zero, lambda content: content.zero > 0),
        (
            "warning",
            "constant",
            "{} of {} slides have one and the same tile throughout",
            lambda content: content.constant,
        ),
        *_COORDINATES,
    ]
    findings = _unreadable(contents, severity)
    for severity_of_kind, code, message, has_problem in kinds:
        if slides := [slide for slide, content in contents.items() if has_problem(content)]:
            text = message.format(len(slides), len(contents))
            findings.append(Finding.of_items(severity_of_kind, code, text, slides, FeatureError))
    return findings


def _unreadable(contents: Mapping[str, Content], severity: Severity) -> list[Finding]:
    errors = {slide: content.wrong for slide, content in contents.items() if content.wrong}
    if len(errors) < 2:
        return [Finding(severity, "unreadable", line, raises=FeatureError) for line in errors.values()]
    message = (
        f"{len(errors)} of {len(contents)} feature files cannot be read (the first: {next(iter(errors.values()))})"
    )
    return [Finding.of_items(severity, "unreadable", message, errors, FeatureError)]


def copies(contents: Mapping[str, Content], split: Split | None, owner: Mapping[str, str]) -> list[Finding]:
    """Return slides with the same features, in any order or type: an error where they stand on two sides of the split.

    Args:
        contents: What is in the files.
        split: Who is where; None where it could not be made.
        owner: Each slide's patient.
    """
    extremes = {slide: content.extremes for slide, content in contents.items()}
    groups = list(map(sorted, same_slides({slide: (each,) for slide, each in extremes.items() if each is not None})))
    across = apart(groups, split, owner)
    within = [slides for slides in groups if slides not in across]
    return [
        *_copies("error", across, ", and stand on two sides of the split"),
        *_copies("warning", within, ""),
    ]


def _copies(severity: Severity, groups: list[list[str]], where: str) -> list[Finding]:
    if not groups:
        return []
    message = f"{sum(map(len, groups))} slides have the features of another{where}"
    return [Finding.of_items(severity, "copies", message, map(" = ".join, groups), SplitError)]
