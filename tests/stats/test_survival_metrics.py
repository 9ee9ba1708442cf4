"""Harrell's C against lifelines, scikit-survival and a loop over pairs."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lifelines.utils import concordance_index
from numpy.typing import NDArray
from sksurv.metrics import concordance_index_censored
from sksurv.nonparametric import cumulative_incidence_competing_risks

from mil.stats import c_index, survival_metrics
from mil.stats.survival_metrics import aalen_johansen, competing_c_index

few = settings(deadline=None, max_examples=60)
Cohort = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]


def simulated(seed: int, patients: int, values: int) -> Cohort:
    """Risk, time and event; the fewer values, the more ties in risks and in times of events and censorings."""
    rng = np.random.default_rng(seed)
    return (
        rng.integers(0, values, patients) / 4,
        rng.integers(1, values + 1, patients).astype(float),
        rng.random(patients) < 0.6,
    )


cohorts = st.builds(simulated, st.integers(0, 2**32 - 1), st.integers(2, 40), st.sampled_from([2, 4, 12, 10**6]))


def pairs(risk: Any, time: Any, event: Any) -> float:
    """The definition: 1, 1/2 or 0 for every ordered pair in which one outlives the other's event."""
    result = [
        (risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j])
        for i in range(len(risk))
        for j in range(len(risk))
        if event[i] and (time[j] > time[i] or (time[j] == time[i] and not event[j]))
    ]
    return float(np.mean(result)) if result else float("nan")


@few
@given(cohorts)
def test_values_are_those_of_lifelines_and_scikit_survival(cohort: Cohort) -> None:
    risk, time, event = cohort
    expected = pairs(risk, time, event)
    np.testing.assert_allclose(c_index(risk, time, event), expected, atol=1e-12)
    assume(not np.isnan(expected))
    assert concordance_index(time, -risk, event) == pytest.approx(expected, abs=1e-12)
    assert concordance_index_censored(event, time, risk)[0] == pytest.approx(expected, abs=1e-12)


@few
@given(cohorts, st.integers(0, 2**32 - 1))
def test_a_whole_weight_is_that_many_copies_of_the_patient(cohort: Cohort, seed: int) -> None:
    risk, time, event = cohort
    weight = np.random.default_rng(seed).integers(0, 4, (5, len(risk))).astype(float)
    copies = [np.repeat(np.arange(len(risk)), row.astype(int)) for row in weight]
    repeated = [c_index(risk[rows], time[rows], event[rows]) for rows in copies]
    np.testing.assert_allclose(c_index(risk, time, event, weight), repeated, atol=1e-12)


@few
@given(cohorts)
def test_only_orders_count_and_turned_risks_give_the_complement(cohort: Cohort) -> None:
    risk, time, event = cohort
    value = c_index(risk, time, event)
    np.testing.assert_allclose(c_index(np.exp(risk / 10**6), np.sqrt(time), event), value, atol=1e-12)
    np.testing.assert_allclose(c_index(-risk, time, event), 1 - value, atol=1e-12)


def test_blocks_of_pairs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = simulated(0, 60, 12)
    weight = np.random.default_rng(1).integers(0, 3, (4, 60)).astype(float)
    total = c_index(*cohort, weight)
    monkeypatch.setattr(survival_metrics, "_BLOCK", 7)
    np.testing.assert_allclose(c_index(*cohort, weight), total, rtol=1e-14)


def test_five_thousand_patients_equal_lifelines() -> None:
    risk, time, event = simulated(3, 5000, 300)
    assert c_index(risk, time, event) == pytest.approx(concordance_index(time, -risk, event), abs=1e-12)


def test_without_comparable_pairs_there_is_no_value() -> None:
    assert np.isnan(c_index([1.0, 2.0], [3.0, 4.0], [0, 0]))
    assert np.isnan(c_index([1.0, 2.0], [3.0, 3.0], [1, 1]))
    assert np.isnan(c_index([], [], []))
    assert np.isnan(c_index([1.0, np.nan, 2.0], [1.0, 2.0, 3.0], [1, 1, 1]))
    only_one = np.array([[1.0, 0.0], [1.0, 1.0]])
    assert np.isnan(c_index([2.0, 1.0], [3.0, 4.0], [1, 1], only_one)).tolist() == [True, False]


def test_the_earlier_event_should_have_the_higher_risk() -> None:
    assert c_index([3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [1, 1, 0]) == 1


def causes(seed: int, patients: int, values: int) -> Any:
    """Risk, time and cause, 0 to 2, with ties."""
    risk, time, _ = simulated(seed, patients, values)
    return risk, time, np.random.default_rng(seed).integers(0, 3, patients)


competing = st.builds(causes, st.integers(0, 2**32 - 1), st.integers(2, 40), st.sampled_from([2, 4, 12, 10**6]))


@few
@given(competing)
def test_who_has_a_competing_event_outlives_every_first_event(cohort: Any) -> None:
    risk, time, cause = cohort
    result = [
        (risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j])
        for i in range(len(risk))
        for j in range(len(risk))
        if cause[i] == 1 and (cause[j] == 2 or time[j] > time[i] or (time[j] == time[i] and cause[j] == 0))
    ]
    expected = np.mean(result) if result else np.nan
    np.testing.assert_allclose(competing_c_index(risk, time, cause), expected, atol=1e-12)
    weight = np.random.default_rng(0).integers(0, 3, (3, len(risk))).astype(float)
    rows = [np.repeat(np.arange(len(risk)), row.astype(int)) for row in weight]
    repeated = [competing_c_index(risk[row], time[row], cause[row]) for row in rows]
    np.testing.assert_allclose(competing_c_index(risk, time, cause, weight), repeated, atol=1e-12)


@few
@given(competing)
def test_without_competing_events_it_is_harrells_c(cohort: Any) -> None:
    risk, time, cause = cohort
    np.testing.assert_array_equal(competing_c_index(risk, time, cause % 2), c_index(risk, time, cause % 2))


@few
@given(competing)
def test_incidences_are_those_of_scikit_survival(cohort: Any) -> None:
    _, time, cause = cohort
    assume({1, 2} <= set(cause.tolist()))
    expected_time, expected = cumulative_incidence_competing_risks(cause, time)
    moments, values = aalen_johansen(time, cause, 2)
    assert values.shape == (2, len(moments))
    np.testing.assert_allclose(values, expected[1:, np.searchsorted(expected_time, moments)], rtol=1e-12)
