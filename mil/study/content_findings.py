"""What is in the feature files: digests, values that cannot be, tiles that are where no tile can be."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mil.errors import FeatureError
from mil.features.formats import Slide
from mil.features.packed import as_bytes
from mil.features.processes import Progress, judged
from mil.features.store import FeatureStore
from mil.splits.folds import Split
from mil.study.findings import Finding, Severity, finding
from mil.study.split_findings import apart

_OFF_GRID = 0.1
_SLACK = 0.1  # producers round steps that are no whole number of pixels
_CROWDED = 0.25


@dataclass(frozen=True)
class Places:
    """What is wrong with a slide's coordinates.

    Attributes:
        negative: Tiles at negative ones.
        doubled: Tiles at those of another.
        off_grid: Share of tiles whose neighbour in the row is no whole number of steps away.
        crowded: Whether steps are less than a quarter of a tile, as where the unit is not level-0 pixels.
    """

    negative: int = 0
    doubled: int = 0
    off_grid: float = 0.0
    crowded: bool = False


@dataclass(frozen=True)
class Content:
    """What was found in a slide's file.

    Attributes:
        wrong: Why it cannot be read; the rest is then empty.
        sha256: Of the features as stored.
        tiles: How many there are.
        not_finite: Tiles with a NaN or infinite value.
        zero: Tiles that are zero throughout.
        constant: Whether all of several tiles are the same.
        places: What is wrong with their coordinates.
    """

    wrong: str = ""
    sha256: str = ""
    tiles: int = 0
    not_finite: int = 0
    zero: int = 0
    constant: bool = False
    places: Places = Places()


def contents(
    store: FeatureStore, slides: list[str], workers: int = 2, progress: Progress | None = None
) -> dict[str, Content]:
    """What is in these slides' files, read in several processes."""
    return judged(slides, partial(content, store), partial(_died, store), workers, progress)


def content(store: FeatureStore, slide: str) -> Content:
    """What is in one slide's file."""
    try:
        return examined(store.read(slide, check=False))
    except FeatureError as error:
        return Content(wrong=str(error))


def examined(slide: Slide) -> Content:
    """What a slide that was read holds."""
    values = slide.features.float().numpy()  # (n, d); numpy has no bfloat16
    extremes = np.stack([values.min(1), values.max(1)])  # (2, n); NaN where a tile has one
    finite = np.isfinite(extremes).all(0)
    return Content(
        sha256=hashlib.sha256(as_bytes(slide.features)).hexdigest(),
        tiles=len(values),
        not_finite=int((~finite).sum()),
        zero=int((extremes == 0).all(0).sum()),
        constant=len(values) > 1 and bool((values == values[0]).all()),
        places=Places() if slide.coords is None else placed(slide.coords.numpy(), slide.header.extent),
    )


def _died(store: FeatureStore, slide: str) -> Content:
    return Content(wrong=f"{store.path(slide)} cannot be read: the process that reads it dies")


def placed(coords: NDArray[np.int64], extent: float | None) -> Places:
    """What is wrong with coordinates `(n, 2)` of tiles that are `extent` pixels wide."""
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


def problems(found: Mapping[str, Content], severity: Severity = "error") -> list[Finding]:
    """What each file's own content shows; `severity` is of slides that cannot be used."""
    rows = {name: sum(getattr(one, name) for one in found.values()) for name in ("tiles", "not_finite", "zero")}
    of = f"of {rows['tiles']} tiles, in {{}} of {{}} slides, have"
    bad = f"{rows['not_finite']} {of} NaN or infinite values"
    zero = f"{rows['zero']} {of} zeros only, as of a failed extraction"
    kinds: list[_Kind] = [
        (severity, "not-finite", bad, lambda one: one.not_finite > 0),
        ("warning", "zero", zero, lambda one: one.zero > 0),
        ("warning", "constant", "{} of {} slides have one and the same tile throughout", lambda one: one.constant),
        *_PLACES,
    ]
    findings = _broken(found, severity)
    for how, code, message, wrong in kinds:
        if ids := [slide for slide, one in found.items() if wrong(one)]:
            findings.append(finding(how, code, message.format(len(ids), len(found)), ids))
    return findings


_PLACES: list[_Kind] = [
    ("warning", f"coords-{code}", f"{{}} of {{}} slides have {message}", wrong)
    for code, message, wrong in (
        ("negative", "tiles at negative coordinates", lambda one: one.places.negative > 0),
        ("doubled", "several tiles at one place", lambda one: one.places.doubled > 0),
        ("off-grid", "tiles on no common grid", lambda one: one.places.off_grid > _OFF_GRID),
        ("unit", "steps far below their tiles' extent", lambda one: one.places.crowded),
    )
]


def _broken(found: Mapping[str, Content], severity: Severity) -> list[Finding]:
    wrong = {slide: one.wrong for slide, one in found.items() if one.wrong}
    if len(wrong) < 2:
        return [Finding(severity, "unreadable", line) for line in wrong.values()]
    message = f"{len(wrong)} of {len(found)} feature files cannot be read (the first: {next(iter(wrong.values()))})"
    return [finding(severity, "unreadable", message, wrong)]


def copies(found: Mapping[str, Content], split: Split | None, owner: Mapping[str, str]) -> list[Finding]:
    """Slides of which one is the other byte for byte: an error where they stand on two sides of the split."""
    alike: dict[str, list[str]] = defaultdict(list)
    for slide, one in found.items():
        if one.sha256 and one.tiles:
            alike[one.sha256].append(slide)
    groups = [sorted(slides) for slides in alike.values() if len(slides) > 1]
    across = apart(groups, split, owner)
    within = [slides for slides in groups if slides not in across]
    return [
        *_copies("error", across, " and stand on two sides of the split"),
        *_copies("warning", within, ""),
    ]


def _copies(severity: Severity, groups: list[list[str]], where: str) -> list[Finding]:
    if not groups:
        return []
    message = f"{sum(map(len, groups))} slides have the features of another, byte for byte{where}"
    return [finding(severity, "copies", message, map(" = ".join, groups))]
