"""Feature files of unknown slides, and what is wrong with files by their headers."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from mil.errors import ConfigError, FeatureError
from mil.features.formats import Header
from mil.features.store import FeatureStore
from mil.findings import Finding, Severity, severity_where


def without_slides(files: Collection[str], slides: Collection[str], folder: Path) -> list[Finding]:
    """Return a warning of feature files that no row of the cohort names."""
    unnamed = sorted(set(files) - set(slides))
    if not unnamed or len(unnamed) == len(set(files)):  # `without_files` reports it where none fits
        return []
    message = f"{len(unnamed)} of {len(set(files))} feature files under {folder} are of slides that the cohort lacks"
    return [Finding.of_items("warning", "no-slide", message, unnamed)]


def without_encoder(
    store: FeatureStore, slides: Collection[str], on_missing: Literal["error", "skip"]
) -> list[Finding]:
    """Return what is wrong with slides that some of several encoders have no file of, one finding for each encoder."""
    by_encoder: dict[str, list[str]] = {}
    for slide in sorted(set(slides)):
        for encoder in store.lacking(slide):
            by_encoder.setdefault(encoder, []).append(slide)
    hint = "; data.on_missing=skip leaves them out" if on_missing == "error" else ""
    return [
        Finding.of_items(
            severity_where(on_missing),
            "no-file-of-encoder",
            f"{len(lacking)} of {len(set(slides))} slides have features, but none of {encoder}{hint}",
            lacking,
            FeatureError,
        )
        for encoder, lacking in by_encoder.items()
    ]


def unreadable(headers: Mapping[str, Header | FeatureError], severity: Severity = "error") -> list[Finding]:
    """Return files that are broken, foreign, not of floats, or whose coordinates do not fit their features."""
    errors = {slide: header for slide, header in headers.items() if isinstance(header, FeatureError)}
    if not errors:
        return []
    first = next(iter(errors.values()))
    if len(errors) == 1:
        return [Finding(severity, "unreadable", str(first), raises=type(first))]
    message = f"{len(errors)} of {len(headers)} feature files cannot be used (the first: {first})"
    return [Finding.of_items(severity, "unreadable", message, errors, FeatureError)]


def empty(headers: Mapping[str, Header], severity: Severity = "error") -> list[Finding]:
    """Return slides without a tile."""
    empty_slides = [slide for slide, header in headers.items() if header.tiles == 0]
    hint = " (data.on_bad_bag=skip leaves them out)" if severity == "error" else ""
    message = f"{len(empty_slides)} of {len(headers)} slides have zero tiles, expected at least one{hint}"
    return [Finding.of_items(severity, "empty", message, empty_slides, FeatureError)] if empty_slides else []


def below_minimum(tiles: Mapping[str, int], minimum: int | None) -> list[Finding]:
    """Return bags with fewer tiles than the tool needs to give a result; `tiles` is their number by bag."""
    small = [bag for bag, count in tiles.items() if minimum is not None and count < minimum]
    if not small:
        return []
    counts = sorted(tiles.values())
    consequence = "every prediction would be withheld" if len(small) == len(tiles) else "their results are withheld"
    message = (
        f"{len(small)} of {len(tiles)} bags have fewer tiles than the {minimum} of tool.novelty.min_tiles (bags have "
        f"{counts[0]} to {counts[-1]}): {consequence}, though evaluation counts them; tool.novelty.min_tiles=... "
        "changes the minimum"
    )
    return [Finding.of_items("warning", "few-tiles", message, small)]


def without_positions(headers: Mapping[str, Header], needed_by: str | None = None) -> list[Finding]:
    """Return slides whose tiles have no positions: an error if the model needs them, else a warning if only some do."""
    bare = [slide for slide, header in headers.items() if header.tiles and not header.has_coords]
    if not bare or (needed_by is None and len(bare) == len(headers)):
        return []
    if needed_by is None:
        return [
            Finding.of_items("warning", "no-coords", f"{len(bare)} of {len(headers)} slides have no coordinates", bare)
        ]
    message = f"{len(bare)} of {len(headers)} slides have no coordinates, which {needed_by} needs"
    return [Finding.of_items("error", "no-coords", message, bare, ConfigError)]
