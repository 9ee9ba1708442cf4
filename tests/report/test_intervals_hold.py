"""Every interval of a whole report holds its estimate: on small and ragged cohorts of every kind of endpoint."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.competing_risks import CompetingRisks
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.multilabel import Multilabel
from mil.endpoints.ordinal import Ordinal
from mil.endpoints.regression import Regression
from mil.endpoints.survival import Cox
from mil.errors import PredictionsError
from mil.report.assemble import evaluate
from mil.report.schema import Bounds, Estimate
from tests.report.followed import HORIZONS, clinic
from tests.report.tables import names, refitted

CLASSES = ("a", "b", "c")
SEEDS = range(3)


def estimates(part: object, at: str = "report") -> Iterator[tuple[str, Estimate]]:
    """Yield every estimate within a model, with where it stands."""
    if isinstance(part, Estimate):
        yield at, part
    elif isinstance(part, BaseModel):
        for name in type(part).model_fields:
            yield from estimates(getattr(part, name), f"{at}.{name}")
    elif isinstance(part, dict):
        for name, value in part.items():
            yield from estimates(value, f"{at}.{name}")
    elif isinstance(part, tuple | list):
        for index, value in enumerate(part):
            yield from estimates(value, f"{at}[{index}]")


def holds(estimate: Estimate, bounds: Estimate | Bounds) -> bool:
    """Whether no bound lies on the wrong side of the value."""
    if estimate.value is None:
        return bounds.low is None or bounds.high is None or bounds.low <= bounds.high
    above = bounds.low is not None and bounds.low > estimate.value
    return not above and not (bounds.high is not None and bounds.high < estimate.value)


def ragged(seed: int) -> tuple[pd.DataFrame, np.random.Generator]:
    """Patients in folds of very different sizes, each with all three roles."""
    rng = np.random.default_rng(seed)
    patients, folds = int(rng.integers(24, 70)), int(rng.integers(1, 5))
    part = np.sort(rng.integers(0, folds**2, patients)) // folds
    rows = []
    for fold in range(folds):
        role = np.where(rng.random(patients) < 0.3, "select", "train")
        rows.append(
            pd.DataFrame({"patient": names(patients), "fold": fold, "role": np.where(part == fold, "report", role)})
        )
    return pd.concat(rows, ignore_index=True), rng


def by_patient(table: pd.DataFrame, values: Any) -> Any:
    return table["patient"].map(dict(zip(sorted(table["patient"].unique()), values, strict=True)))


def binary(seed: int) -> tuple[pd.DataFrame, Endpoint, dict[str, Any]]:
    table, rng = ragged(seed)
    label = by_patient(table, (rng.random(table["patient"].nunique()) < 0.35).astype(int))
    score = (1.2 * label + rng.normal(size=len(table)) - 0.5).round(1)
    rule = [{"rule": "sensitivity", "at_least": 0.9}, {"rule": "two_cuts", "low": 0.2, "high": 0.7}, {"rule": "youden"}]
    tool = {"decision": rule[seed % 3], "calibration": "platt", "prevalences": [0.1], "conformal": {"coverage": 0.9}}
    return table.assign(label=label, p_1=1 / (1 + np.exp(-2 * score))), Binary(), tool


def of_classes(seed: int, column: str, endpoint: Endpoint) -> tuple[pd.DataFrame, Endpoint, dict[str, Any]]:
    table, rng = ragged(seed)
    label = by_patient(table, rng.choice(3, table["patient"].nunique(), p=[0.6, 0.3, 0.1]))
    logits = rng.normal(size=(len(table), 3)) + 1.5 * np.eye(3)[label.to_numpy()]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    scores = {f"p_{name}": shares[:, at] for at, name in enumerate(CLASSES)}
    table = table.assign(**{column: np.array(CLASSES)[label]}, **scores, expected=shares @ np.arange(3))
    return table, endpoint, {"decision": {"rule": "argmax", "abstain_below": 0.5}, "calibration": "temperature"}


def multiclass(seed: int) -> tuple[pd.DataFrame, Endpoint, dict[str, Any]]:
    return of_classes(seed, "label", Multiclass(classes=CLASSES))


def ordinal(seed: int) -> tuple[pd.DataFrame, Endpoint, dict[str, Any]]:
    return of_classes(seed, "grade", Ordinal(classes=CLASSES))


def multilabel(seed: int) -> tuple[pd.DataFrame, Endpoint, dict[str, Any]]:
    table, _, _ = binary(seed)
    unknown = table["patient"].astype(int) % 4 == 0
    table = table.assign(first=table["label"], second=table["label"].astype(str).mask(unknown, ""))
    table = table.assign(p_first=table["p_1"], p_second=table["p_1"] ** 2)
    return table, Multilabel(columns=("first", "second")), {"decision": {"rule": "youden"}, "calibration": "platt"}


def regression(seed: int) -> tuple[pd.DataFrame, Endpoint, dict[str, Any]]:
    table, rng = ragged(seed)
    true = by_patient(table, rng.standard_t(2, table["patient"].nunique()) * 5)
    value = true + rng.normal(size=len(table)) * 5
    scores = {"value": value, "value_sd": 5.0}
    return table.assign(score=true, **scores), Regression(loss="gaussian"), {"conformal": {"coverage": 0.8}}


def survival(seed: int) -> tuple[pd.DataFrame, Endpoint, dict[str, Any]]:
    table, rng = ragged(seed)
    patients = table["patient"].nunique()
    hazard = rng.normal(size=patients)
    ends, leaving = np.ceil(rng.exponential(50 * np.exp(-hazard))), np.ceil(rng.uniform(1, 90, patients))
    event = by_patient(table, (ends <= leaving).astype(int))
    log_hazard = by_patient(table, hazard) + rng.normal(size=len(table))
    risks = {
        f"risk_{name}": -np.expm1(-at / 40 * np.exp(log_hazard)) for name, at in (("1y", 12), ("3y", 36), ("5y", 60))
    }
    table = table.assign(time=by_patient(table, np.minimum(ends, leaving)), event=event, log_hazard=log_hazard, **risks)
    rule = {"rule": "quantiles", "cuts": [0.3, 0.7]}
    return table, Cox(horizons=HORIZONS), {"decision": rule, "calibration": "baseline"}


def competing(seed: int) -> tuple[pd.DataFrame, Endpoint, dict[str, Any]]:
    table, _, _ = survival(seed)
    words = np.where(table["event"] == 1, np.where(table["patient"].astype(int) % 3, "relapse", "death"), "censored")
    risks = {"risk": table["risk_3y"], "risk_relapse_3y": table["risk_3y"], "risk_death_3y": table["risk_1y"]}
    endpoint = CompetingRisks(causes=("relapse", "death"), horizons={"3y": 36})
    return table.assign(event=words, **risks), endpoint, {"decision": {"rule": "quantiles", "cuts": [0.5]}}


KINDS = (binary, multiclass, ordinal, multilabel, regression, survival, competing)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("seed", [*SEEDS, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 30))])
def test_every_interval_holds_its_estimate(kind: Any, seed: int) -> None:
    table, endpoint, tool = kind(seed)
    reported = set(table.loc[table["role"] == "report", "patient"])
    patients = clinic(seed, table["patient"].nunique())
    comparators = {"baseline": table.sample(frac=1, random_state=seed) if seed % 2 else table}
    try:
        evaluation = refitted(table, endpoint, {**tool, "subgroups": ["stage"]}, patients, 60, seed, comparators)
        report = evaluate(evaluation)
    except PredictionsError as reason:  # too few patients of a class for anything
        pytest.skip(str(reason))
    shown = [(at, each) for at, each in estimates(report) if each.value is not None or each.low is not None]
    assert len(shown) > 20
    assert reported
    wrong = [
        f"{at}: {estimate.value} ({bounds.low} to {bounds.high}) by {bounds.method}"
        for at, estimate in shown
        for bounds in (estimate, estimate.second)
        if bounds is not None and not holds(estimate, bounds)
    ]
    assert not wrong, "\n".join(wrong)
