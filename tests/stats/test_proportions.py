"""Intervals of counts against scipy, naive formulas, and simulation of what they cover."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from mil.stats.proportions import clopper_pearson, likelihood_ratio, predictive_value, proportion, wilson
from tests.estimates import ends, triple

few = settings(deadline=None, max_examples=60)


@few
@given(st.integers(1, 300), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_intervals_of_a_proportion_are_scipys(n: int, share: float, level: float) -> None:
    successes = round(share * n)
    for ours, method in ((wilson, "wilson"), (clopper_pearson, "exact")):
        expected = binomtest(successes, n).proportion_ci(level, method=method)
        assert ours(successes, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_nobody_has_no_proportion() -> None:
    assert np.isnan(wilson(0, 0)).all()
    assert np.isnan(clopper_pearson(0, 0)).all()
    assert proportion(0, 0).value is None
    assert proportion(0, 0).reason


def test_a_proportion_has_both_intervals_and_its_counts() -> None:
    result = proportion(28, 30)
    assert (result.value, result.counts, result.method) == (28 / 30, {"n": 30, "successes": 28}, "Wilson")
    assert (result.low, result.high) == wilson(28, 30)
    assert result.second is not None
    assert (result.second.low, result.second.high) == clopper_pearson(28, 30)
    assert [round(bound, 2) for bound in clopper_pearson(28, 30)] == [0.78, 0.99]  # Clopper and Pearson's chart


def test_likelihood_ratios_are_those_of_simel_and_others() -> None:
    value, low, high = triple(likelihood_ratio(40, 50, 30, 150))
    spread = math.sqrt(1 / 40 - 1 / 50 + 1 / 30 - 1 / 150)
    assert value == pytest.approx(4)
    assert (low, high) == pytest.approx((4 * math.exp(-1.959964 * spread), 4 * math.exp(1.959964 * spread)), rel=1e-6)


def test_likelihood_ratios_at_the_edge_have_the_bounds_that_exist() -> None:
    infinite = likelihood_ratio(10, 20, 0, 30)
    assert (infinite.value, infinite.high, infinite.reason) == (None, None, "no negative has the call")
    assert infinite.low is not None
    assert 1 < infinite.low < math.inf
    value, low, high = triple(likelihood_ratio(0, 50, 20, 30))
    assert (value, low) == (0, 0)
    assert 0 < high < 1
    _, low, high = triple(likelihood_ratio(20, 20, 30, 30))
    assert low < 1 < high
    for counts in ((0, 20, 0, 30), (0, 0, 5, 30), (5, 20, 0, 0)):
        absent = likelihood_ratio(*counts)
        assert (absent.value, absent.low, absent.high) == (None, None, None)
        assert absent.reason == "a class is absent or nobody has the call"


@few
@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 0.99))
def test_predictive_values_follow_bayes_and_lie_in_their_interval(
    right: int, wrong: int, some: float, others: float, prevalence: float
) -> None:
    first, second = round(some * right), round(others * wrong)
    result = predictive_value(first, right, second, wrong, prevalence)
    if first + second == 0:
        assert result.value is None
        return
    value, low, high = triple(result)
    yes, no = prevalence * first / right, (1 - prevalence) * second / wrong
    assert value == pytest.approx(yes / (yes + no))
    assert 0 <= low <= value <= high <= 1


def test_at_the_samples_own_prevalence_predictive_values_are_the_observed_ones() -> None:
    assert predictive_value(40, 50, 30, 150, 0.25).value == pytest.approx(40 / 70)
    assert predictive_value(120, 150, 10, 50, 0.75).value == pytest.approx(120 / 130)


@pytest.mark.slow
@pytest.mark.parametrize(("sensitivity", "false"), [(0.9, 0.4), (0.95, 0.1), (0.98, 0.6)])
@pytest.mark.parametrize("positives", [30, 100])
def test_the_intervals_cover_what_they_say(sensitivity: float, false: float, positives: int) -> None:
    rng, negatives = np.random.default_rng(0), 5 * positives
    ratios = {"positive": sensitivity / false, "negative": (1 - sensitivity) / (1 - false)}
    true = {"wilson": sensitivity, "exact": sensitivity, **ratios}
    true |= {"ppv": 1 / (1 + 9 / ratios["positive"]), "npv": 1 / (1 + ratios["negative"] / 9)}

    def held(hit: int, alarm: int) -> list[bool]:
        missed, cleared = positives - hit, negatives - alarm
        bounds = {
            "wilson": wilson(hit, positives),
            "exact": clopper_pearson(hit, positives),
            "positive": ends(likelihood_ratio(hit, positives, alarm, negatives)),
            "negative": ends(likelihood_ratio(missed, positives, cleared, negatives)),
            "ppv": ends(predictive_value(hit, positives, alarm, negatives, 0.1)),
            "npv": ends(predictive_value(cleared, negatives, missed, positives, 0.9)),
        }
        return [low <= true[name] <= high for name, (low, high) in bounds.items()]

    samples = np.stack([rng.binomial(positives, sensitivity, 5000), rng.binomial(negatives, false, 5000)])
    pairs, often = np.unique(samples, axis=1, return_counts=True)
    shares = np.average([held(int(hit), int(alarm)) for hit, alarm in pairs.T], axis=0, weights=often)
    covered = dict(zip(true, shares.tolist(), strict=True))
    assert min(covered.values()) > 0.93, covered
    assert covered["exact"] > 0.95
