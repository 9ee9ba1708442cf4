"""Feature files that are copies of each other under two names: cheap enough for every training."""

from collections import Counter
from collections.abc import Mapping

from mil.errors import SplitError
from mil.features.content_samples import MANY_TILES, same_slides
from mil.features.formats import Header
from mil.features.store import FeatureStore
from mil.findings import Finding, Severity
from mil.splits.folds import Split
from mil.study.split_findings import apart
from mil.study.study import Study


def copied_files(study: Study, split: Split) -> list[Finding]:
    """Return slides of a study whose files are copies of each other; an error where they are on two sides of a fold."""
    table = study.cohort.table
    owner = dict(zip(table["slide"], table["patient"], strict=True))
    return copies_of(study.store, split, owner)


def copies_of(store: FeatureStore, split: Split | None, owner: Mapping[str, str]) -> list[Finding]:
    """Return slides whose features are the same, whatever files hold them: a packed or converted copy is the same.

    Values of a few tiles are compared, and of many tiles where these agree; `mil check --deep` compares all.

    Args:
        store: The feature files.
        split: Who is where; None where it could not be made.
        owner: Each slide's patient.
    """
    suspects = same_slides(store.samples(_of_same_shape(store.valid_headers(sorted(owner)))))
    copies = same_slides(store.samples([slide for group in suspects for slide in group], MANY_TILES))
    across = apart(copies, split, owner)
    within = [slides for slides in copies if slides not in across]
    return [*_finding("error", across, ", and stand on two sides of the split"), *_finding("warning", within, "")]


def _of_same_shape(headers: Mapping[str, Header]) -> list[str]:
    """Return the slides that have as many tiles, of the same width, as another."""
    counts = Counter((header.tiles, header.width) for header in headers.values())
    return [slide for slide, header in headers.items() if header.tiles and counts[header.tiles, header.width] > 1]


def _finding(severity: Severity, groups: list[list[str]], where: str) -> list[Finding]:
    if not groups:
        return []
    message = f"{sum(map(len, groups))} slides have the features of another{where}"
    return [Finding.of_items(severity, "copies", message, map(" = ".join, groups), SplitError)]
