"""Cuts against a search over all of them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mil.errors import ConfigError, PredictionsError
from mil.fitted.cutoffs import achieved, candidates, choose, two_cuts
from mil.fitted.guarantee import average_promise, average_rank
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
def test_sensitivity_takes_the_highest_cut_of_the_conformal_rank(cohort: Any, share: float) -> None:
    score, positive = cohort
    cut = choose(SensitivityRule(rule="sensitivity", at_least=share), score, positive)
    assert cut == np.sort(score[positive])[max(1, conformal_rank(share, positive.sum())) - 1]


@few
@given(patients(), st.sampled_from([0.3, 0.5, 0.8, 0.9, 1.0]))
def test_specificity_takes_the_lowest_cut_above_the_conformal_rank(cohort: Any, share: float) -> None:
    score, positive = cohort
    cut = choose(SpecificityRule(rule="specificity", at_least=share), score, positive)
    last_cleared = np.sort(score[~positive])[::-1][max(1, conformal_rank(share, (~positive).sum())) - 1]
    assert last_cleared < cut
    assert cut == min([*score[score > last_cleared], np.nextafter(score.max(), 2)])


def conformal_rank(share: float, patients: int) -> int:
    """The highest j with (n + 1 - j) / (n + 1) >= share, by search."""
    tenths = round(share * 100)
    return max((j for j in range(1, patients + 1) if 100 * (patients + 1 - j) >= tenths * (patients + 1)), default=0)


@pytest.mark.parametrize(("positives", "rank", "expected"), [(19, 1, 19 / 20), (20, 1, 20 / 21), (39, 2, 38 / 40)])
def test_a_sensitivity_of_95_percent_is_kept_on_average_and_needs_nineteen_positives(
    positives: int, rank: int, expected: float
) -> None:
    promise = average_promise("sensitivity", 0.95, positives)
    assert (promise.rank, promise.expected, promise.holds) == (rank, expected, True)
    assert promise.expected >= 0.95
    assert average_promise("sensitivity", 0.95, 18).shortage() == (
        "A sensitivity of 0.95 cannot be promised from 18 positives (19 are needed): the cut is set by the lowest of "
        "their scores, and 0.947 is to be expected."
    )
    assert "no number suffices" in str(average_promise("sensitivity", 1.0, 1000).shortage())


def test_shares_are_compared_as_they_are_written() -> None:
    """(9 + 1) (1 - 0.9) is 0.9999999999999998 in binary numbers, and 19 of 21 is 0.905 when printed."""
    assert [average_rank(0.9, patients) for patients in (8, 9, 18, 19)] == [0, 1, 1, 2]
    score, positive = np.arange(22) / 22, np.array([True, *[False] * 9, True, *[False] * 10, True])
    every = candidates(score, positive, "npv")
    assert f"{every.rate('npv')[21]:.3f}" == "0.905"
    assert not every.reaches("npv", 0.905)[21]
    assert every.reaches("npv", 0.904)[21]
    assert candidates(np.arange(11), np.arange(11) == 0, "npv").reaches("npv", 0.9)[10], "9 of 10 are 0.9"


@few
@given(patients())
def test_youden_takes_the_lowest_of_the_best_cuts(cohort: Any) -> None:
    score, positive = cohort
    gains = {float(cut): round(sum(rates(cut, score, positive)), 12) for cut in score}
    best = min(cut for cut, gain in gains.items() if gain == max(gains.values()))
    assert choose(YoudenRule(rule="youden"), score, positive) == best


def test_a_specificity_that_nobody_carries_clears_every_negative() -> None:
    cut = choose(SpecificityRule(rule="specificity", at_least=0.9), [0.1, 0.2, 0.8], [0, 1, 0])
    assert 0.8 < cut < 0.8 + 1e-12
    assert choose(SpecificityRule(rule="specificity", at_least=0.9), [0.1, 0.9, 0.8], [0, 1, 0]) == 0.9


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
    low = [cut for cut in score if predictive(cut, score, positive)[0] >= npv]
    high = [cut for cut in score if predictive(cut, score, positive)[1] >= ppv]
    out, into = {"npv": npv}, {"ppv": ppv}
    if sure:
        out, into = {"sensitivity": npv}, {"specificity": ppv}
        low = [choose(SensitivityRule(rule="sensitivity", at_least=npv), score, positive)]
        high = [choose(SpecificityRule(rule="specificity", at_least=ppv), score, positive)]
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
    assert float(found["sensitivity"] or 0) >= min(finds, 1 - 1 / (1 + positive.sum()))
    assert float(found["specificity"] or 0) >= min(clears, 1 - 1 / (1 + (~positive).sum()))


def test_the_best_reachable_is_named() -> None:
    with pytest.raises(PredictionsError, match=r"no cut reaches npv 0.9 on 4 select patients.* is 0.5"):
        two_cuts({"npv": 0.9}, {"ppv": 0.5}, [0.1, 0.2, 0.3, 0.4], [1, 0, 1, 1])


def test_what_cuts_achieve_is_counted_on_their_own_side() -> None:
    found = achieved([0.3, 0.6], np.array([0.1, 0.2, 0.3, 0.5, 0.6, 0.9]), np.array([0, 1, 0, 1, 0, 1], dtype=bool))
    lower = {"sensitivity, lower cut": 2 / 3, "specificity, lower cut": 1 / 3, "npv, lower cut": 0.5}
    upper = {"sensitivity, upper cut": 1 / 3, "specificity, upper cut": 2 / 3, "ppv, upper cut": 0.5}
    assert found == pytest.approx(lower | upper | {"undecided": 1 / 3})
    assert achieved([0.1], np.array([0.1, 0.2]), np.array([False, True]))["npv"] is None
