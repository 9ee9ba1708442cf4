"""Cuts against a search over all of them; Wilson's interval against scipy."""

import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest

from mil.errors import ConfigError, PredictionsError
from mil.evaluation.thresholds import choose, wilson

few = settings(deadline=None, max_examples=60)


@st.composite
def patients(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores with ties, and labels of both classes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(2, 40))
    positive = np.append([True, False], rng.random(count - 2) < 0.4)
    return rng.integers(0, 12, count) / 12 + positive / 4, positive


def rates(cut: float, score: Any, positive: Any) -> tuple[float, float]:
    called = score >= cut
    return float((called & positive).sum() / positive.sum()), float((~called & ~positive).sum() / (~positive).sum())


@few
@given(patients(), st.sampled_from([0.5, 0.8, 0.9, 0.95, 1.0]))
def test_sensitivity_takes_the_highest_cut_that_finds_enough(cohort: Any, share: float) -> None:
    score, positive = cohort
    enough = [cut for cut in score if rates(cut, score, positive)[0] >= share]
    assert choose({"rule": "sensitivity", "at_least": share}, score, positive) == max(enough)


@few
@given(patients(), st.sampled_from([0.3, 0.5, 0.8, 0.9, 1.0]))
def test_specificity_takes_the_lowest_cut_that_clears_enough(cohort: Any, share: float) -> None:
    score, positive = cohort
    enough = [cut for cut in score if rates(cut, score, positive)[1] >= share]
    expected = min(enough) if enough else score.max()
    assert choose({"rule": "specificity", "at_least": share}, score, positive) == expected


@few
@given(patients())
def test_youden_takes_the_lowest_of_the_best_cuts(cohort: Any) -> None:
    score, positive = cohort
    gains = {float(cut): round(sum(rates(cut, score, positive)), 12) for cut in score}
    best = min(cut for cut, gain in gains.items() if gain == max(gains.values()))
    assert choose({"rule": "youden"}, score, positive) == best


def test_a_specificity_out_of_reach_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert choose({"rule": "specificity", "at_least": 0.9}, [0.1, 0.2, 0.8], [0, 1, 0]) == 0.8
    assert "no cut has a specificity of 0.9 on 3 select patients" in caplog.text


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"rule": "best"}, "'best'"),
        ({}, "None"),
        ({"rule": "sensitivity"}, "at_least None"),
        ({"rule": "specificity", "at_least": 0}, "at_least 0"),
        ({"rule": "sensitivity", "at_least": 95}, "at_least 95"),
        ({"rule": "sensitivity", "at_least": "0.9"}, "at_least '0.9'"),
    ],
)
def test_a_rule_that_does_not_exist_is_refused(rule: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        choose(rule, [0.1, 0.9], [0, 1])


@pytest.mark.parametrize("positive", [[0, 0], [1, 1]])
def test_both_classes_are_needed(positive: list[int]) -> None:
    with pytest.raises(PredictionsError, match="expected both classes"):
        choose({"rule": "youden"}, [0.1, 0.9], positive)


@few
@given(st.integers(1, 300), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys(n: int, share: float, level: float) -> None:
    successes = round(share * n)
    expected = binomtest(successes, n).proportion_ci(level, method="wilson")
    assert wilson(successes, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_nobody_has_no_proportion() -> None:
    assert np.isnan(wilson(0, 0)).all()
