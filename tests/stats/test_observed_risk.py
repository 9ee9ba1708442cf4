"""Observed risks, mean times and pseudo-values against lifelines and scikit-survival, heavy ties included."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from lifelines.utils import median_survival_times, restricted_mean_survival_time
from sksurv.nonparametric import cumulative_incidence_competing_risks

from mil.stats.estimate import Estimate
from mil.stats.observed_risk import (
    incidence_at,
    median_follow_up,
    pseudo_values,
    reaches,
    restricted_mean,
    risk_at,
    survival_at,
)
from tests.estimates import holds, triple
from tests.report.followed import Floats, follow_up

few = settings(deadline=None, max_examples=30)
VALUES = st.sampled_from([2, 5, 20, 10**6])
single = st.builds(follow_up, st.integers(0, 2**32 - 1), st.integers(2, 40), VALUES)
competing = st.builds(follow_up, st.integers(0, 2**32 - 1), st.integers(4, 40), VALUES, st.just(2))
Cohort = tuple[Floats, Floats]


@few
@given(single, st.floats(0, 1))
def test_the_incidence_of_one_cause_is_one_minus_kaplan_meier(cohort: Cohort, share: float) -> None:
    time, code = cohort
    at = float(np.quantile(time, share))
    expected = 1 - KaplanMeierFitter().fit(time, code == 1).predict(at)
    assert incidence_at(time, code, at) == pytest.approx(expected, abs=1e-10)


@few
@given(competing, st.floats(0, 1))
def test_with_competing_causes_it_is_scikit_survivals(cohort: Cohort, share: float) -> None:
    time, code = cohort
    assume({1, 2} <= set(code))
    at = float(np.quantile(time, share))
    moments, expected = cumulative_incidence_competing_risks(code.astype(int), time)
    place = np.searchsorted(moments, at, side="right") - 1
    assert incidence_at(time, code, at) == pytest.approx(expected[1, place] if place >= 0 else 0.0, abs=1e-12)


@few
@given(competing, st.integers(0, 2**32 - 1))
def test_a_whole_weight_is_that_many_copies(cohort: Cohort, seed: int) -> None:
    time, code = cohort
    weight = np.random.default_rng(seed).integers(0, 3, (4, len(time))).astype(float)
    weight[:, 0] += 1
    at = float(np.median(time))
    rows = [np.repeat(np.arange(len(time)), row.astype(int)) for row in weight]
    expected = [incidence_at(time[row], code[row], at) for row in rows]
    np.testing.assert_allclose(incidence_at(time, code, at, weight), expected, atol=1e-12)


@few
@given(competing)
def test_pseudo_values_are_the_jackknifes(cohort: Cohort) -> None:
    time, code = cohort
    at, n = float(np.median(time)), len(time)
    total = incidence_at(time, code, at)
    without = [incidence_at(np.delete(time, i), np.delete(code, i), at) for i in range(n)]
    np.testing.assert_allclose(pseudo_values(time, code, at), n * total - (n - 1) * np.array(without), atol=1e-10)


def test_without_censoring_a_pseudo_value_is_whether_the_event_had_come() -> None:
    time, code = follow_up(0, 50, 20)
    np.testing.assert_allclose(pseudo_values(time, np.ones(50), 8), time <= 8, atol=1e-10)
    np.testing.assert_allclose(pseudo_values(time, code + 1, 8), (time <= 8) & (code == 0), atol=1e-10)


def test_the_interval_of_a_risk_is_that_of_lifelines() -> None:
    time, code = follow_up(1, 80, 30)
    fit = KaplanMeierFitter().fit(time, code == 1)
    result, low_high = risk_at(time, code, 12), fit.confidence_interval_.loc[12].to_numpy()
    assert [result.value, result.low, result.high] == pytest.approx([1 - fit.predict(12), *(1 - low_high[::-1])])
    assert (result.n, result.counts["events"]) == (80, int(((code == 1) & (time <= 12)).sum()))
    turned = survival_at(time, code, 12)
    assert [turned.value, turned.low, turned.high] == pytest.approx([fit.predict(12), *low_high])


def test_a_risk_beyond_follow_up_is_not_invented() -> None:
    time, code = np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 0.0])
    assert not reaches(time, code, 4)
    counts = {"n": 3, "events": 2, "at_risk": 0}
    assert risk_at(time, code, 4) == Estimate(value=None, reason="nobody is followed for 4", counts=counts)
    assert survival_at(time, code, 4) == risk_at(time, code, 4)
    assert survival_at(time, np.ones(3), 4).value == 0  # all have ended: nothing is left to know
    assert not reaches(time[:0], code[:0], 1)


def test_nobody_or_everybody_with_the_event_still_has_an_interval() -> None:
    nobody, everybody = risk_at(np.full(30, 9.0), np.zeros(30), 5), risk_at(np.full(30, 3.0), np.ones(30), 5)
    bound = 0.025 ** (1 / 30)
    assert triple(nobody) == pytest.approx((0, 0, 1 - bound))
    assert triple(everybody) == pytest.approx((1, bound, 1))


def test_the_exact_bound_of_a_risk_of_0_or_100_percent_counts_only_patients_still_at_risk() -> None:
    no_event = risk_at(np.repeat([1.0, 9.0], [10, 20]), np.zeros(30), 5)
    assert (no_event.value, no_event.low) == (0, 0)
    assert no_event.high == pytest.approx(1 - 0.025 ** (1 / 20))
    all_events = risk_at(np.repeat([1.0, 2.0, 3.0], [10, 15, 5]), np.repeat([0.0, 1.0], [10, 20]), 5)
    assert (all_events.value, all_events.high) == (1, 1)
    assert all_events.low == pytest.approx(0.025 ** (1 / 5))


@few
@given(single)
def test_the_restricted_mean_is_that_of_lifelines(cohort: Cohort) -> None:
    time, code = cohort
    until = float(time.max()) * 0.8
    fit = KaplanMeierFitter().fit(time, code == 1)
    expected = restricted_mean_survival_time(fit, t=until)
    assert restricted_mean(time, code == 1, until)[0] == pytest.approx(expected, rel=1e-10)


def test_its_variance_is_greenwoods_term_by_term_without_bias() -> None:
    time, code = follow_up(2, 60, 15)
    fit, until, expected = KaplanMeierFitter().fit(time, code == 1), 12.0, 0.0
    for moment in sorted(set(time[(code == 1) & (time < until)])):
        at_risk, deaths = np.sum(time >= moment), np.sum((time == moment) & (code == 1))
        grid = sorted({moment, until, *(t for t in time if moment < t < until)})
        area = sum(fit.predict(a) * (b - a) for a, b in pairwise(grid))
        expected += area**2 * deaths / (at_risk * (at_risk - deaths))
    events = np.sum((code == 1) & (time < until))
    expected *= events / (events - 1)
    assert restricted_mean(time, code == 1, until)[1] == pytest.approx(expected, rel=1e-12)
    uncensored, ended = np.minimum(time, until), np.sum(time < until)
    value, variance = restricted_mean(time, np.ones(60, dtype=bool), until)
    assert value == pytest.approx(uncensored.mean())
    assert variance == pytest.approx(uncensored.var() / 60 * ended / (ended - 1))


def test_the_median_follow_up_is_the_reverse_kaplan_meiers() -> None:
    time, code = follow_up(3, 90, 40)
    fit = KaplanMeierFitter().fit(time, code == 0)
    low, high = median_survival_times(fit.confidence_interval_).to_numpy()[0]
    result = median_follow_up(time, code)
    assert (result.value, result.low, result.high) == (fit.median_survival_time_, low, high)
    assert median_follow_up(time, np.ones(90)).value is None


@pytest.mark.slow
@pytest.mark.parametrize("causes", [1, 2])
def test_intervals_of_a_risk_hold_the_truth_as_often_as_they_say(causes: int) -> None:
    rng, held, runs = np.random.default_rng(0), 0, 1000
    truth = (1 - np.exp(-0.5 * causes)) / causes  # each cause has hazard 1
    for _ in range(runs):
        ends, left = rng.exponential(1 / causes, 80), rng.uniform(0, 2.5, 80)
        code = np.where(ends <= left, rng.integers(1, causes + 1, 80), 0).astype(float)
        result = risk_at(np.minimum(ends, left), code, 0.5)
        held += holds(result, truth)
    assert 0.93 <= held / runs <= 0.975


@pytest.mark.slow
def test_intervals_of_a_difference_of_mean_times_hold_the_truth_as_often_as_they_say() -> None:
    rng, held, runs = np.random.default_rng(1), 0, 1000
    truth = (1 - np.exp(-2.0)) / 2 - (1 - np.exp(-1.0))
    for _ in range(runs):
        pairs = []
        for rate in (2, 1):
            ends, left = rng.exponential(1 / rate, 60), rng.uniform(0.5, 2.5, 60)
            pairs.append(restricted_mean(np.minimum(ends, left), ends <= left, 1.0))
        difference, error = pairs[0][0] - pairs[1][0], (pairs[0][1] + pairs[1][1]) ** 0.5
        held += abs(difference - truth) <= 1.96 * error
    assert 0.93 <= held / runs <= 0.97
