"""The clinical table: who the patients are, which slides they have, and what is known of them."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.cohort.columns import Columns, Words, identified, translated
from mil.errors import CohortError, ConfigError, FeatureError
from mil.slide_names import slide_id
from mil.tables import MISSING, listed, read_table, require

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Cohort:
    """A checked table of slides, with labels that are one for each patient.

    Attributes:
        table: One row a slide, all text: `patient`, `slide`, `site` where known, then the table's other columns.
        labels: Columns that every patient has exactly one value of, or, where some may be missing, at most one.
        covariates: Further columns carried along.
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
        known: Callable[[pd.DataFrame], NDArray[np.bool_]] | None = None,
    ) -> "Cohort":
        """Read and check a table with one row a slide, or one with a row a patient and another with a row a slide.

        A slide is a bare id or a file's name, with or without folders and endings. A label given for one slide of a
        patient holds for all; patients without one (see `MISSING`) are left out, and a warning counts them. A
        covariate's value is the patient's first.

        Args:
            path: The table; with `slides`, the clinical one.
            columns: What the tables call their ids; what is left open is found under a common name.
            labels: Columns that every patient needs exactly one value of.
            covariates: Further columns to carry along.
            slides: A table of slides, joined on the patient; patients and slides without a counterpart are left out,
                and a warning counts them. A column of both tables is the clinical one's.
            words: What the words of labels and covariates mean, `{column: {word: class}}`; others stay as they are.
            known: Which rows have labels enough, None being no label; those with all of them where left out.

        Raises:
            CohortError: No such table or column, an id that is empty or twice, labels that differ within a patient,
                or no patient left.
            ConfigError: `words` of another column.
        """
        path, asked, columns = Path(path), {*labels, *covariates}, columns or Columns()
        table = _slides(path, columns, asked) if slides is None else _joined(path, Path(slides), columns, asked)
        if columns.site is not None and "site" not in table:
            require(path, table, [columns.site])
        require(path, table, [*labels, *covariates])
        table = translated(path, table, words or {}, asked)
        _warn_of_sites(table)
        for label in labels:
            table[label] = _settled(path, table, label)
        return cls(_labelled(path, table, labels, known), tuple(labels), tuple(covariates))

    @cached_property
    def patients(self) -> pd.DataFrame:
        """One row a patient, by id: `site`, labels, covariates, and `slides`, a sorted tuple of ids."""
        kept = [name for name in ("site", *self.labels, *self.covariates) if name in self.table]
        groups = self.table.sort_values(["patient", "slide"], kind="stable").groupby("patient", sort=True)
        table = groups[list(dict.fromkeys(kept))].first() if kept else pd.DataFrame(index=groups["slide"].first().index)
        return table.assign(slides=groups["slide"].agg(tuple))

    def bags(self, unit: Literal["patient", "slide"] = "patient") -> pd.DataFrame:
        """What a model sees as one: all slides of a patient, or each slide for itself.

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

    def having(
        self,
        slides: Collection[str],
        on_missing: Literal["error", "skip"] = "error",
        lack: str = "no feature file",
    ) -> "Cohort":
        """This cohort with those of its slides only that have features.

        Args:
            slides: Ids with features.
            on_missing: What slides without features are: an error, or left out with a warning that counts them.
            lack: What the other slides have, in the words of the message.

        Raises:
            FeatureError: Slides have no features (up to ten are named), or none has.
            ConfigError: Another `on_missing`.
        """
        if on_missing not in ("error", "skip"):
            raise ConfigError(f"on_missing is '{on_missing}', expected error or skip")
        there = self.table["slide"].isin(set(slides))
        absent = sorted(self.table.loc[~there, "slide"])
        if not there.any():
            raise FeatureError(
                f"none of {len(absent)} slides has a feature file: the table names {listed(absent[:2])}, "
                f"the files {listed(sorted(slides)[:2]) or 'nothing'}"
            )
        if absent and on_missing == "error":
            raise FeatureError(f"{len(absent)} of {len(there)} slides have {lack}: {listed(absent)}")
        if not absent:
            return self
        table = self.table[there].reset_index(drop=True)
        lost = self.table["patient"].nunique() - table["patient"].nunique()
        _log.warning(
            "%d of %d slides have %s and are left out, and with them %d patients: %s",
            *(len(absent), len(there), lack, lost, listed(absent)),
        )
        return Cohort(table, self.labels, self.covariates)


def _slides(path: Path, columns: Columns, asked: set[str]) -> pd.DataFrame:
    """One row a slide, by its bare id."""
    table = identified(path, read_table(path), columns, ("patient", "slide"), asked)
    _refuse_empty(path, table, ("patient", "slide"))
    table["slide"] = table["slide"].map(slide_id)
    _refuse_doubled(path, table, "slide")
    return table


def _joined(path: Path, slides: Path, columns: Columns, asked: set[str]) -> pd.DataFrame:
    """The slides of a table of slides, each with its patient's row of the clinical table."""
    clinical = identified(path, read_table(path), columns, ("patient",), asked).drop(columns="slide", errors="ignore")
    _refuse_empty(path, clinical, ("patient",))
    _refuse_doubled(path, clinical, "patient")
    listing = _slides(slides, columns, asked)
    own = [name for name in listing if name == "patient" or name not in clinical]
    table = listing[own].merge(clinical, on="patient", how="inner")
    _warn_of_strangers(path, clinical["patient"], slides, listing["patient"])
    return table


def _warn_of_strangers(path: Path, patients: "pd.Series[str]", slides: Path, owners: "pd.Series[str]") -> None:
    bare = sorted(set(patients) - set(owners))
    strange = owners[~owners.isin(set(patients))]
    if len(strange) == len(owners):
        raise CohortError(
            f"{slides} and {path} have no patient in common: {listed(sorted(set(strange))[:2])} and {listed(bare[:2])}"
        )
    if bare:
        _log.warning(
            "%d of %d patients of %s have no slide in %s and are left out: %s",
            *(len(bare), len(patients), path, slides, listed(bare)),
        )
    if len(strange):
        whose = sorted(set(strange))
        _log.warning(
            "%d of %d slides of %s are of %d patients that are not in %s and are left out: %s",
            *(len(strange), len(owners), slides, len(whose), path, listed(whose)),
        )


def _refuse_empty(path: Path, table: pd.DataFrame, ids: Sequence[str]) -> None:
    for column in ids:
        empty = table.index[table[column] == ""]
        if len(empty):
            raise CohortError(f"{path}, row {empty[0] + 1}: no {column} id ({len(empty)} rows without one)")


def _refuse_doubled(path: Path, table: pd.DataFrame, column: str) -> None:
    doubled = sorted(set(table.loc[table[column].duplicated(), column]))
    if doubled:
        raise CohortError(f"{path}: {len(doubled)} {column}s have several rows, expected one each: {listed(doubled)}")


def _warn_of_sites(table: pd.DataFrame) -> None:
    if "site" in table:
        several = table.groupby("patient")["site"].nunique().loc[lambda count: count > 1]
        if len(several):
            _log.warning("%d patients have slides of several sites: %s", len(several), listed(list(several.index)))


def _settled(path: Path, table: pd.DataFrame, label: str) -> "pd.Series[str]":
    """Each slide's label as its patient's; None where no slide of the patient has one."""
    known = table[label].where(~table[label].str.casefold().isin(MISSING))
    values = {patient: sorted(set(own)) for patient, own in known.dropna().groupby(table["patient"])}
    differing = [patient for patient, own in values.items() if len(own) > 1]
    if differing:
        raise CohortError(
            f"{path}: '{label}' differs between slides of {len(differing)} patients, expected one value each: "
            f"patient '{differing[0]}' has {listed(values[differing[0]])}"
        )
    return table["patient"].map({patient: own[0] for patient, own in values.items()})


def _labelled(
    path: Path,
    table: pd.DataFrame,
    labels: Sequence[str],
    known: Callable[[pd.DataFrame], NDArray[np.bool_]] | None,
) -> pd.DataFrame:
    bare = table[list(labels)].isna()
    missing = bare.any(axis=1) if known is None else pd.Series(~known(table), table.index)
    count = table.loc[missing, "patient"].nunique()
    if missing.all():
        raise CohortError(f"{path}: no patient has a value in {listed(labels)} ({count} patients)")
    if count:
        without = ", ".join(
            f"{name} {table.loc[bare[name] & missing, 'patient'].nunique()}"
            for name in labels
            if (bare[name] & missing).any()
        )
        total = table["patient"].nunique()
        _log.warning("%d of %d patients are left out as they lack a label (%s)", count, total, without)
    return table[~missing].reset_index(drop=True)
