"""What each endpoint declares about its predictions; thresholds, calibration and the report rely on it."""

import numpy as np
import pandas as pd
import pytest
import torch

from mil.endpoints.aft import LogNormal, Weibull
from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.competing_risks import CompetingRisks
from mil.endpoints.cox import BaselineHazard
from mil.endpoints.discrete_time import DiscreteTime
from mil.endpoints.endpoint import PROBABILITY_CALIBRATIONS, RISK_CALIBRATIONS, Endpoint
from mil.endpoints.multilabel import Multilabel
from mil.endpoints.ordinal import Ordinal
from mil.endpoints.regression import Regression
from mil.endpoints.several import Several
from mil.endpoints.survival import Cox
from mil.stats.survival_metrics import c_index, competing_c_index
from tests.endpoints.patients import follow_up_targets

GRADES = ("low", "middle", "high")
HORIZONS = {"5y": 60.0, "1y": 12.0}
BINARY = Binary("MSI", ["MSS", "MSI-H"])
MULTICLASS = Multiclass("type", ["a", "b", "c"])
ORDINAL = Ordinal("grade", GRADES)
MULTILABEL = Multilabel(["ER", "PR"], ["neg", "pos"])
REGRESSION = Regression("score", unit="cm")
COX = Cox(horizons=HORIZONS)
COMPETING = CompetingRisks(causes=["relapse", "death"], horizons=HORIZONS)
SEVERAL = Several({"msi": Binary("MSI", ["MSS", "MSI-H"]), "outcome": Cox(), "score": Regression("score")})


@pytest.mark.parametrize("endpoint", [BINARY, MULTICLASS, ORDINAL])
def test_every_class_has_a_probability_and_an_index(endpoint: Endpoint) -> None:
    logits = torch.randn(6, endpoint.out_dim, generator=torch.Generator().manual_seed(0))
    table = pd.DataFrame({name: column.numpy() for name, column in endpoint.decode(logits).items()})
    table[endpoint.columns[0]] = [endpoint.classes[row % len(endpoint.classes)] for row in range(6)]
    probabilities = endpoint.class_probabilities(table)
    assert probabilities.shape == (6, len(endpoint.classes))
    assert probabilities.sum(1) == pytest.approx(1)
    assert probabilities[:, -1] == pytest.approx(table[endpoint.class_columns[-1]])
    labels = [row % len(endpoint.classes) for row in range(6)]
    assert endpoint.labels(table).tolist() == endpoint.encode(table).long().tolist() == labels
    assert endpoint.resampling_strata(endpoint.encode(table)) is not None


def test_binary_has_one_probability_column_multiclass_one_per_class() -> None:
    assert BINARY.class_columns == ("p_MSI-H",)
    assert MULTICLASS.class_columns == ("p_a", "p_b", "p_c")
    assert [endpoint.class_columns for endpoint in (MULTILABEL, REGRESSION, COX, SEVERAL)] == [()] * 4
    assert [endpoint.classes for endpoint in (MULTILABEL, REGRESSION, COX, SEVERAL)] == [()] * 4
    assert MULTILABEL.label_columns == ("ER", "PR")
    assert BINARY.label_columns == MULTICLASS.label_columns == ()


def test_likeliest_class_or_median_grade_is_called() -> None:
    probabilities = np.array([[0.4, 0.25, 0.35], [0.6, 0.3, 0.1], [0.1, 0.3, 0.6]])
    assert (MULTICLASS.called_by, ORDINAL.called_by) == ("likeliest class", "median grade")
    assert MULTICLASS.call_classes(probabilities).tolist() == [0, 0, 2]
    assert ORDINAL.call_classes(probabilities).tolist() == [1, 0, 2]
    assert BINARY.called_by == "probability above 0.5"
    assert BINARY.call_classes(np.array([[0.5, 0.5], [0.49, 0.51]])).tolist() == [0, 1]
    assert [endpoint.ordered for endpoint in (BINARY, MULTICLASS, ORDINAL)] == [False, False, True]


def test_questions_name_both_answers() -> None:
    def answers(endpoint: Endpoint) -> list[tuple[str, str]]:
        return [(question.negative, question.positive) for question in endpoint.questions()]

    assert answers(BINARY) == [("MSS", "MSI-H")]
    assert answers(MULTICLASS) == [("not a", "a"), ("not b", "b"), ("not c", "c")]
    assert answers(ORDINAL) == [("< middle", ">= middle"), ("< high", ">= high")]
    assert answers(MULTILABEL) == [("neg", "pos"), ("neg", "pos")]
    joint = ORDINAL.joint_question(["high", "middle"])
    assert (joint.name, joint.negative, joint.positive) == ("middle or high", "low", "middle or high")


def test_regression_declares_value_columns_and_unit() -> None:
    assert (REGRESSION.value_column, REGRESSION.unit, REGRESSION.group_score) == ("value", "cm", "value")
    assert (REGRESSION.spread_column, REGRESSION.quantile_columns) == (None, {})
    assert Regression(loss="gaussian").spread_column == "value_sd"
    quantiles = Regression(loss="quantile", quantiles=[0.1, 0.5, 0.95]).quantile_columns
    assert list(quantiles.items()) == [(0.1, "value_q10"), (0.5, "value"), (0.95, "value_q95")]
    assert all(endpoint.value_column is None for endpoint in (BINARY, ORDINAL, MULTILABEL, COX, SEVERAL))


@pytest.mark.parametrize("endpoint", [COX, Weibull(horizons=HORIZONS), LogNormal(), DiscreteTime(), COMPETING])
def test_survival_view_declares_columns_unit_and_calibration(endpoint: Endpoint) -> None:
    view = endpoint.survival
    assert view is not None
    assert (view.time_column, view.event_column, view.unit) == (*endpoint.columns, "months")
    assert view.rank_column in endpoint.decode(torch.zeros(1, endpoint.out_dim))
    assert endpoint.group_score == view.rank_column
    assert endpoint.calibration_methods == (RISK_CALIBRATIONS if view.horizons else ())
    target = follow_up_targets(causes=2)
    assert view.event_times(target).dtype == torch.float64
    assert endpoint.events(target) is not None
    assert view.baseline is None


def test_competing_events_count_as_events_censoring_does_not() -> None:
    target = torch.tensor([[1.0, 0], [2, 1], [3, 2]])
    events = COMPETING.events(target)
    assert events is not None
    assert events.tolist() == [False, True, True]
    assert BINARY.events(torch.zeros(3)) is None


def test_one_risk_column_per_cause_and_horizon_in_time_order() -> None:
    view = COX.survival
    assert view.causes == ()
    assert view.risk_column("5y") == "risk_5y"
    assert view.risk_columns() == {"1y": "risk_1y", "5y": "risk_5y"}
    assert view.all_risk_columns() == [["risk_1y", "risk_5y"]]
    competing = COMPETING.survival
    assert competing.causes == ("relapse", "death")
    assert competing.risk_column("5y") == competing.risk_column("5y", "relapse") == "risk_relapse_5y"
    assert competing.all_risk_columns() == [["risk_relapse_1y", "risk_relapse_5y"], ["risk_death_1y", "risk_death_5y"]]
    with pytest.raises(ValueError, match="horizon '2y', expected one of 5y, 1y"):
        view.risk_column("2y")
    with pytest.raises(ValueError, match=r"cause 'relapse', expected one of \(none\)"):
        view.risk_column("5y", "relapse")


def test_competing_concordance_keeps_other_events_at_risk() -> None:
    time, code = follow_up_targets(causes=2).numpy().T
    risk = np.random.default_rng(0).random(len(time))
    assert COX.survival.concordance(risk, time, code) == c_index(risk, time, code)
    assert COMPETING.survival.concordance(risk, time, code) == competing_c_index(risk, time, code)
    assert COX.survival.concordance(risk, time, code) != COMPETING.survival.concordance(risk, time, code)


def test_baseline_hazard_belongs_to_log_hazard_zero() -> None:
    cox = Cox()
    cox.baseline = BaselineHazard([12.0, 36.0], [0.2, 0.6])
    baseline = cox.survival.baseline
    assert baseline is not None
    assert [baseline.at(time) for time in (6.0, 12.0, 40.0)] == pytest.approx([0, 0.2, 0.6])
    survival = cox.curve(torch.zeros(1, 1), [6.0, 12.0, 40.0])
    assert survival[0].tolist() == pytest.approx(np.exp([0, -0.2, -0.6]))


def test_several_names_its_endpoints_and_splits_targets() -> None:
    assert list(SEVERAL.parts()) == ["msi", "outcome", "score"]
    assert BINARY.parts() == {}
    table = pd.DataFrame(
        {"MSI": ["MSS", "", "MSI-H"], "time": [3, 5, ""], "event": [1, 0, ""], "score": [0.5, 1, 2]}, dtype=object
    )
    target = SEVERAL.encode(table)
    masks = {part.name: part.mask.tolist() for part in SEVERAL.part_targets(target)}
    assert masks == {"msi": [True, False, True], "outcome": [True, True, False], "score": [True, True, True]}
    events = SEVERAL.events(target)
    assert events is not None
    assert events.tolist() == [True, False, False]
    assert SEVERAL.survival is None
    assert list(BINARY.part_targets(torch.zeros(3))) == []


@pytest.mark.parametrize(
    ("endpoint", "methods"),
    [
        (MULTICLASS, PROBABILITY_CALIBRATIONS),
        (MULTILABEL, PROBABILITY_CALIBRATIONS),
        (COX, RISK_CALIBRATIONS),
        (REGRESSION, ()),
        (Cox(), ()),
        (SEVERAL, ()),
    ],
)
def test_probabilities_and_risks_can_be_calibrated_values_cannot(endpoint: Endpoint, methods: tuple[str, ...]) -> None:
    assert endpoint.calibration_methods == methods


EVERY = {"survival", "groups", "d_calibration", "utility", "added_value", "discrimination", "calibration", "conformal"}
TIMES = {"survival", "groups", "d_calibration", "site_synthesis"}
COMMON = {"operating_points", "subgroups", "site", "baseline", "covariates", "oracle"}
PROBABILITIES = COMMON | {"discrimination", "calibration", "utility", "conformal", "site_synthesis"}


@pytest.mark.parametrize(
    ("endpoint", "sections"),
    [
        (BINARY, PROBABILITIES | {"added_value"}),
        (MULTICLASS, PROBABILITIES),
        (MULTILABEL, PROBABILITIES),
        (REGRESSION, COMMON | {"discrimination", "calibration", "conformal"}),
        (COX, COMMON | TIMES | {"utility", "added_value"}),
        (Cox(), COMMON | TIMES | {"added_value"}),
        (SEVERAL, {"baseline", "covariates", "oracle"}),
    ],
)
def test_sections_left_out_depend_on_the_endpoint(endpoint: Endpoint, sections: set[str]) -> None:
    assert endpoint.sections_left_out == (EVERY | TIMES | COMMON) - sections


def test_prediction_columns_include_risks_before_fitting() -> None:
    assert COX.prediction_columns == {"log_hazard", "risk_1y", "risk_5y"}
    assert COMPETING.prediction_columns == {"risk"} | {
        f"risk_{cause}_{horizon}" for cause in ("relapse", "death") for horizon in ("1y", "5y")
    }


def test_event_of_any_endpoint_counts_for_the_patient() -> None:
    columns = {"os": [3, 5, 7, 9], "dead": [1, 0, 0, 1], "pfs": [2, 4, 6, 8], "relapsed": [0, 1, 0, 1]}
    several = Several({"death": Cox("os", "dead"), "relapse": DiscreteTime("pfs", "relapsed")})
    events = several.events(several.encode(pd.DataFrame(columns, dtype=object)))
    assert events is not None
    assert events.tolist() == [True, True, False, True]
