"""Slides of a table under the names of their feature files."""

import logging
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from mil.errors import FeatureError
from mil.findings import Checked, Finding
from mil.slide_names import matching_files

_log = logging.getLogger(__name__)


def named_as_files(path: Path, rows: pd.DataFrame, files: Collection[str]) -> Checked[pd.DataFrame]:
    """Return the rows with the slides under their files' names, where one of the two names has the GDC's UUID.

    Args:
        path: The table of slides, for messages.
        rows: One row a slide, with `slide`.
        files: Ids of the feature files.

    Returns:
        The rows; with an error where a slide may have several files, or a file may be of several slides.
    """
    unique, ambiguous = matching_files(rows["slide"], files)
    findings: tuple[Finding, ...] = ()
    if ambiguous:
        slide, candidates = min(ambiguous.items())
        message = (
            f"{path}: {len(ambiguous)} slides fit several feature files, or files several slides, by the name without "
            f"its UUID: '{slide}' may be {' or '.join(map(repr, candidates[:3]))}; give the whole names in the table"
        )
        findings = (Finding.of_items("error", "which-file", message, sorted(ambiguous), FeatureError),)
    if unique:
        _log.info("%s: %d slides are matched with their files by the name without its UUID", path, len(unique))
        rows = rows.assign(slide=rows["slide"].map(lambda slide: unique.get(slide, slide)))
    return Checked(rows, findings)
