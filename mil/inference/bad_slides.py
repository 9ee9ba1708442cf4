"""Slides that cannot be predicted: an error, or left out, counted and named, as the user chooses (`--on-bad`)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import pandas as pd

from mil.cohort.clinical_table import Cohort, without_files
from mil.errors import EncoderError, FeatureError
from mil.features.store import FeatureStore
from mil.findings import Finding, log_warnings, raise_first_error
from mil.tables import listed

OnBad = Literal["error", "skip"]
"""What slides that are missing, unreadable, empty or not finite are: an error, or left out."""
Unusable = Callable[[FeatureStore, Sequence[str]], dict[str, str]]
"""Returns, of slides that cannot be used, why."""
SKIPPED = "skipped"
"""Column of a table of predictions that names the slides of a row that were left out, and why."""
_HINT = "--on-bad skip (on_bad='skip') leaves such slides out and says which"


@contextmanager
def naming_the_option(on_bad: OnBad) -> Iterator[None]:
    """Add to an error about a slide that the option `--on-bad skip` leaves it out.

    Raises:
        FeatureError: That was raised within.
    """
    try:
        yield
    except EncoderError:
        raise
    except FeatureError as error:
        if on_bad == "skip":
            raise
        raise FeatureError(f"{error}; {_HINT}") from error


def without_bad_slides(
    cohort: Cohort,
    store: FeatureStore,
    on_bad: OnBad = "error",
    unusable: Unusable = FeatureStore.unusable,
    may_be_empty: bool = False,
) -> tuple[Cohort, dict[str, str]]:
    """Return the cohort of the slides that can be read, and why each of the others cannot; a warning counts them.

    Where slides are to be left out all features are read once more, as headers do not show what is not finite.

    Args:
        cohort: Slides and their patients.
        store: The feature files.
        on_bad: `error` only checks that every slide has a file; what else is wrong is an error where it is read.
        unusable: Returns why slides of the store cannot be used.
        may_be_empty: Whether no slide may be left, as in a small part of a cohort.

    Raises:
        FeatureError: A slide has no file, and `on_bad` is `error`; or no slide is left.
    """
    with naming_the_option(on_bad):
        if on_bad == "error":
            for slide in filter(store.lacking, cohort.table["slide"]):
                store.path(slide)  # raises with the encoder that lacks it
        files = without_files(cohort.table, store.slides, on_bad)
        raise_first_error([] if may_be_empty and on_bad == "skip" else files)
    if on_bad == "error":
        return cohort, {}
    slides = sorted(set(cohort.table["slide"]))
    reasons = {
        slide: f"no features of {listed(lacking)}" if (lacking := store.lacking(slide)) else "no feature file"
        for slide in slides
        if slide not in store
    }
    reasons |= unusable(store, [slide for slide in slides if slide in store])
    if not reasons:
        return cohort, {}
    if len(reasons) == len(slides) and not may_be_empty:
        first = next(iter(reasons))
        raise FeatureError(f"none of {len(slides)} slides can be used; the first, '{first}': {reasons[first]}")
    remaining = cohort.only(set(slides) - set(reasons))
    lost = len(cohort.patients) - len(remaining.patients)
    message = f"{len(reasons)} of {len(slides)} slides cannot be used and are left out, and with them {lost} patients"
    log_warnings([Finding.of_items("warning", "skipped", message, sorted(reasons))])
    return remaining, dict(sorted(reasons.items()))


def without_scores(cohort: Cohort, name: str, reasons: Mapping[str, str]) -> pd.DataFrame:
    """Return the rows of a cohort of which no slide can be used, as `with_skipped` has them in a larger table.

    Args:
        cohort: The patients.
        name: Of the column of their ids.
        reasons: Why each slide was left out.
    """
    nobody = pd.DataFrame({name: pd.Series(dtype=str), "tiles": pd.Series(dtype="int64")})
    return with_skipped(nobody, cohort, reasons)


def with_skipped(predictions: pd.DataFrame, cohort: Cohort, reasons: Mapping[str, str]) -> pd.DataFrame:
    """Return predictions with a row for every patient of a cohort, and the column `skipped`.

    A patient of whom a slide was left out is predicted by the others; one of whom none is left has no score and no
    call. Without reasons the table is returned as it is.

    Args:
        predictions: One row for each patient (or slide) that has a slide left; the first column is its id.
        cohort: All patients, before slides were left out.
        reasons: Why each slide was left out.
    """
    if not reasons:
        return predictions
    name, patients = predictions.columns[0], cohort.patients
    rows = predictions.set_index(name).reindex(patients.index).rename_axis(name).reset_index()
    rows["tiles"] = rows["tiles"].fillna(0).astype("int64")
    for column in rows.select_dtypes(exclude="number").columns:
        rows[column] = rows[column].where(rows[column].notna(), "")
    rows[SKIPPED] = [
        "; ".join(f"{slide}: {reasons[slide]}" for slide in slides if slide in reasons) for slides in patients["slides"]
    ]
    return rows
