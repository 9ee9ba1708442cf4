"""The clinical table: patients, their slides, labels and covariates."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.cohort.columns import Columns, Declared, Words
from mil.cohort.slide_rows import known_values, read_rows
from mil.errors import CohortError, ConfigError, FeatureError
from mil.findings import Checked, Finding, severity_where
from mil.tables import listed

LabelsSuffice = Callable[[pd.DataFrame], NDArray[np.bool_]]
"""Says, of rows in which a missing label is None, which have labels enough, `(rows,)`."""


@dataclass(frozen=True, eq=False)
class Cohort:
    """A checked table of slides, with one label for each patient.

    Attributes:
        table: One row a slide, all text: `patient`, `slide`, `site` where known, then the table's other columns.
        labels: Columns that every patient has exactly one value of, or, where some may be missing, at most one.
        covariates: Further columns of the table.
    """

    table: pd.DataFrame
    labels: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()

    @classmethod
    def read(
        cls,
        path: Path,
        columns: Columns | None = None,
        labels: Sequence[str] = (),
        covariates: Sequence[str] = (),
        slides: Path | None = None,
        words: Words | None = None,
        labelled: LabelsSuffice | None = None,
        declared: Declared | None = None,
    ) -> Checked["Cohort"]:
        """Read and check a table with one row a slide, or one with a row a patient and another with a row a slide.

        A slide is a bare id or a file's name, with or without folders and endings. A label given for one slide of a
        patient holds for all; patients without one (see `MISSING`) are left out with a warning. A covariate's value is
        the patient's first.

        Args:
            path: The table; with `slides`, the clinical one.
            columns: What the tables call their ids; None looks for common names.
            labels: Columns that every patient needs exactly one value of.
            covariates: Further columns to carry along.
            slides: A table of slides, joined on the patient; patients and slides without a counterpart are left out
                with a warning. A column of both tables is taken from the clinical one.
            words: What the words of labels and covariates mean, `{column: {word: class}}`; others stay as they are.
            labelled: Returns which rows have enough labels, where a missing label is None; by default those with all.
            declared: Words that are never missing values, such as a class called `none`.

        Returns:
            The cohort; None where the findings hold an error: no such table or column, an id that is empty or twice,
            labels that differ within a patient, no patient left, or `words` of a column that is no label or covariate.
        """
        path = Path(path)
        rows = read_rows(path, columns, labels, covariates, None if slides is None else Path(slides), words, declared)
        if rows.errors:
            return Checked(None, rows.findings)
        return rows.then(lambda table: cls.from_rows(path, table, labels, covariates, labelled, declared))

    @classmethod
    def from_rows(
        cls,
        path: Path,
        rows: pd.DataFrame,
        labels: Sequence[str],
        covariates: Sequence[str] = (),
        labelled: LabelsSuffice | None = None,
        declared: Declared | None = None,
    ) -> Checked["Cohort"]:
        """Return the cohort of rows that `read_rows` found no error in; patients without labels are left out.

        Args:
            path: Where the rows were read from, for messages.
            rows: One row a slide.
            labels: As in `read`.
            covariates: As in `read`.
            labelled: As in `read`.
            declared: As in `read`.
        """
        table = rows.copy()
        for label in labels:
            table[label] = _label_of_patient(rows, label, (declared or {}).get(label, ()))
        bare = table[list(labels)].isna()
        missing = bare.any(axis=1) if labelled is None else pd.Series(~labelled(table), table.index)
        lost = sorted(set(table.loc[missing, "patient"]))
        if missing.all():
            message = f"{path}: no patient has a value in {listed(labels)} ({len(lost)} patients)"
            return Checked(None, (Finding("error", "cohort", message, len(lost), raises=CohortError),))
        cohort = cls(table[~missing].reset_index(drop=True), tuple(labels), tuple(covariates))
        if not lost:
            return Checked(cohort)
        lacking = {name: table.loc[bare[name] & missing, "patient"].nunique() for name in labels}
        counts = ", ".join(f"{name} {count}" for name, count in lacking.items() if count)
        why = f"lack a label ({counts})" if counts else f"have no target in {listed(labels)}"
        message = f"{len(lost)} of {rows['patient'].nunique()} patients are left out as they {why}"
        return Checked(cohort, (Finding.of_items("warning", "no-label", message, lost),))

    @cached_property
    def patients(self) -> pd.DataFrame:
        """One row a patient, indexed by id: `site`, labels, covariates, and `slides`, a sorted tuple of ids."""
        columns = [name for name in ("site", *self.labels, *self.covariates) if name in self.table]
        groups = self.table.sort_values(["patient", "slide"], kind="stable").groupby("patient", sort=True)
        table = (
            groups[list(dict.fromkeys(columns))].first()
            if columns
            else pd.DataFrame(index=groups["slide"].first().index)
        )
        return table.assign(slides=groups["slide"].agg(tuple))

    def bags(self, unit: Literal["patient", "slide"] = "patient") -> pd.DataFrame:
        """Return the bags: all slides of a patient, or each slide separately.

        Returns:
            `bag` (its id), `patient` and `slides` (a sorted tuple), sorted by `bag`.

        Raises:
            ConfigError: Another unit.
        """
        if unit == "patient":
            slides = self.patients["slides"]
            return pd.DataFrame({"bag": slides.index, "patient": slides.index, "slides": slides.to_numpy()})
        if unit != "slide":
            raise ConfigError(f"data.bag is '{unit}', expected patient or slide")
        table = self.table.sort_values("slide", ignore_index=True)
        alone = [(slide,) for slide in table["slide"]]
        return pd.DataFrame({"bag": table["slide"], "patient": table["patient"], "slides": alone})

    def only(self, slides: Collection[str]) -> "Cohort":
        """Return the cohort of those of its slides that are among the given ones."""
        table = self.table[self.table["slide"].isin(set(slides))].reset_index(drop=True)
        return Cohort(table, self.labels, self.covariates)


def without_files(
    rows: pd.DataFrame, files: Collection[str], on_missing: Literal["error", "skip"] = "error"
) -> list[Finding]:
    """Return what is wrong with slides that have no feature file.

    Args:
        rows: One row a slide, with `slide`.
        files: Ids of the slides that have a feature file.
        on_missing: What slides without one are: an error, or a warning; where none has one it is always an error.
    """
    slides = set(rows["slide"])
    absent = sorted(slides - set(files))
    if not absent:
        return []
    if len(absent) == len(slides):
        message = (
            f"none of {len(absent)} slides has a feature file: the table names {listed(absent[:2])}, "
            f"the files {listed(sorted(files)[:2]) or 'nothing'}"
        )
        return [Finding("error", "no-file", message, len(absent), raises=FeatureError)]
    hint = "; data.on_missing=skip leaves them out" if on_missing == "error" else ""
    message = f"{len(absent)} of {len(slides)} slides have no feature file{hint}"
    return [Finding.of_items(severity_where(on_missing), "no-file", message, absent, FeatureError)]


def _label_of_patient(rows: pd.DataFrame, label: str, declared: Collection[str]) -> "pd.Series[str]":
    """Return each slide's label as its patient's; None where no slide of the patient has one."""
    values = known_values(rows[label], declared).dropna()
    return rows["patient"].map(values.groupby(rows["patient"]).first().to_dict())
