"""Slides and files that do not find each other, and what the files' headers show."""

from collections.abc import Collection, Mapping
from pathlib import Path

from mil.errors import FeatureError
from mil.features.formats import Header
from mil.study.findings import Finding, Severity, finding
from mil.tables import listed


def without_files(slides: Collection[str], files: Collection[str], severity: Severity = "error") -> list[Finding]:
    """Slides of the cohort that have no feature file."""
    absent = sorted(set(slides) - set(files))
    if not absent:
        return []
    if len(absent) == len(set(slides)):
        told = f"the table names {listed(absent[:2])}, the files {listed(sorted(files)[:2]) or 'nothing'}"
        return [Finding("error", "no-file", f"none of {len(absent)} slides has a feature file: {told}", len(absent))]
    return [finding(severity, "no-file", f"{len(absent)} of {len(set(slides))} slides have no feature file", absent)]


def without_slides(files: Collection[str], slides: Collection[str], folder: Path) -> list[Finding]:
    """Feature files that no row of the cohort names."""
    strange = sorted(set(files) - set(slides))
    if not strange or len(strange) == len(set(files)):  # of none in common the slides are told already
        return []
    message = f"{len(strange)} of {len(set(files))} feature files under {folder} are of slides that the cohort lacks"
    return [finding("warning", "no-slide", message, strange)]


def unreadable(headers: Mapping[str, Header | FeatureError], severity: Severity = "error") -> list[Finding]:
    """Files that are broken, foreign, of another type than floats, or whose coordinates do not fit their features."""
    wrong = {slide: str(said) for slide, said in headers.items() if isinstance(said, FeatureError)}
    if not wrong:
        return []
    first = next(iter(wrong.values()))
    if len(wrong) == 1:
        return [Finding(severity, "unreadable", first)]
    message = f"{len(wrong)} of {len(headers)} feature files cannot be used (the first: {first})"
    return [finding(severity, "unreadable", message, wrong)]


def empty(headers: Mapping[str, Header], severity: Severity = "error") -> list[Finding]:
    """Slides without a tile."""
    bare = [slide for slide, said in headers.items() if said.tiles == 0]
    message = f"{len(bare)} of {len(headers)} slides have zero tiles, expected at least one"
    return [finding(severity, "empty", message, bare)] if bare else []


def without_positions(headers: Mapping[str, Header], needed_by: str | None = None) -> list[Finding]:
    """Slides whose tiles have no positions: an error under a model that needs them, else a warning if only some do."""
    bare = [slide for slide, said in headers.items() if said.tiles and not said.has_coords]
    if not bare or (needed_by is None and len(bare) == len(headers)):
        return []
    if needed_by is None:
        return [finding("warning", "no-coords", f"{len(bare)} of {len(headers)} slides have no coordinates", bare)]
    message = f"{len(bare)} of {len(headers)} slides have no coordinates, which {needed_by} needs"
    return [finding("error", "no-coords", message, bare)]
