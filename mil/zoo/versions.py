"""Versions of released tools and their changelog.

`MAJOR.MINOR.PATCH`, after semver.org:

- major: the scores mean something else. Another endpoint, encoder or covariates; another question, ground truth,
  decision rule or calibration method.
- minor: the same question answered by other weights. Retrained, other data, another model, anything fitted anew.
- patch: the same weights. Only the card, its report or its figures changed.

Below 1.0.0 nothing is promised yet: a minor version is enough for a change that would need a major one.
"""

import re
from collections.abc import Iterator
from enum import IntEnum
from itertools import pairwise

from mil.checkpoint import WEIGHTS
from mil.errors import ConfigError
from mil.manifest import Manifest

CHANGELOG = "CHANGELOG.md"
HEAD = "# Changes\n\n"
Version = tuple[int, int, int]
_SEMANTIC = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_ENTRY = re.compile(r"- (?P<version>\d+\.\d+\.\d+)(?: \(\d{4}-\d{2}-\d{2}\))?: \S.*")
_MEANING = ("question", "ground_truth", "decision", "calibration")


class Change(IntEnum):
    """The first part of the version number that differs between two versions."""

    PATCH = 0
    MINOR = 1
    MAJOR = 2


def parse(version: str) -> Version:
    """Return `1.2.3` as three numbers.

    Raises:
        ConfigError: if the version does not have this form.
    """
    match = _SEMANTIC.fullmatch(version)
    if not match:
        raise ConfigError(f"version {version!r}, expected X.Y.Z")
    major, minor, patch = map(int, match.groups())
    return major, minor, patch


def next_patch(version: str) -> str:
    """Return the version that follows where only card, report or figures changed.

    Raises:
        ConfigError: if the version does not have the form X.Y.Z.
    """
    major, minor, patch = parse(version)
    return f"{major}.{minor}.{patch + 1}"


def change(old: Manifest, new: Manifest) -> tuple[Change, str]:
    """Return the smallest change of version that the new manifest needs, and the first thing that differs."""
    for kind, differences in ((Change.MAJOR, _changes_of_meaning), (Change.MINOR, _changes_of_fit)):
        if difference := next(differences(old, new), None):
            return kind, difference
    return Change.PATCH, "card"


def _changes_of_meaning(old: Manifest, new: Manifest) -> Iterator[str]:
    if old.endpoint != new.endpoint:
        yield "endpoint"
    if any(getattr(old.encoder, key) != getattr(new.encoder, key) for key in ("name", "dim", "tile_px", "mpp")):
        yield "encoder"
    if _covariate_columns(old) != _covariate_columns(new):
        yield "covariates"
    yield from (f"tool.{key}" for key in _MEANING if getattr(old.tool, key) != getattr(new.tool, key))


def _covariate_columns(manifest: Manifest) -> tuple[list[str], dict[str, list[str]]] | None:
    covariates = manifest.covariates
    return None if covariates is None else (covariates.numeric, covariates.categorical)


def _changes_of_fit(old: Manifest, new: Manifest) -> Iterator[str]:
    if old.files.get(WEIGHTS) != new.files.get(WEIGHTS):
        yield "weights"
    names = ("model", "covariates", "fitted", "data", "training")
    yield from (name for name in names if getattr(old, name) != getattr(new, name))


def changelog_problems(text: str, version: str) -> Iterator[str]:
    """Yield what is wrong with the changelog of a release: its form, and versions that do not fall down to the first.

    Args:
        text: `CHANGELOG.md`.
        version: Version of the release, which stands first.
    """
    lines = text.removeprefix(HEAD).splitlines()
    if not text.startswith(HEAD) or not lines:
        yield "expected a heading and a line for each version"
        return
    entries = [_ENTRY.fullmatch(line) for line in lines]
    if None in entries:
        yield f"line {entries.index(None) + 1 + HEAD.count(chr(10))} is not '- X.Y.Z (date): what changed'"
        return
    versions = [entry["version"] for entry in entries if entry is not None]
    if versions[0] != version:
        yield f"begins with {versions[0]}, the manifest is of {version}"
    for newer, older in pairwise(versions):
        if parse(newer) <= parse(older):
            yield f"{newer} stands above {older}"


def check_version(old: Manifest, new: Manifest, version: str, place: str) -> None:
    """Check that a new version number is high enough for what changed since the released one.

    Raises:
        ConfigError: if it is not above the old version, or too small a step.
    """
    old_version = old.tool.version
    before, after = parse(old_version), parse(version)
    if after <= before:
        raise ConfigError(f"{place}: version {version} after {old_version}, expected a higher one")
    kind, difference = change(old, new)
    if kind is Change.MAJOR and before[0] == after[0] == 0:
        kind = Change.MINOR
    if _step(before, after) < kind:
        least = {Change.MAJOR: (before[0] + 1, 0, 0), Change.MINOR: (before[0], before[1] + 1, 0)}[kind]
        raise ConfigError(
            f"{place}: version {version} after {old_version}, but {difference} differs: a {kind.name.lower()} change, "
            f"expected {'.'.join(map(str, least))} or above"
        )


def _step(before: Version, after: Version) -> Change:
    return Change.MAJOR if after[0] > before[0] else Change.MINOR if after[1] > before[1] else Change.PATCH


def changelog(before: str, version: str, note: str, date: str | None = None) -> str:
    """Return the changelog with a line for this version on top.

    Args:
        before: The changelog so far; empty for a first release.
        version: The version to be released.
        note: What changed, in one line.
        date: Date of the release, YYYY-MM-DD; left out if None.

    Raises:
        ConfigError: if the note is empty or has several lines, or the date has another form.
    """
    if "\n" in note.strip() or not note.strip():
        raise ConfigError(f"note {note!r}, expected one line")
    if date is not None and not _DATE.fullmatch(date):
        raise ConfigError(f"date {date!r}, expected YYYY-MM-DD")
    title = f"{version} ({date})" if date else version
    return f"{HEAD}- {title}: {note.strip()}\n{before.removeprefix(HEAD)}"
