"""The flow of patients from the clinical table to the study: who was left out, and why."""

from collections.abc import Iterator

import pandas as pd

from mil.stats.estimate import Model

NO_LABEL = "no value of what is predicted"
NO_FILE = "no feature file"
UNUSABLE = "feature files unreadable, empty or otherwise unusable"


class FlowStep(Model):
    """Patients and slides that reached a step, and those that were left out on the way to it."""

    name: str
    patients: int
    slides: int
    reason: str | None = None
    """why some were left out since the step before; None for the first step"""
    patients_left_out: int = 0
    slides_left_out: int = 0


def flow_of(table: pd.DataFrame, labelled: pd.DataFrame, with_files: set[str], usable: set[str]) -> Iterator[FlowStep]:
    """Yield the steps of a cohort.

    Args:
        table: The clinical table as it stands, one row a slide: `patient`, `slide`.
        labelled: Its rows of patients with a label.
        with_files: Slides that have a feature file.
        usable: Slides whose features can be trained on.
    """
    filed = labelled[labelled["slide"].isin(with_files)]
    steps = (
        ("in the clinical table", table, None),
        ("with a label", labelled, NO_LABEL),
        ("with feature files", filed, NO_FILE),
        ("with usable features", filed[filed["slide"].isin(usable)], UNUSABLE),
    )
    before = table
    for name, rows, reason in steps:
        yield FlowStep(
            name=name,
            patients=rows["patient"].nunique(),
            slides=_slides(rows),
            reason=reason,
            patients_left_out=before["patient"].nunique() - rows["patient"].nunique(),
            slides_left_out=_slides(before) - _slides(rows),
        )
        before = rows


def _slides(rows: pd.DataFrame) -> int:
    return int(rows.loc[rows["slide"] != "", "slide"].nunique())
