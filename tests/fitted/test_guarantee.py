"""What k known positives promise: the numbers of order statistics, and a simulation of what they cover."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from mil.errors import ConfigError, PredictionsError
from mil.fitted.guarantee import Guarantee, cut_from_positives, needed

few = settings(deadline=None, max_examples=40)


def test_thirty_positives_promise_what_the_issue_says() -> None:
    scores = np.random.default_rng(0).random(30)
    found = cut_from_positives(scores, sensitivity=0.9)
    assert (found.cut, found.rank, found.positives) == (scores.min(), 1, 30)
    assert (round(found.expected, 3), round(found.lower, 3)) == (0.968, 0.905)
    assert "at least 0.904" in found.sentence(), "0.90497 is printed so that it may be asked for"
    assert cut_from_positives(scores, sensitivity=0.904).rank == 1
    with pytest.raises(PredictionsError, match=r"30 carry 0\.904 .* not a sensitivity of 0\.905"):
        cut_from_positives(scores, sensitivity=0.905)


def test_fifty_nine_positives_are_needed_for_95_percent() -> None:
    assert needed(0.95, 0.95) == 59
    with pytest.raises(PredictionsError) as refused:
        cut_from_positives(np.arange(58.0))
    assert str(refused.value) == (
        "known positives: 58 carry 0.949 (expected sensitivity 0.983) "
        "and not a sensitivity of 0.95 with 95% confidence, expected 59 or more"
    )
    with pytest.raises(PredictionsError, match=r"30 carry 0\.904 \(expected sensitivity 0\.967\)"):
        cut_from_positives(np.arange(30.0))
    assert cut_from_positives(np.arange(59.0)).rank == 1


@few
@given(st.floats(0.5, 0.99), st.floats(0.5, 0.99))
def test_what_is_needed_suffices_and_one_fewer_does_not(sensitivity: float, confidence: float) -> None:
    fewest = needed(sensitivity, confidence)
    assert sensitivity**fewest <= (1 - confidence) * (1 + 1e-9)
    assert fewest == 1 or sensitivity ** (fewest - 1) > 1 - confidence


@few
@given(st.integers(30, 400), st.sampled_from([0.8, 0.9, 0.95]), st.sampled_from([0.8, 0.95]))
def test_the_cut_is_the_highest_that_carries_the_promise(k: int, sensitivity: float, confidence: float) -> None:
    if k < needed(sensitivity, confidence):
        with pytest.raises(PredictionsError, match="or more"):
            cut_from_positives(np.arange(k), sensitivity, confidence)
        return
    found = cut_from_positives(np.arange(k)[::-1], sensitivity, confidence)
    # naive: the promise of rank j breaks when fewer than j of k lie among the lowest 1 - sensitivity
    carries = [j for j in range(1, k + 1) if binom.cdf(j - 1, k, 1 - sensitivity) <= 1 - confidence]
    assert found.rank == max(carries)
    assert found.cut == found.rank - 1
    assert found.lower == pytest.approx(beta.ppf(1 - confidence, k + 1 - found.rank, found.rank))
    assert found.lower >= sensitivity - 1e-12


def test_the_promise_is_said_in_words() -> None:
    said = cut_from_positives(np.arange(100.0), 0.95).sentence()
    assert said.startswith("With the cut at 1, the 2nd lowest score of 100 known positives, a sensitivity of 0.980 is")
    assert "with 95% confidence it is at least 0.953" in said


def test_what_cannot_be_a_promise_is_refused() -> None:
    with pytest.raises(ConfigError, match="sensitivity: 1, expected"):
        needed(1, 0.95)
    with pytest.raises(ConfigError, match="confidence: 95"):
        cut_from_positives([0.5], 0.9, 95)
    with pytest.raises(PredictionsError, match="1 of 3 scores are not finite"):
        cut_from_positives([0.5, float("nan"), 0.1], 0.5, 0.5)
    with pytest.raises(PredictionsError, match="known positives: none, to promise"):
        cut_from_positives([])


def test_a_guarantee_survives_json() -> None:
    found = cut_from_positives(np.random.default_rng(1).random(64))
    assert Guarantee.model_validate_json(found.model_dump_json()) == found


@pytest.mark.slow
@pytest.mark.parametrize(("k", "sensitivity"), [(59, 0.95), (100, 0.95), (30, 0.9)])
def test_the_promise_holds_as_often_as_it_says(k: int, sensitivity: float) -> None:
    rng = np.random.default_rng(2)
    reached = []
    for _ in range(2000):
        found = cut_from_positives(rng.random(k), sensitivity)
        reached.append(1 - found.cut)  # of uniform scores, the share above the cut
    assert np.mean(np.array(reached) >= sensitivity) >= 0.935
    assert np.mean(reached) == pytest.approx(found.expected, abs=0.003)
