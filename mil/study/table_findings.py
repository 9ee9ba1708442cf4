"""The clinical table before it is checked: rows that contradict each other, and what they lack.

`Cohort.read` stops at the first thing that is wrong, in the same words; here all of them are counted.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from mil.cohort.columns import Columns, Words, identified, translated
from mil.slide_names import slide_id
from mil.study.findings import Finding, finding
from mil.tables import MISSING, read_table


def raw(
    path: Path, slides: Path | None, columns: Columns, labels: Sequence[str], covariates: Sequence[str], words: Words
) -> pd.DataFrame:
    """One row a slide as it stands in the table or tables: `patient`, `slide`, perhaps `site`, and what labels it has.

    Raises:
        CohortError: A file that is no table, or without ids.
        ConfigError: `words` of another column.
    """
    asked = {*labels, *covariates}
    if slides is None:
        table = identified(path, read_table(path), columns, ("patient", "slide"), asked)
    else:
        table = identified(slides, read_table(slides), columns, ("patient", "slide"), asked)
        clinical = identified(path, read_table(path), columns, ("patient",), asked).drop_duplicates("patient")
        own = [name for name in table if name == "patient" or name not in clinical]
        table = table[own].merge(clinical.drop(columns="slide", errors="ignore"), on="patient", how="inner")
    present = {column: told for column, told in words.items() if column in table}
    return translated(path, table.fillna("").assign(slide=table["slide"].map(slide_id)), present, asked)


def without_ids(path: Path, table: pd.DataFrame) -> list[Finding]:
    """Rows that name no patient, or no slide."""
    found = []
    for column in ("patient", "slide"):
        bare = table.index[table[column] == ""]
        if len(bare):
            message = f"{path}, row {bare[0] + 1}: no {column} id ({len(bare)} rows without one)"
            found.append(Finding("error", "no-id", message, len(bare)))
    return found


def doubled(path: Path, table: pd.DataFrame) -> list[Finding]:
    """Slides with several rows."""
    several = sorted(set(table.loc[table["slide"].duplicated() & (table["slide"] != ""), "slide"]))
    message = f"{path}: {len(several)} slides have several rows, expected one each"
    return [finding("error", "doubled-slide", message, several)] if several else []


def differing(path: Path, table: pd.DataFrame, labels: Sequence[str]) -> list[Finding]:
    """Patients whose slides have several values of one label."""
    found = []
    for label in (name for name in labels if name in table):
        values = _known(table[label]).groupby(table["patient"]).nunique()
        odd = sorted(values.index[values > 1])
        if odd:
            message = f"{path}: '{label}' differs between slides of {len(odd)} patients, expected one value each"
            found.append(finding("error", "label-differs", message, odd))
    return found


def lacking(table: pd.DataFrame, labels: Sequence[str]) -> dict[str, list[str]]:
    """The patients without a value, of each label."""
    found = {}
    for label in (name for name in labels if name in table):
        known = _known(table[label]).groupby(table["patient"]).count()
        found[label] = sorted(known.index[known == 0])
    return found


def left_out(patients: int, without: Mapping[str, Sequence[str]], lost: Sequence[str]) -> list[Finding]:
    """Patients that are not in the study for want of a label."""
    named = ", ".join(f"{label} {len(own)}" for label, own in without.items() if own)
    message = f"{len(lost)} of {patients} patients are left out as they lack a label ({named})"
    return [finding("warning", "no-label", message, lost)] if lost else []


def several_sites(table: pd.DataFrame) -> list[Finding]:
    """Patients whose slides are of more than one site."""
    if "site" not in table:
        return []
    sites = table["site"].where(table["site"] != "").groupby(table["patient"]).nunique()
    odd = sorted(sites.index[sites > 1])
    message = f"{len(odd)} patients have slides of several sites, the first one's counts"
    return [finding("warning", "several-sites", message, odd)] if odd else []


def strangers(path: Path, slides: Path, columns: Columns) -> list[Finding]:
    """Patients of the clinical table without a slide, and of the table of slides without a row in the clinical one."""
    clinical, owners = (
        set(identified(at, read_table(at), columns, ("patient",), set())["patient"]) - {""} for at in (path, slides)
    )
    bare, unknown = sorted(clinical - owners), sorted(owners - clinical)
    found = []
    if bare:
        message = f"{len(bare)} of {len(clinical)} patients of {path} have no slide in {slides} and are left out"
        found.append(finding("warning", "no-slides", message, bare))
    if unknown:
        message = f"{len(unknown)} of {len(owners)} patients of {slides} are not in {path}: their slides are left out"
        found.append(finding("warning", "no-patient", message, unknown))
    return found


def _known(values: "pd.Series[str]") -> "pd.Series[str]":
    return values.where(~values.str.casefold().isin(MISSING))
