"""What is frozen beside a model's weights, and that what does not exist is refused before any work."""

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
from mil.fitted import fitting
from mil.fitted.decision_rules import Decision
from mil.fitted.fitting import Shown

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


def bags(count: int, seed: int) -> Shown:
    rng = np.random.default_rng(seed)
    return Shown(rng.integers(50, 90, count), rng.normal(size=(count, 6)))


def frozen(tool: dict[str, Any], endpoint: Endpoint, select: int = 60) -> fitting.State:
    shown = {"train": bags(80, 2)} | ({"select": bags(select, 3)} if select else {})
    return fitting.fit(tool, endpoint, patients(80, 0), patients(select, 1), shown)


def test_a_tool_that_asks_for_nothing_gets_nothing() -> None:
    assert frozen({}, ENDPOINT) == {"decisions": [], "calibration": None, "conformal": None, "novelty": None}


def test_everything_asked_for_is_frozen_on_its_own_patients() -> None:
    tool = {"decision": RULE, "calibration": "platt", "conformal": {"coverage": 0.8}, "novelty": {}}
    found = frozen(tool, ENDPOINT)
    (decision,) = (Decision.from_state(one) for one in found["decisions"])
    assert (decision.on, decision.n, decision.positives) == ("select", 60, 30)
    assert found["calibration"]["method"] == "platt"
    assert found["conformal"]["coverage"] == 0.8
    assert found["novelty"]["train"] == 80


@pytest.mark.parametrize("select", [60, 0])
def test_a_stated_cut_is_of_the_calibration_that_is_frozen_beside_it(select: int) -> None:
    tool = {"decision": {"rule": "two_cuts", "low": 0.2, "high": 0.8}, "calibration": "platt"}
    found = frozen(tool, ENDPOINT, select)
    (decision,) = (Decision.from_state(one) for one in found["decisions"])
    assert (found["calibration"] is None) == (not select)
    assert decision.columns == (("calibrated_1",) if select else ("p_1",))


def test_what_the_patients_cannot_carry_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = frozen({"decision": RULE, "calibration": "isotonic"}, ENDPOINT, select=0)
    assert (found["decisions"], found["calibration"]) == ([], None)
    assert "no decision: " in caplog.text
    assert "no calibration: " in caplog.text


def test_each_of_several_endpoints_has_a_decision_of_its_own() -> None:
    both = Several({"label": ENDPOINT, "outcome": Cox()})
    found = frozen({"decision": {"label": RULE, "outcome": MEDIAN}}, both)
    assert [one["name"] for one in found["decisions"]] == ["label 1", "outcome log_hazard"]
    assert [one["on"] for one in found["decisions"]] == ["select", "train"]


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
        fitting.check(tool, endpoint)


def test_several_endpoints_have_no_calibration_together() -> None:
    with pytest.raises(ConfigError, match="several endpoints"):
        frozen({"calibration": "platt"}, Several({"label": ENDPOINT}))
