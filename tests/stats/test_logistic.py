"""Logistic regression of many resamples at once, against scikit-learn and scipy, and the spline."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from mil.stats.logistic import knots, logistic, overlaps, spline
from mil.stats.weights import Floats


def sample(patients: int = 300, seed: int = 0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    design = np.column_stack([np.ones(patients), rng.normal(size=(patients, 3)) * [1, 10, 0.1]])
    return design, (rng.random(patients) < expit(design @ [-1, 0.7, 0.2, 5])).astype(np.float64)


def test_coefficients_are_those_of_scikit_learn() -> None:
    design, truth = sample()
    oracle = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, max_iter=10000).fit(design, truth)
    np.testing.assert_allclose(logistic(design, truth)[0], oracle.coef_[0], rtol=1e-5)


def test_shares_and_an_offset_are_fitted_to_the_maximum_of_the_likelihood() -> None:
    design, truth = sample()
    target, offset = 0.9 * truth + 0.03, np.linspace(-2, 2, len(truth))

    def lost(weights: Floats) -> float:
        eta = design @ weights + offset
        return float(np.sum(np.logaddexp(0, eta) - target * eta))

    result = logistic(design, target, None, offset)[0]
    assert lost(result) <= minimize(lost, np.zeros(4), method="BFGS").fun + 1e-9
    np.testing.assert_allclose(design.T @ (target - expit(design @ result + offset)), 0, atol=1e-7)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6))
def test_a_weight_is_as_many_copies(seed: int) -> None:
    design, truth = sample(120, seed)
    weight = np.random.default_rng(seed).integers(0, 4, (3, 120))
    for row, result in zip(weight, logistic(design, truth, weight.astype(np.float64)), strict=True):
        alone = logistic(np.repeat(design, row, axis=0), np.repeat(truth, row))[0]
        np.testing.assert_allclose(result, alone, rtol=1e-6, atol=1e-8)


def test_far_outliers_do_not_throw_the_steps_off() -> None:
    values = np.concatenate([np.linspace(-3, 3, 100), [-690.0, 400.0]])
    truth = np.concatenate([np.random.default_rng(0).random(100) < expit(np.linspace(-3, 3, 100)), [True, False]])
    design = np.column_stack([np.ones(102), values])
    share = expit(design @ logistic(design, truth.astype(np.float64))[0])
    np.testing.assert_allclose(design.T @ (truth - share), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "truth", "exists"),
    [
        ([1, 2, 3, 4], [0, 1, 0, 1], True),
        ([1, 2, 3, 4], [0, 0, 1, 1], False),
        ([1, 2, 2, 4], [0, 0, 1, 1], False),
        ([4, 3, 2, 1], [0, 0, 1, 1], False),
        ([1, 1, 1, 1], [0, 1, 0, 1], False),
        ([1, 2, 3, 4], [1, 1, 1, 1], False),
        ([1, 2, 3, 4], [0.1, 0.1, 0.9, 0.9], True),
    ],
)
def test_a_slope_exists_only_where_the_classes_overlap(values: list[float], truth: list[float], exists: bool) -> None:
    assert np.isfinite(overlaps(values, truth)).all() == exists


def test_overlap_is_that_of_the_patients_who_were_drawn() -> None:
    drawn = np.array([[1.0, 1, 1, 1], [1, 0, 0, 1], [0, 0, 0, 0]])
    np.testing.assert_array_equal(overlaps([1, 2, 3, 4], [0, 1, 0, 1], drawn), [1, np.nan, np.nan])


def test_the_spline_is_straight_beyond_its_ends_and_smooth_at_its_knots() -> None:
    at = knots(np.random.default_rng(0).normal(size=500))
    assert len(at) == 4
    for outside in (at[0] - np.arange(1.0, 5), at[-1] + np.arange(1.0, 5)):
        np.testing.assert_allclose(np.diff(spline(outside, at), 2, axis=0), 0, atol=1e-12)
    step = 1e-4
    for knot in at:
        second = [np.diff(spline(knot + side * 3 * step + step * np.arange(3), at), 2, axis=0) for side in (-1, 1)]
        np.testing.assert_allclose(second[0], second[1], atol=100 * step**3)
    assert np.linalg.matrix_rank(spline(np.linspace(at[0], at[-1], 50), at)) == 4


def test_tied_values_leave_a_straight_line() -> None:
    assert spline(np.zeros(5), knots(np.zeros(5))).shape == (5, 2)
