"""The clinical table as it stands: one row a slide, and every contradiction between its rows."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from mil.cohort import similar_ids
from mil.cohort.columns import Columns, Declared, Words, identified, translated
from mil.errors import CohortError, MilError
from mil.findings import Checked, Finding
from mil.slide_names import slide_id
from mil.tables import checked_table, is_missing, listed, require

HasFile = Callable[[pd.DataFrame], "pd.Series[bool]"]
"""Says of rows, by their `slide`, which have features."""


def read_rows(
    path: Path,
    columns: Columns | None = None,
    labels: Sequence[str] = (),
    covariates: Sequence[str] = (),
    slides: Path | None = None,
    words: Words | None = None,
    declared: Declared | None = None,
    has_file: HasFile | None = None,
) -> Checked[pd.DataFrame]:
    """Read a table with one row a slide, or one with a row a patient and another with a row a slide.

    Args:
        path: The table; with `slides`, the clinical one.
        columns: What the tables call their ids; None looks for common names.
        labels: Columns that must be there.
        covariates: Further columns that must be there.
        slides: A table of slides, joined on the patient; patients and slides without a counterpart are left out with
            a warning. A column of both tables is taken from the clinical one.
        words: What the words of labels and covariates mean.
        declared: Words that are never missing values.
        has_file: Says which slides have features, where patients without any are left out: rows of these contradict
            nothing. None judges all rows.

    Returns:
        One row a slide, all text: `patient`, `slide`, `site` where known, then the table's other columns; None where
        a file cannot be read or has no ids. Rows without ids, repeated slides, absent columns and labels that differ
        within a patient are errors among the findings; several sites or covariates in a patient are warnings.
    """
    columns, needed = columns or Columns(), [*labels, *covariates]
    try:
        if slides is None:
            rows, findings = _slide_table(path, columns, set(needed), has_file)
        else:
            rows, findings = _joined_tables(path, slides, columns, set(needed), has_file)
        if rows.empty:
            return Checked(None, tuple(findings))
        site = [columns.site] if columns.site is not None and "site" not in rows else []
        findings += _absent(path, rows, [*site, *needed])
        present = {
            column: meanings for column, meanings in (words or {}).items() if column in rows or column not in needed
        }
        table = translated(path, rows, present, set(needed))
    except MilError as error:
        return Checked(None, (Finding.of_error("cohort", error),))
    return table.then(
        lambda rows: Checked(
            rows,
            (
                *findings,
                *similar_ids.findings_of(path, rows),
                *_several_sites(rows),
                *_differing_values(path, _judged(rows, has_file), labels, declared or {}, "error"),
                *_differing_values(path, rows, [name for name in covariates if name not in labels], declared or {}),
            ),
        )
    )


def patients_without(
    rows: pd.DataFrame, labels: Sequence[str], declared: Declared | None = None
) -> dict[str, list[str]]:
    """Return, for each label that the rows have, the patients without a value of it."""
    without = {}
    for label in (name for name in labels if name in rows):
        values = known_values(rows[label], (declared or {}).get(label, ())).groupby(rows["patient"]).count()
        without[label] = sorted(values.index[values == 0])
    return without


def known_values(values: "pd.Series[str]", declared: Collection[str] = ()) -> "pd.Series[str]":
    """Return the values with NaN in place of the words for a missing one, unless these are `declared`."""
    return values.where(~is_missing(values, declared))


def _identified(
    path: Path, columns: Columns, ids: Sequence[str], labels_and_covariates: set[str]
) -> tuple[pd.DataFrame, list[Finding]]:
    raw = checked_table(path)
    table = identified(path, raw.value_or_raise(), columns, ids, labels_and_covariates)
    rows = table.value_or_raise()
    if "slide" in ids:
        rows["slide"] = rows["slide"].map(slide_id)
    return rows, [*raw.findings, *table.findings]


def _judged(rows: pd.DataFrame, has_file: HasFile | None) -> pd.DataFrame:
    """Return the rows of patients with features, whose contradictions are errors."""
    return rows if has_file is None else rows[rows["patient"].isin(set(rows.loc[has_file(rows), "patient"]))]


def _slide_table(
    path: Path, columns: Columns, labels_and_covariates: set[str], has_file: HasFile | None
) -> tuple[pd.DataFrame, list[Finding]]:
    """Return the rows of a table with one row a slide; rows without a slide are of patients without one."""
    rows, findings = _identified(path, columns, ("patient", "slide"), labels_and_covariates)
    bare = rows["slide"] == ""
    if bare.any() and not bare.all():
        findings += _left_out(path, rows[bare], "no slide id")
        rows = rows[~bare].reset_index(drop=True)
    judged = _judged(rows, has_file)
    return rows, [*findings, *_without_ids(path, judged, ("patient", "slide")), *_repeated(path, judged, "slide")]


def _joined_tables(
    path: Path, slides: Path, columns: Columns, labels_and_covariates: set[str], has_file: HasFile | None
) -> tuple[pd.DataFrame, list[Finding]]:
    """Return the rows of a table of slides, each with its patient's row of the clinical table.

    Rows of patients that only one of the tables has are left out before anything else is judged.
    """
    patients, patient_findings = _identified(path, columns, ("patient",), labels_and_covariates)
    patients = patients.drop(columns="slide", errors="ignore")
    rows, slide_findings = _identified(slides, columns, ("patient", "slide"), labels_and_covariates)
    names = [name for name in rows if name == "patient" or name not in patients]
    of_both = set(patients["patient"]) & set(rows["patient"]) - {""}
    clinical = patients[patients["patient"].isin(of_both)]
    of_clinic = rows[rows["patient"].isin(of_both)]
    judged = _judged(of_clinic, has_file)
    judged_clinical = clinical[clinical["patient"].isin(set(judged["patient"]))]
    findings = [
        *patient_findings,
        *slide_findings,
        *_left_out(path, patients[patients["patient"] == ""], "no patient id"),
        *_left_out(slides, rows[rows["patient"] == ""], "no patient id"),
        *_unmatched(path, patients["patient"], slides, rows["patient"]),
        *_several_rows(path, judged_clinical, [name for name in clinical if name in labels_and_covariates]),
        *_without_ids(slides, judged, ("slide",)),
        *_repeated(slides, judged, "slide"),
    ]
    return of_clinic[names].merge(clinical.drop_duplicates("patient"), on="patient", how="inner"), findings


def _left_out(path: Path, rows: pd.DataFrame, why: str) -> list[Finding]:
    if rows.empty:
        return []
    message = f"{path}: {len(rows)} rows have {why} and are left out, the first is row {rows.index[0] + 1}"
    return [Finding("warning", "no-id", message, len(rows))]


def _several_rows(path: Path, rows: pd.DataFrame, columns: Sequence[str]) -> list[Finding]:
    """Return findings on patients with several rows: an error where their labels or covariates differ."""
    doubled = rows[rows["patient"].duplicated(keep=False)]
    if doubled.empty:
        return []
    variants = doubled[["patient", *columns]].drop_duplicates()["patient"].value_counts()
    differing, alike = (sorted(variants.index[chosen]) for chosen in (variants > 1, variants == 1))
    findings = []
    if differing:
        differ = f"several rows that differ in {listed(columns)}"
        message = f"{path}: {len(differing)} patients have {differ}, expected one each"
        findings.append(Finding.of_items("error", "doubled-patient", message, differing, CohortError))
    if alike:
        same = f" with the same {listed(columns)}" if columns else ""
        message = f"{path}: {len(alike)} patients have several rows{same}, the first one's other columns count"
        findings.append(Finding.of_items("warning", "doubled-patient", message, alike))
    return findings


def _absent(path: Path, rows: pd.DataFrame, columns: Sequence[str]) -> list[Finding]:
    findings = []
    for column in columns:
        try:
            require(path, rows, [column])
        except CohortError as error:
            findings.append(Finding.of_error("cohort", error))
    return findings


def _without_ids(path: Path, rows: pd.DataFrame, ids: Sequence[str]) -> list[Finding]:
    findings = []
    for column in ids:
        empty = rows.index[rows[column] == ""]
        if len(empty):
            message = f"{path}, row {empty[0] + 1}: no {column} id ({len(empty)} rows without one)"
            findings.append(Finding("error", "no-id", message, len(empty), raises=CohortError))
    return findings


def _repeated(path: Path, rows: pd.DataFrame, column: str) -> list[Finding]:
    repeated = sorted(set(rows.loc[rows[column].duplicated() & (rows[column] != ""), column]))
    message = f"{path}: {len(repeated)} {column}s have several rows, expected one each"
    return [Finding.of_items("error", f"doubled-{column}", message, repeated, CohortError)] if repeated else []


def _unmatched(path: Path, patients: "pd.Series[str]", slides: Path, owners: "pd.Series[str]") -> list[Finding]:
    """Return findings on patients without a slide, and on slides of patients without a row."""
    without_slides = sorted(set(patients) - set(owners) - {""})
    foreign = owners[~owners.isin(set(patients)) & (owners != "")]
    unknown = sorted(set(foreign))
    if len(foreign) == len(owners):
        message = (
            f"{slides} and {path} have no patient in common: {listed(unknown[:2])} and {listed(without_slides[:2])}"
        )
        return [Finding("error", "no-patient", message, len(unknown), raises=CohortError)]
    findings = []
    if without_slides:
        count = len(set(patients) - {""})
        message = f"{len(without_slides)} of {count} patients of {path} have no slide in {slides} and are left out"
        findings.append(Finding.of_items("warning", "no-slides", message, without_slides))
    if unknown:
        message = (
            f"{len(foreign)} of {len(owners)} slides of {slides} are of {len(unknown)} patients that are not in {path} "
            "and are left out"
        )
        findings.append(Finding.of_items("warning", "no-patient", message, unknown))
    return findings


def _several_sites(rows: pd.DataFrame) -> list[Finding]:
    if "site" not in rows:
        return []
    sites = rows["site"].where(rows["site"] != "").groupby(rows["patient"]).nunique()
    several = sorted(sites.index[sites > 1])
    message = f"{len(several)} patients have slides of several sites, the first one's counts"
    return [Finding.of_items("warning", "several-sites", message, several)] if several else []


def _differing_values(
    path: Path,
    rows: pd.DataFrame,
    columns: Sequence[str],
    declared: Declared,
    severity: Literal["error", "warning"] = "warning",
) -> list[Finding]:
    """Return a finding for each column whose values differ between slides of a patient."""
    findings = []
    for column in (name for name in columns if name in rows):
        values = known_values(rows[column], declared.get(column, ()))
        counts = values.groupby(rows["patient"]).nunique()
        differing = sorted(counts.index[counts > 1])
        if differing:
            example = listed(sorted(set(values[rows["patient"] == differing[0]].dropna())))
            use = "expected one value each" if severity == "error" else "the first one counts"
            message = (
                f"{path}: '{column}' differs between slides of {len(differing)} patients, {use} "
                f"(patient '{differing[0]}' has {example})"
            )
            code = "label-differs" if severity == "error" else "value-differs"
            findings.append(Finding.of_items(severity, code, message, differing, CohortError))
    return findings
