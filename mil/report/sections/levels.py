"""The subgroups of each patient: by sex, age, stage, site, scanner, specimen, and by a tool's own variables."""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from mil.report.evaluation import Evaluation
from mil.study.tool import ClinicalVariables, Tool
from mil.tables import MISSING

UNKNOWN = "missing"
ALIASES = {
    "sex": ("sex", "gender", "patient sex"),
    "age": (
        "age",
        "age at diagnosis",
        "age at index",
        "age years",
        "patient age",
        "age at surgery",
        "age at initial pathologic diagnosis",
        "diagnosis age",
    ),
    "stage": (
        "stage",
        "tumour stage",
        "tumor stage",
        "uicc stage",
        "ajcc stage",
        "pathologic stage",
        "pt stage",
        "figo stage",
        "ajcc pathologic tumor stage",
        "ajcc pathologic stage",
        "ajcc clinical stage",
        "tumor stage pathologic",
        "pathological stage",
        "neoplasm disease stage american joint committee on cancer code",
        "clinical stage",
    ),
    "site": ("site", "centre", "center", "hospital", "institution", "tissue source site", "tss"),
    "scanner": ("scanner", "scanner model", "scanner name", "scanner vendor", "scanner type"),
    "specimen": ("specimen", "specimen type", "sample type", "tissue type"),
}
"""The variables that every table of subgroups has, and what clinical tables call them."""
BANDS = ((50, "<50"), (65, "50-64"), (75, "65-74"), (np.inf, ">=75"))
OLDEST = 150
"""Years; ages with a median above it are in days."""
MANY = 10
"""A column of more different numbers is split into thirds."""
_NUMBER = re.compile(r"[<>]?=?\s*(-?\d+(?:[.,]\d+)?)\s*(?:\+|y|yr|yrs|years|a)?", re.IGNORECASE)
_STAGE = re.compile(r"(?:stage\s*)?(0|i{1,3}|iv|[1-4])\s*(?:[abcd]?\d?|\.0)", re.IGNORECASE)
_ROMAN = {"1": "I", "2": "II", "3": "III", "4": "IV"}


def levels(evaluation: Evaluation) -> tuple[dict[str, "pd.Series[str]"], list[str]]:
    """Return the level of every reported patient by variable, and the variables that the clinical table lacks.

    Args:
        evaluation: `patients` has the columns; `tool.subgroups` names further variables.
    """
    patients = pd.DataFrame() if evaluation.patients is None else evaluation.patients
    by_variable, absent = {}, []
    for name in _variables(evaluation.tool.subgroups):
        column = _column(patients, ALIASES.get(name, (_folded(name),)))
        if column is None:
            absent.append(name)
            continue
        level_of = banded(name, patients[column][~patients.index.duplicated()])
        by_variable[name] = level_of.reindex(evaluation.reported.index).fillna(UNKNOWN)
    return by_variable, absent


def banded(name: str, values: "pd.Series[str]") -> "pd.Series[str]":
    """Return a column's values as levels: ages in bands, stages without their letters, many numbers in thirds.

    Thirds are of all patients of the table, reported or not. Words stay as they are written, but `Male` and `male` are
    one level. Ages with a median above 150 are in days, as in the GDC.
    """
    words = values.fillna("").astype(str).str.strip()
    stated = ~words.str.casefold().isin(MISSING)
    numbers = words.where(stated, "").map(_number).astype(np.float64)
    numeric = bool(stated.any()) and bool(numbers[stated].notna().all())
    if numeric and name == "age":
        split = (numbers / 365.25 if numbers.median() > OLDEST else numbers).map(_age)
    elif numeric and numbers.nunique() > MANY:
        split = _thirds(numbers)
    elif name == "stage":
        split = words.map(_stage)
    else:
        split = _one_spelling(words)
    return split.where(stated, UNKNOWN)


def order(names: Iterable[str]) -> list[str]:
    """Return levels as a table lists them: ages by band, others by name, missing ones last."""
    bands = [band for _, band in BANDS] + ["low third", "middle third", "high third"]
    return sorted(set(names), key=lambda name: (name == UNKNOWN, bands.index(name) if name in bands else -1, name))


def used_columns(columns: Iterable[str], tool: Tool) -> list[str]:
    """Return the columns of a clinical table that a report of this tool reads, in their order."""
    clinical = tool.clinical or ClinicalVariables()
    variables = [*_variables(tool.subgroups), *clinical.numeric, *clinical.categorical]
    names = {alias for name in variables for alias in ALIASES.get(str(name), (_folded(name),))}
    return [name for name in columns if _folded(name) in names]


def _variables(further: Iterable[str]) -> list[str]:
    """Return the fixed variables, then those that a tool names."""
    fixed = {alias: name for name, aliases in ALIASES.items() for alias in aliases}
    return list(dict.fromkeys([*ALIASES, *(fixed.get(_folded(name), str(name)) for name in further)]))


def _column(patients: pd.DataFrame, aliases: Iterable[str]) -> str | None:
    """Return the column with the first of these names that the table has."""
    columns = {_folded(column): str(column) for column in reversed(list(patients.columns))}
    return next((columns[alias] for alias in aliases if alias in columns), None)


def _folded(name: object) -> str:
    bare = re.sub(r"^(cases|demographic|diagnoses)\.", "", str(name).strip().casefold())  # of the GDC's tables
    return " ".join(re.split(r"[\s_.\-]+", bare))


def _number(word: str) -> float:
    """Return a number, also from `>89`, `90+` and `67 years`; NaN from other words."""
    match = _NUMBER.fullmatch(word)
    if not match:
        return float("nan")
    number = float(match[1].replace(",", "."))
    return float(np.nextafter(number, -np.inf)) if word.startswith("<") and word[1:2] != "=" else number


def _age(years: float) -> str:
    return next((band for end, band in BANDS if years < end), UNKNOWN)


def _stage(word: str) -> str:
    match = _STAGE.fullmatch(word)
    return _ROMAN.get(match[1], match[1].upper()) if match else word


def _thirds(numbers: "pd.Series[float]") -> "pd.Series[str]":
    low, high = np.nanquantile(numbers.to_numpy(), [1 / 3, 2 / 3])
    return numbers.map(lambda x: "low third" if x <= low else "middle third" if x <= high else "high third")


def _one_spelling(words: "pd.Series[str]") -> "pd.Series[str]":
    """Return the most frequent spelling of each word; of equally frequent ones the first in alphabetical order."""
    counts = words.value_counts().sort_index(kind="stable").sort_values(ascending=False, kind="stable")
    first = {word.casefold(): word for word in reversed(list(counts.index))}
    return words.str.casefold().map(first)
