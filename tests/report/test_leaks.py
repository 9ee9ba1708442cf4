"""Nothing that is fitted knows the report patients: whatever theirs is changed to, fitted numbers keep their bits."""

import ast
import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import mil.fitted
from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.cox import BaselineHazard
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.multilabel import Multilabel
from mil.endpoints.ordinal import Ordinal
from mil.endpoints.regression import Regression
from mil.endpoints.survival import Cox, Survival
from mil.fitted import calibrators, conformal, decision_rules
from mil.fitted.specification import Specification
from mil.fitted.state import BagSummaries, FittedState
from mil.report.schema import section_classes
from mil.report.sections import clinical_baseline
from mil.report.sections.clinical import Clinical
from mil.stats.censoring import Censoring
from tests.report.tables import refitted

from .tables import names

PATIENTS = 240
FITTED = ("decision", "calibration", "conformal", "novelty")
Tool = dict[str, Any]


def with_baseline(endpoint: Cox) -> Cox:
    """As if it had been trained, so that it predicts risks."""
    endpoint.baseline = BaselineHazard([12.0, 36.0], [0.2, 0.6])
    return endpoint


CLINICAL = {"numeric": ["age"], "categorical": ["stage"]}
SETS = {"coverage": 0.8}
CASES: dict[str, tuple[Endpoint, Tool]] = {
    "binary": (Binary(), {"decision": {"rule": "sensitivity", "at_least": 0.9}, "calibration": "platt"}),
    "two cuts": (
        Binary(),
        {
            "decision": {"rule": "two_cuts", "out": {"sensitivity": 0.95}, "in": {"specificity": 0.95}},
            "calibration": "temperature",
        },
    ),
    "multiclass": (
        Multiclass(classes=("a", "b", "c")),
        {"decision": {"rule": "youden"}, "calibration": "temperature"},
    ),
    "ordinal": (Ordinal(), {"decision": {"rule": "specificity", "at_least": 0.8}, "calibration": "platt"}),
    "multilabel": (Multilabel(), {"decision": {"rule": "youden"}, "calibration": "platt"}),
    "regression": (Regression(), {"decision": {"rule": "quantiles", "cuts": [1 / 3, 2 / 3]}}),
    "survival": (Cox(), {"decision": {"rule": "quantiles", "cuts": [0.5]}, "times": [12, 24]}),
}
CASES |= {
    "stated": (Binary(), {"decision": {"rule": "two_cuts", "low": 0.3, "high": 0.7}, "calibration": "platt"}),
    "stated risk": (
        with_baseline(Cox(horizons={"3y": 36})),
        {"decision": {"rule": "absolute_risk", "horizon": "3y", "cuts": [0.4]}, "calibration": "baseline_slope"},
    ),
}
FITTING = ("operating_points", "calibration", "groups", "survival", "conformal", "added_value")
"""Sections that fit something."""


def targets(endpoint: Endpoint, signal: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of the truth, which rises with a signal `(p,)`."""
    rng = np.random.default_rng(1)
    rank = (signal + rng.normal(size=len(signal)) / 2).argsort().argsort() / len(signal)
    match endpoint:
        case Survival():
            return {"time": np.ceil(60 * (1 - rank) + rng.uniform(1, 30, len(rank))), "event": (rank > 0.4).astype(int)}
        case Regression():
            return {"score": 10 * rank}
        case Multilabel():
            return {name: ((rank + rng.random(len(rank))) > 1).astype(int) for name in endpoint.columns}
        case Binary() | Multiclass() | Ordinal():
            places = np.minimum((rank * len(endpoint.classes)).astype(int), len(endpoint.classes) - 1)
            return {endpoint.columns[0]: np.array(endpoint.classes)[places]}
    raise AssertionError(endpoint)


def predicted(endpoint: Endpoint) -> pd.DataFrame:
    """A hold-out: half trains, a quarter selects, a quarter is reported."""
    rng = np.random.default_rng(0)
    signal = rng.normal(size=PATIENTS)
    head = {"patient": names(PATIENTS), "fold": 0, "role": np.resize(["train", "select", "train", "report"], PATIENTS)}
    logits = torch.from_numpy(signal[:, None] + rng.normal(size=(PATIENTS, endpoint.out_dim)) / 2)
    scores = {name: values.double().numpy() for name, values in endpoint.decode(logits).items()}
    return pd.DataFrame({**head, **targets(endpoint, signal), **scores})


def clinic() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    stage = np.array(["I", "II", "III"])[rng.integers(0, 3, PATIENTS)]
    return pd.DataFrame({"age": rng.integers(40, 90, PATIENTS).astype(str), "stage": stage}, index=names(PATIENTS))


def tampered(table: pd.DataFrame, endpoint: Endpoint, role: str = "report") -> Iterator[pd.DataFrame]:
    """The same rows, but labels of the patients of a role dealt out anew; then scores of others in place of theirs."""
    rows, rng = np.flatnonzero(table["role"] == role), np.random.default_rng(4)
    others = endpoint.decode(torch.from_numpy(rng.normal(size=(len(rows), endpoint.out_dim))))
    order = rng.permutation(rows)
    for replaced in ({name: table[name].to_numpy()[order] for name in endpoint.columns}, others):
        changed = table.copy()
        for name, values in replaced.items():
            changed.loc[rows, name] = np.asarray(values)
        assert not changed.equals(table)
        yield changed


def parts(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = table.set_index("patient")
    return rows[rows["role"] == "train"], rows[rows["role"] == "select"]


def with_options(tool: Tool, endpoint: Endpoint) -> Tool:
    return tool | ({} if isinstance(endpoint, Survival) else {"conformal": SETS}) | {"novelty": {}}


def state(table: pd.DataFrame, endpoint: Endpoint, tool: Tool) -> str:
    """What a manifest would keep, as it is written."""
    train, select = parts(table)
    means = np.random.default_rng(3).normal(size=(PATIENTS, 4))
    bags = {
        "train": BagSummaries(np.full(120, 50), means[:120]),
        "select": BagSummaries(np.full(60, 50), means[120:180]),
    }
    specification = Specification.model_validate({key: with_options(tool, endpoint).get(key) for key in FITTED})
    return FittedState.fit(specification, endpoint, train, select, bags).model_dump_json()


@pytest.mark.parametrize("case", CASES)
def test_a_manifests_fitted_numbers_do_not_know_the_report_patients(case: str) -> None:
    endpoint, tool = CASES[case]
    table = predicted(endpoint)
    before = state(table, endpoint, tool)
    assert json.loads(before)["decisions"], "there is something to leak into"
    for changed in tampered(table, endpoint):
        assert state(changed, endpoint, tool) == before
    # what they are fitted to does change them: the comparison above can fail
    for role in ("train", "select"):
        moved = {state(changed, endpoint, tool) for changed in tampered(table, endpoint, role)}
        on = {decision["on"] for decision in json.loads(before)["decisions"]}
        calibrated = json.loads(before)["calibration"] is not None
        on_select = role == "select" and (calibrated or "score" in endpoint.columns)
        assert (moved != {before}) == (role in on or on_select)


class Spy:
    """Remembers what fits were given and what came of them."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.roles: set[str] = set()

    def watch(self, name: str, function: Callable[..., Any], shown: Callable[[Any], object]) -> Callable[..., Any]:
        def wrapped(*given: Any, **named: Any) -> Any:
            for each in (*given, *named.values()):
                if isinstance(each, pd.DataFrame) and "role" in each:
                    self.roles |= set(each["role"])
            made = function(*given, **named)
            self.seen.append((name, repr(shown(made))))
            return made

        return wrapped


def watched(table: pd.DataFrame, endpoint: Endpoint, tool: Tool, patients: pd.DataFrame) -> Spy:
    """Every fit that the sections of a report make."""
    spy = Spy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            decision_rules.Plan, "fit", spy.watch("decision", decision_rules.Plan.fit, lambda made: made.model_dump())
        )
        patch.setattr(calibrators, "fit", spy.watch("calibration", calibrators.fit, lambda made: made.model_dump()))
        patch.setattr(conformal, "fit", spy.watch("conformal", conformal.fit, lambda made: made and made.model_dump()))
        patch.setattr(Censoring, "fit", spy.watch("censoring", Censoring.fit, vars))
        evaluation = refitted(table, endpoint, with_options(tool, endpoint), patients, resamples=5)
        for section in section_classes():
            if section.key in FITTING:
                section.compute(evaluation)
    return spy


@pytest.mark.parametrize("case", [name for name in CASES if name != "two cuts"])
def test_the_sections_of_a_report_fit_to_train_and_select_rows_alone(case: str) -> None:
    endpoint, tool = CASES[case]
    table, patients = predicted(endpoint), clinic()
    before = watched(table, endpoint, tool, patients)
    assert before.seen
    assert "report" not in before.roles
    for changed in tampered(table, endpoint):
        assert watched(changed, endpoint, tool, patients).seen == before.seen


@pytest.mark.parametrize("case", ["binary", "survival"])
def test_the_clinical_baseline_does_not_know_the_report_patients_outcomes(case: str) -> None:
    endpoint, tool = CASES[case]
    table, patients = predicted(endpoint), clinic()

    def answers(rows: pd.DataFrame, clinical: pd.DataFrame) -> "pd.Series[float]":
        evaluation = refitted(rows, endpoint, tool | {"clinical": CLINICAL}, clinical, resamples=5)
        covariates = Clinical.of(evaluation)
        assert covariates is not None
        if endpoint.survival is not None:
            return clinical_baseline.risks(evaluation, covariates, endpoint.survival, 24)
        return clinical_baseline.answers(evaluation, covariates, endpoint.questions()[0])

    before = answers(table, patients)
    for changed in tampered(table, endpoint):
        pd.testing.assert_series_equal(answers(changed, patients), before, check_exact=True)
    # one report patient's covariates are another's: everybody else's answer keeps its bits
    who = before.index[0]
    changed_patients = patients.copy()
    changed_patients.loc[who, "age"] = "200"
    after = answers(table, changed_patients)
    assert after[who] != before[who]
    pd.testing.assert_series_equal(after.drop(who), before.drop(who), check_exact=True)


def _modules() -> list[str]:
    return [name for _, name, _ in pkgutil.iter_modules(mil.fitted.__path__, "mil.fitted.")]


def _functions(name: str) -> Iterator[FunctionType]:
    module = importlib.import_module(name)
    for member in vars(module).values():
        owners = [member, *vars(member).values()] if inspect.isclass(member) else [member]
        for each in owners:
            function = inspect.unwrap(getattr(each, "__func__", each))
            if isinstance(function, FunctionType) and function.__module__ == name:
                yield function


@pytest.mark.parametrize("name", _modules())
def test_what_is_fitted_has_no_way_to_the_report_rows(name: str) -> None:
    """No fit takes a table of all roles, and the package never names the role that it must not see."""
    for function in _functions(name):
        if function.__name__.lstrip("_") == "fit":
            given = set(inspect.signature(function).parameters)
            assert not given & {"table", "predictions", "report", "reported", "evaluation"}, function.__qualname__
            assert given & {"train", "select", "bags"}, function.__qualname__
    source = Path(inspect.getfile(importlib.import_module(name))).read_text(encoding="utf-8")
    words = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    assert "report" not in words


def test_the_package_fits_something() -> None:
    fits = [each.__qualname__ for name in _modules() for each in _functions(name) if each.__name__ == "fit"]
    assert len(fits) >= 5


def test_an_endpoints_own_fit_is_of_the_target_it_is_given() -> None:
    """Class weights, scales, bin edges: `Endpoint.fit` sees no table, only targets."""
    for endpoint, _ in CASES.values():
        given: Mapping[str, Any] = inspect.signature(endpoint.fit).parameters
        assert set(given) == {"target", "balance"}
        assert set(inspect.signature(endpoint.finish).parameters) == {"logits", "target"}
