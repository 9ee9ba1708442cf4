"""Cuts against a search over all of them."""

import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mil.errors import ConfigError, PredictionsError
from mil.fitted.cutoffs import achieved, choose, two_cuts
from mil.fitted.rules import SensitivityRule, SpecificityRule, YoudenRule, parse_rule

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
    assert choose(SensitivityRule(rule="sensitivity", at_least=share), score, positive) == max(enough)


@few
@given(patients(), st.sampled_from([0.3, 0.5, 0.8, 0.9, 1.0]))
def test_specificity_takes_the_lowest_cut_that_clears_enough(cohort: Any, share: float) -> None:
    score, positive = cohort
    enough = [cut for cut in score if rates(cut, score, positive)[1] >= share]
    expected = min(enough) if enough else score.max()
    assert choose(SpecificityRule(rule="specificity", at_least=share), score, positive) == expected


@few
@given(patients())
def test_youden_takes_the_lowest_of_the_best_cuts(cohort: Any) -> None:
    score, positive = cohort
    gains = {float(cut): round(sum(rates(cut, score, positive)), 12) for cut in score}
    best = min(cut for cut, gain in gains.items() if gain == max(gains.values()))
    assert choose(YoudenRule(rule="youden"), score, positive) == best


def test_a_specificity_out_of_reach_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert choose(SpecificityRule(rule="specificity", at_least=0.9), [0.1, 0.2, 0.8], [0, 1, 0]) == 0.8
    assert "no cut has a specificity of 0.9 on 3 select patients" in caplog.text


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"rule": "best"}, "'best'"),
        ({"at_least": 0.9}, "None"),
        ({"rule": "sensitivity"}, "at_least None"),
        ({"rule": "specificity", "at_least": 0}, "at_least 0"),
        ({"rule": "sensitivity", "at_least": 95}, "at_least 95"),
        ({"rule": "sensitivity", "at_least": "0.9"}, "at_least '0.9'"),
    ],
)
def test_a_rule_that_does_not_exist_is_refused(rule: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_rule(rule)


@pytest.mark.parametrize("positive", [[0, 0], [1, 1]])
def test_both_classes_are_needed(positive: list[int]) -> None:
    with pytest.raises(PredictionsError, match="expected both classes"):
        choose(YoudenRule(rule="youden"), [0.1, 0.9], positive)


def predictive(cut: float, score: Any, positive: Any) -> tuple[float, float]:
    """NPV below a cut and PPV from it on; -1 where nobody is there."""
    below, above = ~positive[score < cut], positive[score >= cut]
    return float(below.mean()) if len(below) else -1.0, float(above.mean()) if len(above) else -1.0


@few
@given(patients(), st.sampled_from([0.6, 0.8, 0.9]), st.sampled_from([0.5, 0.7, 0.9]), st.booleans())
def test_two_cuts_decide_as_many_as_their_promises_allow(cohort: Any, npv: float, ppv: float, sure: bool) -> None:
    score, positive = cohort
    rate, names = (rates, ("sensitivity", "specificity")) if sure else (predictive, ("npv", "ppv"))
    low = [cut for cut in score if rate(cut, score, positive)[0] >= npv]
    high = [cut for cut in score if rate(cut, score, positive)[1] >= ppv]
    out, into = {names[0]: npv}, {names[1]: ppv}
    if not low or not high:
        with pytest.raises(
            PredictionsError, match=r"no cut reaches \w+ 0.\d on \d+ select patients.*best reachable is 0"
        ):
            two_cuts(out, into, score, positive)
        return
    expected = [max(low), min(high)] if max(low) < min(high) else [(max(low) + min(high)) / 2]
    assert two_cuts(out, into, score, positive) == expected


@few
@given(patients(), st.sampled_from([0.7, 0.9]), st.sampled_from([0.6, 0.9]))
def test_one_cut_in_the_middle_keeps_both_promises(cohort: Any, finds: float, clears: float) -> None:
    score, positive = cohort[0] + 10 * cohort[1], cohort[1]
    cuts = two_cuts({"sensitivity": finds}, {"specificity": clears}, score, positive)
    found = achieved(cuts, score, positive)
    assert len(cuts) == 1
    assert (found["sensitivity"], found["specificity"]) == rates(cuts[0], score, positive)
    assert float(found["sensitivity"] or 0) >= finds
    assert float(found["specificity"] or 0) >= clears


def test_the_best_reachable_is_named() -> None:
    with pytest.raises(PredictionsError, match=r"no cut reaches npv 0.9 on 4 select patients.* is 0.500"):
        two_cuts({"npv": 0.9}, {"ppv": 0.5}, [0.1, 0.2, 0.3, 0.4], [1, 0, 1, 1])


def test_what_cuts_achieve_is_counted_on_their_own_side() -> None:
    found = achieved([0.3, 0.6], np.array([0.1, 0.2, 0.3, 0.5, 0.6, 0.9]), np.array([0, 1, 0, 1, 0, 1], dtype=bool))
    expected = {"sensitivity": 2 / 3, "specificity": 2 / 3, "npv": 0.5, "ppv": 0.5, "indeterminate": 1 / 3}
    assert found == pytest.approx(expected)
    assert achieved([0.1], np.array([0.1, 0.2]), np.array([False, True]))["npv"] is None
