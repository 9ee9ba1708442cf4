"""One small evaluated table of every kind of endpoint, with the report that its sections make."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pandas as pd

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.competing_risks import CompetingRisks
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.multilabel import Multilabel
from mil.endpoints.ordinal import Ordinal
from mil.endpoints.regression import Regression
from mil.endpoints.survival import Cox
from mil.report.assemble import evaluate
from mil.report.evaluation import Evaluation
from mil.report.figures import draw, threshold_curves
from mil.report.schema import Report
from tests.report import tables
from tests.report.tables import refitted

HOSTILE = "</td><script>alert('1')</script>\" onload=\"x"
RULE = {"rule": "sensitivity", "at_least": 0.9}


class Case(NamedTuple):
    """What is drawn, and what is expected."""

    table: pd.DataFrame
    endpoint: Endpoint
    tool: Mapping[str, Any]
    figures: tuple[str, ...]


def competing() -> pd.DataFrame:
    """The patients of `survival`, of whom every fourth dies of something else, with the incidence until 3 years."""
    table = tables.survival()
    words = np.where(table["event"] == 1, "relapse", "censored")
    risk = 1 / (1 + np.exp(-table["log_hazard"] + 10 * table["fold"]))
    events = np.where(table["patient"].astype(int) % 4 == 0, "death", words)
    return table.assign(event=events, risk=risk, risk_relapse_3y=0.8 * risk)


def survival_table() -> pd.DataFrame:
    """With risks at two horizons."""
    table = tables.survival()
    risk = 1 / (1 + np.exp(-table["log_hazard"] + 10 * table["fold"]))
    return table.assign(risk_1y=risk / 4, risk_5y=risk)


def ordinal() -> pd.DataFrame:
    """Four grades."""
    table = tables.multiclass(classes=tuple("0123"), patients=120)
    return table.rename(columns={"label": "grade"}).assign(expected=1.0)


def multilabel() -> pd.DataFrame:
    """Labels `first` and `second`; the second is not known of every fifth patient."""
    table = tables.binary()
    unknown = table["patient"].astype(int) % 5 == 0
    second = table["label"].astype(str).mask(unknown, "")
    return table.assign(first=table["label"], second=second, p_first=table["p_1"], p_second=table["p_1"] ** 2)


def numbers() -> pd.DataFrame:
    """A number and its prediction."""
    table, rng = tables.binary(), np.random.default_rng(0)
    true = dict(zip(table["patient"].unique(), rng.normal(50, 5, table["patient"].nunique()), strict=True))
    score = table["patient"].map(true)
    return table.assign(score=score, value=0.7 * score + 15 + rng.normal(size=len(table)))


CLASSES = ("adenoma", HOSTILE, "$x^2$")
_FIGURES = ("roc", "precision_recall", "score_distribution", "confusion", "calibration", "decision_curve", "subgroups")
_QUANTILES = {"rule": "quantiles", "cuts": [1 / 3, 2 / 3]}
CASES: Mapping[str, Callable[[], Case]] = {
    "binary": lambda: Case(tables.binary(), Binary(), {"decision": RULE, "calibration": "platt"}, _FIGURES),
    "multiclass": lambda: Case(
        tables.multiclass(classes=CLASSES, patients=120),
        Multiclass(classes=CLASSES),
        {"decision": {"rule": "argmax", "abstain_below": 0.5}},
        _FIGURES,
    ),
    "ordinal": lambda: Case(
        ordinal(),
        Ordinal(classes=tuple("0123")),
        {},
        tuple("class_confusion" if name == "confusion" else name for name in _FIGURES),
    ),
    "multilabel": lambda: Case(
        multilabel(), Multilabel(), {"decision": {"questions": {"first": RULE, "second": RULE}}}, _FIGURES
    ),
    "survival": lambda: Case(
        survival_table(),
        Cox(horizons={"1y": 12, "5y": 60}),
        {"decision": _QUANTILES},
        ("decision_curve", "calibration_horizon", "kaplan_meier", "subgroups"),
    ),
    "competing_risks": lambda: Case(
        competing(),
        CompetingRisks(causes=("relapse", "death"), horizons={"3y": 36}),
        {},
        ("decision_curve", "calibration_horizon", "incidence", "subgroups"),
    ),
    "regression": lambda: Case(numbers(), Regression(unit="%"), {}, ("regression", "subgroups")),
}


@cache
def evaluated(name: str) -> tuple[Evaluation, Report]:
    """The evaluation and the report of a case."""
    table, endpoint, tool, _ = CASES[name]()
    people = table["patient"].unique()
    sex = np.where(np.arange(len(people)) % 8 == 0, "", np.where(np.arange(len(people)) % 2, "female", "male"))
    patients = pd.DataFrame({"sex": sex, "site": np.where(np.arange(len(people)) < 70, HOSTILE, "B")}, index=people)
    evaluation = refitted(table, endpoint, tool, patients, resamples=10)
    return evaluation, evaluate(evaluation)


@cache
def drawn(name: str) -> dict[str, bytes]:
    """The files of a case's figures by their names, in the order in which they are written."""
    evaluation, report = evaluated(name)
    with TemporaryDirectory() as folder, mock.patch.object(threshold_curves, "RESAMPLES", 20):
        written = draw(evaluation, report, Path(folder))
        return {path.name: path.read_bytes() for path in written}
