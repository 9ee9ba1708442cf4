"""Versions of released tools and their changelog.

`MAJOR.MINOR.PATCH`, after semver.org:

- major: a reader of the scores has to think anew. Another endpoint, encoder or covariates, another question, ground
  truth or decision rule.
- minor: the same question answered by other weights. Retrained, other data, another model, anything fitted anew.
- patch: the same weights. The card, its report or its figures alone.

Below 1.0.0 nothing is promised yet, and a minor bump does for what later needs a major one.
"""

import re
from collections.abc import Iterator
from enum import IntEnum

from mil.checkpoint import WEIGHTS
from mil.errors import ConfigError
from mil.manifest import Manifest

CHANGELOG = "CHANGELOG.md"
Version = tuple[int, int, int]
_SEMANTIC = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_MEANING = ("question", "ground_truth", "decision", "calibration")
HEAD = "# Changes\n\n"


class Change(IntEnum):
    """Of two versions, the part of the number that differs."""

    PATCH = 0
    MINOR = 1
    MAJOR = 2


def parse(version: str) -> Version:
    """`1.2.3` as numbers.

    Raises:
        ConfigError: it is no such thing.
    """
    found = _SEMANTIC.fullmatch(version)
    if not found:
        raise ConfigError(f"version {version!r}, expected X.Y.Z")
    major, minor, patch = map(int, found.groups())
    return major, minor, patch


def change(old: Manifest, new: Manifest) -> tuple[Change, str]:
    """The least change of version that the new one needs, and what of it differs."""
    for kind, differences in ((Change.MAJOR, _meanings), (Change.MINOR, _fits)):
        if what := next(differences(old, new), None):
            return kind, what
    return Change.PATCH, "card"


def _meanings(old: Manifest, new: Manifest) -> Iterator[str]:
    if old.endpoint != new.endpoint:
        yield "endpoint"
    if any(old.encoder.get(key) != new.encoder.get(key) for key in ("name", "dim", "tile_px", "mpp")):
        yield "encoder"
    if _read(old) != _read(new):
        yield "covariates"
    yield from (f"tool.{key}" for key in _MEANING if old.tool.get(key) != new.tool.get(key))


def _read(manifest: Manifest) -> tuple[list[str], dict[str, list[str]]] | None:
    said = manifest.covariates
    return None if said is None else (said.numeric, said.categorical)


def _fits(old: Manifest, new: Manifest) -> Iterator[str]:
    if old.files.get(WEIGHTS) != new.files.get(WEIGHTS):
        yield "weights"
    names = ("model", "covariates", "fitted", "data", "training")
    yield from (name for name in names if getattr(old, name) != getattr(new, name))


def refuse_too_small(old: Manifest, new: Manifest, version: str, place: str) -> None:
    """Holds a new version to what changed since the one before.

    Raises:
        ConfigError: not above the old version, or too small a bump.
    """
    before, after = parse(str(old.tool["version"])), parse(version)
    told = str(old.tool["version"])
    if after <= before:
        raise ConfigError(f"{place}: version {version} after {told}, expected a higher one")
    kind, what = change(old, new)
    if kind is Change.MAJOR and before[0] == after[0] == 0:
        kind = Change.MINOR
    if _bump(before, after) < kind:
        least = {Change.MAJOR: (before[0] + 1, 0, 0), Change.MINOR: (before[0], before[1] + 1, 0)}[kind]
        raise ConfigError(
            f"{place}: version {version} after {told}, but {what} differs: a {kind.name.lower()} change, "
            f"expected {'.'.join(map(str, least))} or above"
        )


def _bump(before: Version, after: Version) -> Change:
    return Change.MAJOR if after[0] > before[0] else Change.MINOR if after[1] > before[1] else Change.PATCH


def changelog(before: str, version: str, note: str, date: str | None = None) -> str:
    """The changelog with this version on top, a line a version.

    Args:
        before: As it was; empty for a first release.
        version: Released now.
        note: What changed, in one line.
        date: Of the release, where one is to be given.

    Raises:
        ConfigError: a note of several lines, or a date that is none.
    """
    if "\n" in note.strip() or not note.strip():
        raise ConfigError(f"note {note!r}, expected one line")
    if date is not None and not _DATE.fullmatch(date):
        raise ConfigError(f"date {date!r}, expected YYYY-MM-DD")
    named = f"{version} ({date})" if date else version
    return f"{HEAD}- {named}: {note.strip()}\n{before.removeprefix(HEAD)}"
