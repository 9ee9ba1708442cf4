"""Which subgroup a patient is in: the fixed rows of sex, age, stage, site, scanner, specimen, and a tool's own."""

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
    "age": ("age", "age at diagnosis", "age at index", "age years", "patient age", "age at surgery"),
    "stage": ("stage", "tumour stage", "tumor stage", "uicc stage", "ajcc stage", "pathologic stage", "pt stage"),
    "site": ("site", "centre", "center", "hospital", "institution", "tissue source site", "tss"),
    "scanner": ("scanner", "scanner model", "scanner name", "scanner vendor", "scanner type"),
    "specimen": ("specimen", "specimen type", "sample type", "tissue type"),
}
"""The rows that every table has where the column is there, and what clinical tables call them."""
BANDS = ((50, "<50"), (65, "50-64"), (75, "65-74"), (np.inf, ">=75"))
OLDEST = 150
"""Years: a median age above it is in days."""
MANY = 10
"""Different numbers from which on a column is split in thirds."""
_NUMBER = re.compile(r"[<>]?=?\s*(-?\d+(?:[.,]\d+)?)\s*(?:\+|y|yr|yrs|years|a)?", re.IGNORECASE)
_STAGE = re.compile(r"(?:stage\s*)?(0|i{1,3}|iv|[1-4])\s*(?:[abcd]?\d?|\.0)", re.IGNORECASE)
_ROMAN = {"1": "I", "2": "II", "3": "III", "4": "IV"}


def levels(evaluation: Evaluation) -> tuple[dict[str, "pd.Series[str]"], list[str]]:
    """Each subgroup's name with the level of every reported patient, and the subgroups that the table does not hold.

    Args:
        evaluation: Its `patients` hold the columns, its `tool` names further ones under `subgroups`.
    """
    patients = pd.DataFrame() if evaluation.patients is None else evaluation.patients
    people = evaluation.reported.index
    found, absent = {}, []
    for name in _asked(evaluation.tool.subgroups):
        column = _column(patients, ALIASES.get(name, (_folded(name),)))
        if column is None:
            absent.append(name)
            continue
        kinds = banded(name, patients[column][~patients.index.duplicated()])
        found[name] = kinds.reindex(people).fillna(UNKNOWN)
    return found, absent


def banded(name: str, values: "pd.Series[str]") -> "pd.Series[str]":
    """A column's cells as levels: ages in bands, stages without their letters, many different numbers in thirds.

    The thirds are those of all patients of the table, whoever reports. Words stay as they are written; what is written
    once `Male` and once `male` is one level. Ages whose median is above 150 are days, as the GDC has them.
    """
    words = values.fillna("").astype(str).str.strip()
    known = ~words.str.casefold().isin(MISSING)
    numbers = words.where(known, "").map(_number).astype(np.float64)
    numeric = bool(known.any()) and bool(numbers[known].notna().all())
    if numeric and name == "age":
        split = (numbers / 365.25 if numbers.median() > OLDEST else numbers).map(_age)
    elif numeric and numbers.nunique() > MANY:
        split = _thirds(numbers)
    elif name == "stage":
        split = words.map(_stage)
    else:
        split = _one_spelling(words)
    return split.where(known, UNKNOWN)


def order(names: Iterable[str]) -> list[str]:
    """Levels as a table lists them: ages by band, the rest by name, the missing last."""
    bands = [band for _, band in BANDS] + ["low third", "middle third", "high third"]
    return sorted(set(names), key=lambda one: (one == UNKNOWN, bands.index(one) if one in bands else -1, one))


def wanted(columns: Iterable[str], tool: Tool) -> list[str]:
    """Of a clinical table's columns those that a report of this tool reads, in their order."""
    clinical = tool.clinical or ClinicalVariables()
    named = [
        *_asked(tool.subgroups),
        *clinical.numeric,
        *clinical.categorical,
    ]
    known = {alias for name in named for alias in ALIASES.get(str(name), (_folded(name),))}
    return [name for name in columns if _folded(name) in known]


def _asked(own: Iterable[str]) -> list[str]:
    fixed = {alias: name for name, aliases in ALIASES.items() for alias in aliases}
    return list(dict.fromkeys([*ALIASES, *(fixed.get(_folded(one), str(one)) for one in own)]))


def _column(patients: pd.DataFrame, aliases: Iterable[str]) -> str | None:
    """The column under the first of these names that is there."""
    there = {_folded(column): str(column) for column in reversed(list(patients.columns))}
    return next((there[alias] for alias in aliases if alias in there), None)


def _folded(name: object) -> str:
    return " ".join(re.split(r"[\s_.\-]+", str(name).strip().casefold()))


def _number(word: str) -> float:
    """Also of `>89`, `90+` and `67 years`; NaN for what is no number."""
    found = _NUMBER.fullmatch(word)
    if not found:
        return float("nan")
    number = float(found[1].replace(",", "."))
    return float(np.nextafter(number, -np.inf)) if word.startswith("<") and word[1:2] != "=" else number


def _age(years: float) -> str:
    return next((band for end, band in BANDS if years < end), UNKNOWN)


def _stage(word: str) -> str:
    found = _STAGE.fullmatch(word)
    return _ROMAN.get(found[1], found[1].upper()) if found else word


def _thirds(numbers: "pd.Series[float]") -> "pd.Series[str]":
    low, high = np.nanquantile(numbers.to_numpy(), [1 / 3, 2 / 3])
    return numbers.map(lambda one: "low third" if one <= low else "middle third" if one <= high else "high third")


def _one_spelling(words: "pd.Series[str]") -> "pd.Series[str]":
    """The commonest spelling of each word; of equally common ones the first by name."""
    counts = words.value_counts().sort_index(kind="stable").sort_values(ascending=False, kind="stable")
    first = {word.casefold(): word for word in reversed(list(counts.index))}
    return words.str.casefold().map(first)
