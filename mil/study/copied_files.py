"""Feature files that are copies of each other under two names: cheap enough for every training."""

from collections import defaultdict
from collections.abc import Mapping

from mil.errors import SplitError
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
    """Return slides whose files have the same size and the same samples; `mil check --deep` compares every value.

    Args:
        store: The feature files.
        split: Who is where; None where it could not be made.
        owner: Each slide's patient.
    """
    groups: dict[tuple[int, str], list[str]] = defaultdict(list)
    for slide, each in store.fingerprints(sorted(owner)).items():
        if store.header(slide).tiles:
            groups[each.size, each.sha256].append(slide)
    copies = [slides for slides in groups.values() if len(slides) > 1]
    across = apart(copies, split, owner)
    within = [slides for slides in copies if slides not in across]
    return [*_finding("error", across, ", and stand on two sides of the split"), *_finding("warning", within, "")]


def _finding(severity: Severity, groups: list[list[str]], where: str) -> list[Finding]:
    if not groups:
        return []
    message = f"{sum(map(len, groups))} slides have the features of another, byte for byte{where}"
    return [Finding.of_items(severity, "copies", message, map(" = ".join, groups), SplitError)]
