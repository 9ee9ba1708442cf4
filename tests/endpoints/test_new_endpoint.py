"""An endpoint defined in one file gets a full report, because nothing outside mil/endpoints knows its class.

Three endpoints are defined here and nowhere else: a count of lesions, a finding with two classes, and a time to
recurrence.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mil.endpoints.endpoint import Endpoint, Scores, numbers
from mil.endpoints.question import Question
from mil.endpoints.survival_view import SurvivalView
from mil.report.assemble import evaluate
from mil.report.page.html import html
from mil.report.report_files import read_report, write_report
from mil.report.schema import Report, section_classes
from mil.report.sections.calibration import Calibration
from mil.report.sections.discrimination import Discrimination
from mil.report.sections.groups import RiskGroups
from mil.report.sections.operating_points import OperatingPoints
from mil.report.sections.time_to_event import TimeToEvent
from mil.stats.classification_metrics import auroc
from mil.stats.survival_metrics import c_index
from mil.stats.value_metrics import mean_absolute_error, r2
from tests.report.tables import names, refitted, roles

PATIENTS = 180
FOLDS = 3


class LesionCount(Endpoint):
    """Number of lesions, by Poisson regression."""

    metric: ClassVar[str] = "r2"
    columns = ("lesions",)
    out_dim = 1
    value_column = "expected_lesions"
    unit = "lesions"

    def encode(self, table: pd.DataFrame) -> Tensor:
        """Return the counts, `(p,)`."""
        return torch.from_numpy(table["lesions"].to_numpy(np.float64).copy())

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the negative log likelihood, up to a constant."""
        return functional.poisson_nll_loss(logits.squeeze(1), target)

    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """Return R² and the mean absolute error."""
        value, true = logits.squeeze(1).exp().numpy(), target.numpy()
        return {"r2": r2(value, true, weight), "mae": mean_absolute_error(value, true, weight)}

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return the expected count."""
        return {"expected_lesions": logits.double().squeeze(1).exp()}

    def recode(self, table: pd.DataFrame) -> Tensor:
        """Return the log of the expected count."""
        return numbers(table, ["expected_lesions"]).log()


class Finding(Endpoint):
    """Malignant or benign, by a complementary log-log link."""

    metric: ClassVar[str] = "auroc"
    columns = ("finding",)
    out_dim = 1
    classes = ("benign", "malignant")
    class_columns = ("p_malignant",)

    def questions(self) -> list[Question]:
        """Return the only question."""
        return [Question("malignant", self.class_columns, self, Tensor.double, *self.classes)]

    def encode(self, table: pd.DataFrame) -> Tensor:
        """Return 1 for malignant, `(p,)`."""
        return torch.from_numpy((table["finding"] == "malignant").to_numpy(np.float64))

    def counts(self, target: Tensor) -> dict[str, int]:
        """Return the number of patients of each class."""
        malignant = int(target.sum())
        return {"n": len(target), "benign": len(target) - malignant, "malignant": malignant}

    def strata(self, target: Tensor) -> NDArray[np.int64]:
        """Return the class."""
        return target.long().numpy()

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy."""
        return functional.binary_cross_entropy(self.decode(logits)["p_malignant"], target)

    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """Return the AUROC."""
        return {"auroc": auroc(logits.squeeze(1).numpy(), target.numpy() == 1, weight)}

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return the probability of malignant."""
        return {"p_malignant": -torch.expm1(-logits.double().squeeze(1).exp())}

    def recode(self, table: pd.DataFrame) -> Tensor:
        """Return log(-log(1 - p))."""
        return torch.log(-torch.log1p(-numbers(table, ["p_malignant"])))


class Recurrence(Endpoint):
    """Time to recurrence with a constant hazard per patient."""

    metric: ClassVar[str] = "c_index"
    columns = ("months", "recurred")
    out_dim = 1
    survival = SurvivalView("months", "recurred", "months", {"2y": 24.0}, "log_rate")

    def encode(self, table: pd.DataFrame) -> Tensor:
        """Return time and event, `(p, 2)`."""
        return torch.from_numpy(table[["months", "recurred"]].to_numpy(np.float64))

    def counts(self, target: Tensor) -> dict[str, int]:
        """Return the numbers of patients and events."""
        return {"n": len(target), "events": int(target[:, 1].sum())}

    def events(self, target: Tensor) -> NDArray[np.bool_]:
        """Return a mask of patients with a recurrence."""
        return (target[:, 1] > 0).numpy()

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean negative log likelihood."""
        log_rate = logits.squeeze(1)
        return (log_rate.exp() * target[:, 0] - target[:, 1] * log_rate).mean()

    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """Return Harrell's C-index."""
        time, event = target.numpy().T
        return {"c_index": c_index(logits.squeeze(1).numpy(), time, event, weight)}

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return the log rate and the risk until two years."""
        log_rate = logits.double().squeeze(1)
        return {"log_rate": log_rate, "risk_2y": -torch.expm1(-log_rate.exp() * 24)}

    def recode(self, table: pd.DataFrame) -> Tensor:
        """Return the log rate."""
        return numbers(table, ["log_rate"])


def signals() -> NDArray[np.float64]:
    """Return the signal that the targets depend on, `(p,)`."""
    return np.random.default_rng(0).normal(size=PATIENTS)


def lesions() -> pd.DataFrame:
    """Return counts whose logarithm of the mean is linear in the signal."""
    return pd.DataFrame({"lesions": np.random.default_rng(1).poisson(np.exp(1 + 0.5 * signals()))})


def findings() -> pd.DataFrame:
    """Return classes, about 40% malignant."""
    probability = -np.expm1(-np.exp(signals() - 0.7))
    malignant = np.random.default_rng(1).random(PATIENTS) < probability
    return pd.DataFrame({"finding": np.where(malignant, "malignant", "benign")})


def recurrences() -> pd.DataFrame:
    """Return times to recurrence, followed for 1 to 5 years."""
    rng = np.random.default_rng(1)
    recurrence, end = rng.exponential(np.exp(3.5 - signals())), rng.uniform(12, 60, PATIENTS)
    return pd.DataFrame({"months": np.minimum(recurrence, end) + 0.01, "recurred": (recurrence <= end).astype(int)})


def clinic() -> pd.DataFrame:
    """Return the clinical table."""
    rng = np.random.default_rng(3)
    columns = {
        "age": rng.normal(60, 10, PATIENTS),
        "sex": rng.choice(["female", "male"], PATIENTS),
        "site": rng.choice(["Graz", "Lyon", "Oslo"], PATIENTS),
    }
    return pd.DataFrame(columns, index=names(PATIENTS))


class Case(NamedTuple):
    """An endpoint with targets, true logits and a tool."""

    endpoint: Endpoint
    targets: pd.DataFrame
    logits: NDArray[np.float64]
    tool: Mapping[str, Any]


CUT_AT_MEDIAN = {"rule": "quantiles", "cuts": [0.5]}
CASES = {
    "count": Case(
        LesionCount(), lesions(), 1 + 0.5 * signals(), {"decision": CUT_AT_MEDIAN, "conformal": {"coverage": 0.8}}
    ),
    "finding": Case(
        Finding(),
        findings(),
        signals() - 0.7,
        {
            "decision": {"rule": "sensitivity", "at_least": 0.9},
            "calibration": "platt",
            "conformal": {"coverage": 0.8},
        },
    ),
    "recurrence": Case(
        Recurrence(), recurrences(), signals() - 3.5, {"decision": CUT_AT_MEDIAN, "calibration": "baseline"}
    ),
}


def table_of(case: str, noise: float) -> pd.DataFrame:
    """Return targets and scores of three folds, each with different noise."""
    endpoint, targets, logits, _ = CASES[case]
    tables = []
    for fold, role in roles(np.random.default_rng(2), PATIENTS, FOLDS):
        noisy = logits + noise * np.random.default_rng(fold).normal(size=PATIENTS)
        scores = endpoint.decode(torch.from_numpy(noisy)[:, None])
        columns = {name: values.numpy() for name, values in scores.items()}
        tables.append(targets.assign(patient=names(PATIENTS), fold=fold, role=role, **columns))
    return pd.concat(tables, ignore_index=True)


@cache
def report_of(name: str) -> Report:
    """Return the report of a case, with every comparator."""
    endpoint, _, logits, options = CASES[name]
    table, weaker = (table_of(name, noise) for noise in (0.3, 2.0))
    oracle = pd.DataFrame({"patient": names(PATIENTS), "oracle": logits})
    comparators = {"baseline": weaker, "covariates": weaker, "oracle": oracle}
    tool = {"subgroups": ["sex"], "clinical": {"numeric": ["age"]}, **options}
    return evaluate(refitted(table, endpoint, tool, clinic(), resamples=20, comparators=comparators))


NOT_OF_A_TABLE = {"encoder_gain", "faithfulness", "federation", "instability"}
"""Sections that are made of explanations and of sites, not of a table of predictions."""


@pytest.mark.parametrize("name", CASES)
def test_new_endpoint_has_every_applicable_section(name: str) -> None:
    endpoint, report = CASES[name].endpoint, report_of(name)
    keys = {section.key for section in section_classes()} - NOT_OF_A_TABLE
    one_horizon = {"d_calibration"} if name == "recurrence" else set()  # which makes no curve
    assert set(report.sections) == keys - endpoint.sections_left_out - one_horizon
    assert report.metrics[endpoint.metric].value is not None


@pytest.mark.parametrize("name", CASES)
def test_report_of_a_new_endpoint_is_stored_and_rendered(name: str, tmp_path: Path) -> None:
    report = report_of(name)
    write_report(tmp_path / "report.json", report)
    assert read_report(tmp_path / "report.json") == report
    page = html(report, {}, "A new endpoint", "Simulated data")
    assert all(section.title in page for section in report.sections.values())


def test_lesion_count_is_reported_as_a_value() -> None:
    report = report_of("count")
    discrimination, calibration = report.section(Discrimination), report.section(Calibration)
    decisions = report.section(OperatingPoints)
    assert discrimination is not None
    assert calibration is not None
    assert decisions is not None
    assert calibration.predicted_value is not None
    assert calibration.predicted_value.unit == "lesions"
    table = table_of("count", 0.3)
    reported = table[table["role"] == "report"]
    slope = np.polyfit(reported["expected_lesions"], reported["lesions"], 1)[0]
    assert calibration.predicted_value.slope.value == pytest.approx(slope)
    assert set(discrimination.metrics) == {"r2", "mae"}
    assert [decision.name for decision in decisions.decisions] == ["expected_lesions"]


def test_finding_is_reported_as_binary_classification() -> None:
    report = report_of("finding")
    discrimination = report.section(Discrimination)
    assert discrimination is not None
    (question,) = discrimination.questions
    assert (question.name, question.n) == ("malignant", PATIENTS)
    assert question.auroc.value == pytest.approx(report.metrics["auroc"].value)
    assert discrimination.called == "likeliest class"
    assert discrimination.confusion is None


def test_recurrence_is_reported_as_time_to_event() -> None:
    report = report_of("recurrence")
    survival, groups = report.section(TimeToEvent), report.section(RiskGroups)
    assert survival is not None
    assert groups is not None
    assert survival.unit == "months"
    assert [horizon.horizon for horizon in survival.calibration] == ["2y"]
    assert [group.name for group in groups.groups] == ["low", "high"]
