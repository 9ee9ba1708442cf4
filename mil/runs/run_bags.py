"""The bags of a run's patients, read as the run read them: its tables, its names of columns, its slides."""

from collections.abc import Collection, Iterator

import pandas as pd

from mil.checkpoint import Checkpoint
from mil.explain.explain_patients import Cohort, read_bags
from mil.inference.bad_slides import OnBad
from mil.study.source import StudySource


def bags_of_run(checkpoint: Checkpoint, source: StudySource, patients: Collection[str]) -> Cohort:
    """Return the bags of some patients of a run.

    Args:
        checkpoint: A model of the run.
        source: The files of the run, and what its configuration says of them.
        patients: Whose.

    Raises:
        MilError: the features of the run cannot be read any more.
    """
    where = (source.features, source.cohort, source.slides)
    return read_bags(checkpoint, *where, patients, source.reading, on_bad_of(source), source.columns)


def on_bad_of(source: StudySource, on_bad: OnBad = "error") -> OnBad:
    """Return what slides that cannot be read are: left out where the run left them out, else as the user says."""
    return "skip" if "skip" in (source.on_missing, source.on_bad_bag) else on_bad


def patients_by_fold(reported: pd.DataFrame, patients: Collection[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the folds with those of some report patients whom they are the first to report, by their names.

    Args:
        reported: Of the run, `mil.report.evaluation.Evaluation.reported`.
        patients: Who.
    """
    for fold, rows in reported[reported.index.isin(list(patients))].groupby("fold", sort=True):
        yield int(str(fold)), sorted(map(str, rows.index))


def in_order_of_folds(reported: pd.DataFrame) -> list[str]:
    """Return report patients as `patients_by_fold` yields them."""
    return [name for _, names in patients_by_fold(reported, set(reported.index)) for name in names]
