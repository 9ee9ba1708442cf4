"""What is fitted beside a model's weights, and that what does not exist is refused before any work."""

import logging
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mil.endpoints.classification import Binary
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.several import Several
from mil.endpoints.survival import Cox
from mil.errors import ConfigError
from mil.fitted.checks import check_specification
from mil.fitted.specification import Specification
from mil.fitted.state import BagSummaries, FittedState, refit

RULE = {"rule": "sensitivity", "at_least": 0.9}
MEDIAN = {"rule": "quantiles", "cuts": [0.5]}
ENDPOINT = Binary("label", ["0", "1"])


def patients(count: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label = np.arange(count) % 2
    return pd.DataFrame(
        {
            "patient": [f"{seed}-{i:03d}" for i in range(count)],
            "label": label.astype(str),
            "p_1": rng.uniform(0.1, 0.6, count) + 0.3 * label,
            "time": rng.exponential(20, count) + 1,
            "event": "1",
            "log_hazard": rng.normal(size=count),
        }
    )


def bags(count: int, seed: int) -> BagSummaries:
    rng = np.random.default_rng(seed)
    return BagSummaries(rng.integers(50, 90, count), rng.normal(size=(count, 6)))


def fitted_state(tool: dict[str, Any], endpoint: Endpoint, select: int = 60) -> FittedState:
    summaries = {"train": bags(80, 2)} | ({"select": bags(select, 3)} if select else {})
    return FittedState.fit(
        Specification.model_validate(tool), endpoint, patients(80, 0), patients(select, 1), summaries
    )


def test_a_tool_that_asks_for_nothing_gets_nothing() -> None:
    assert fitted_state({}, ENDPOINT) == FittedState(endpoint=ENDPOINT.state())


def test_everything_asked_for_is_frozen_on_its_own_patients() -> None:
    tool = {"decision": RULE, "calibration": "platt", "conformal": {"coverage": 0.8}, "novelty": {}}
    found = fitted_state(tool, ENDPOINT)
    (decision,) = found.decisions
    assert (decision.on, decision.n, decision.positives) == ("select", 60, 30)
    assert found.calibration is not None
    assert found.calibration.method == "platt"
    assert found.conformal is not None
    assert found.conformal.coverage == 0.8
    assert found.novelty is not None
    assert found.novelty.train == 80


@pytest.mark.parametrize("select", [60, 0])
def test_a_stated_cut_is_of_the_calibration_that_is_frozen_beside_it(select: int) -> None:
    tool = {"decision": {"rule": "two_cuts", "low": 0.2, "high": 0.8}, "calibration": "platt"}
    found = fitted_state(tool, ENDPOINT, select)
    (decision,) = found.decisions
    assert (found.calibration is None) == (not select)
    assert decision.columns == (("calibrated_1",) if select else ("p_1",))


def test_what_the_patients_cannot_carry_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = fitted_state({"decision": RULE, "calibration": "isotonic"}, ENDPOINT, select=0)
    assert (found.decisions, found.calibration) == ((), None)
    assert "0 positives among 0 select patients" in found.left_out["decision 1"]
    assert "0 patients" in found.left_out["calibration"]
    assert "no decision: " in caplog.text
    assert "no calibration: " in caplog.text


def test_each_of_several_endpoints_has_a_decision_of_its_own() -> None:
    both = Several({"label": ENDPOINT, "outcome": Cox()})
    found = fitted_state({"decision": {"label": RULE, "outcome": MEDIAN}}, both)
    assert [decision.name for decision in found.decisions] == ["label 1", "outcome log_hazard"]
    assert [decision.on for decision in found.decisions] == ["select", "train"]
    assert [decision.name for decision in found.of_endpoint("outcome").decisions] == ["log_hazard"]
    assert found.risk_groups == ()


def test_survival_without_a_rule_is_grouped_at_the_training_median_and_called_by_nothing() -> None:
    found = fitted_state({}, Cox())
    (groups,) = found.risk_groups
    assert groups.cuts == (float(patients(80, 0)["log_hazard"].median()),)
    assert (groups.on, found.decisions) == ("train", ())
    assert "call" not in found.apply(patients(5, 3))
    both = fitted_state({"decision": {"label": RULE}}, Several({"label": ENDPOINT, "outcome": Cox()}))
    assert [decision.name for decision in both.risk_groups] == ["outcome log_hazard"]
    assert both.of_endpoint("outcome").risk_groups == (groups,)


def test_a_state_comes_back_from_its_json_to_the_last_bit() -> None:
    tool = {"decision": RULE, "calibration": "platt", "conformal": {"coverage": 0.8}, "novelty": {}}
    found = fitted_state(tool, ENDPOINT)
    again = FittedState.model_validate_json(found.model_dump_json())
    assert again == found
    table = patients(30, 5)
    pd.testing.assert_frame_equal(again.apply(table), found.apply(table), check_exact=True)


def test_a_refit_is_of_each_folds_own_rows() -> None:
    train, select = patients(80, 0), patients(60, 1)
    folds = [pd.concat([train.assign(role="train"), select.assign(role="select")]).assign(fold=fold) for fold in (0, 1)]
    folds[1]["p_1"] = folds[1]["p_1"] / 2
    states = refit(pd.concat(folds), ENDPOINT, Specification.model_validate({"decision": RULE}))
    alone = fitted_state({"decision": RULE}, ENDPOINT)
    assert states[0].decisions == alone.decisions
    assert states[1].decisions[0].cuts == (alone.decisions[0].cuts[0] / 2,)


@pytest.mark.parametrize(
    ("tool", "endpoint", "said"),
    [
        ({"decision": {"rule": "guess"}}, ENDPOINT, "guess"),
        ({"calibration": "magic"}, ENDPOINT, "'magic', expected one of temperature, platt, isotonic"),
        ({"calibration": "platt"}, Cox(horizons={"5y": 60}), "'platt', expected one of baseline, baseline_slope"),
        ({"calibration": "baseline"}, Cox(), "has no horizons"),
        ({"conformal": {"coverage": 2}}, ENDPOINT, "coverage"),
        ({"novelty": {"tiles": 3}}, ENDPOINT, "'tiles'"),
        ({"decision": {"other": RULE}}, Several({"label": ENDPOINT}), "expected a rule for some of label"),
    ],
    ids=["rule", "method", "method of risks", "no horizons", "coverage", "option", "part"],
)
def test_what_does_not_exist_is_refused_before_any_work(tool: dict[str, Any], endpoint: Endpoint, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_specification(Specification.model_validate(tool), endpoint)


def test_several_endpoints_have_no_calibration_together() -> None:
    with pytest.raises(ConfigError, match="several endpoints"):
        fitted_state({"calibration": "platt"}, Several({"label": ENDPOINT}))
