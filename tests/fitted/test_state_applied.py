"""Whatever was fitted with a model is said of every patient, and whoever is not like its patients gets no result."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from mil.endpoints.classification import Binary
from mil.errors import CheckpointError
from mil.fitted import calibrators, conformal, decision_rules, novelty
from mil.fitted.options import ConformalOptions, NoveltyOptions
from mil.fitted.rules import parse_rule
from mil.fitted.state import FittedState
from mil.fitted.withholding import RowBags

ENDPOINT = Binary("label", ("MSS", "MSI-H"))


def scored(seed: int, patients: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    positive = rng.random(patients) < 0.4
    score = 1 / (1 + np.exp(-rng.normal(size=patients) - np.where(positive, 1.5, -1.5)))
    names = [f"{at:03}" for at in range(patients)]
    known = {"patient": names, "label": np.where(positive, "MSI-H", "MSS"), "tiles": 200.0, "p_MSI-H": score}
    return pd.DataFrame(known)


@pytest.fixture(scope="module")
def fitted() -> FittedState:
    select, train = scored(0, 120), scored(1, 120)
    limits = conformal.fit(ConformalOptions(coverage=0.9), ENDPOINT, select)
    assert limits is not None
    means = np.random.default_rng(0).normal(size=(160, 10))
    return FittedState(
        calibration=calibrators.fit("platt", ENDPOINT, select),
        decisions=tuple(
            decision_rules.fit(parse_rule({"rule": "sensitivity", "at_least": 0.9}), ENDPOINT, train, select)
        ),
        conformal=limits,
        novelty=novelty.fit(NoveltyOptions(min_tiles=50), np.full(80, 200), means[:80], means[80:]),
    )


def seen(*tiles: int, row: tuple[int, ...] | None = None, shift: float = 0.0) -> RowBags:
    amount = len(tiles)
    means = np.zeros((amount, 10)) + np.linspace(-0.1, 0.1, 10) + shift
    return RowBags(np.array(row or range(amount)), [f"S{at}" for at in range(amount)], np.array(tiles), means)


def test_nothing_fitted_adds_nothing() -> None:
    table = scored(2, 5)
    assert FittedState().apply(table, seen(*[200] * 5)).equals(table)


def test_every_fitted_part_adds_its_columns_and_changes_no_score(fitted: FittedState) -> None:
    table = scored(2, 3).drop(columns="label")
    found = fitted.apply(table, seen(200, 200, 200))
    assert list(found) == [*table, "calibrated_MSI-H", "call", "set", "withheld"]
    assert found["p_MSI-H"].equals(table["p_MSI-H"])
    assert set(found["call"]) <= {"MSS", "MSI-H"}
    assert found["withheld"].tolist() == [""] * 3
    assert list(fitted.apply(table)) == list(found)[:-1], "without bags nobody can be judged"


def test_a_stated_cut_is_made_on_the_calibrated_probability(fitted: FittedState) -> None:
    platt = calibrators.fit("platt", ENDPOINT, scored(0, 120))
    rule = {"rule": "two_cuts", "low": 0.2, "high": 0.6}
    [decision] = decision_rules.fit(parse_rule(rule), ENDPOINT, scored(1, 120), scored(0, 120), platt)
    found = FittedState(calibration=platt, decisions=(decision,)).apply(scored(2, 200))
    names = np.array(["MSS", "indeterminate", "MSI-H"])
    assert (found["call"] == names[np.digitize(found["calibrated_MSI-H"], [0.2, 0.6])]).all()
    assert (found["call"] != names[np.digitize(found["p_MSI-H"], [0.2, 0.6])]).any()


def test_whoever_is_withheld_keeps_no_number_and_no_call(fitted: FittedState) -> None:
    table = scored(2, 3).drop(columns="label")
    found = fitted.apply(table, seen(200, 49, 200))
    assert found["withheld"].tolist() == ["", "It has 49 tiles, and the tool needs 50 or more.", ""]
    assert found[["p_MSI-H", "calibrated_MSI-H"]].isna().all(axis=1).tolist() == [False, True, False]
    assert (found["call"][1], found["set"][1]) == ("", "")
    others = fitted.apply(table, seen(200, 200, 200))
    assert found.loc[[0, 2]].equals(others.loc[[0, 2]])


def test_features_far_away_withhold(fitted: FittedState) -> None:
    found = fitted.apply(scored(2, 2), seen(200, 200, shift=30.0))
    assert found["withheld"].str.contains("too far").all()


def test_one_of_a_patients_bags_withholds_and_is_named(fitted: FittedState) -> None:
    found = fitted.apply(scored(2, 2), seen(200, 200, 3, row=(0, 1, 1)))
    assert found["withheld"].tolist() == ["", "S2: It has 3 tiles, and the tool needs 50 or more."]


@pytest.mark.parametrize(
    ("key", "state"),
    [("calibration", {"curves": 3}), ("decisions", [{}]), ("conformal", {"coverage": 0.9}), ("novelty", {"train": 1})],
)
def test_states_of_another_form_are_refused(key: str, state: object) -> None:
    with pytest.raises(ValidationError, match=key):
        FittedState.model_validate({key: state})


def test_features_of_another_width_are_refused(fitted: FittedState) -> None:
    wide = seen(200)._replace(means=np.random.default_rng(0).normal(size=(1, 12)))
    with pytest.raises(CheckpointError, match=r"^novelty: mean features of width 12, expected 10$"):
        fitted.apply(scored(0, 1), wide)
