"""Regression metrics against scikit-learn, scipy and numpy, and against rows that are really repeated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics import mean_absolute_error as sklearn_error
from sklearn.metrics import r2_score

from mil.stats import concordance, mean_absolute_error, pearson, r2

few = settings(deadline=None, max_examples=60)
METRICS = (r2, pearson, concordance, mean_absolute_error)


@few
@given(st.integers(0, 2**32 - 1), st.integers(3, 40), st.sampled_from([0.0, 1e6]))
def test_values_are_the_libraries_and_weights_are_copies(seed: int, count: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    true = shift + rng.normal(size=count)
    value = true + rng.normal(size=count)
    assert r2(value, true) == pytest.approx(r2_score(true, value), abs=1e-8)
    assert pearson(value, true) == pytest.approx(pearsonr(value, true).statistic, abs=1e-8)
    assert mean_absolute_error(value, true) == pytest.approx(sklearn_error(true, value))
    (first, both), (_, second) = np.cov(value, true, bias=True)
    lin = 2 * both / (first + second + (value.mean() - true.mean()) ** 2)
    assert concordance(value, true) == pytest.approx(lin, abs=1e-8)
    weight = rng.integers(0, 3, (4, count)).astype(float)
    weight[:, :3] += 1
    assert r2(value, true, weight)[0] == pytest.approx(r2_score(true, value, sample_weight=weight[0]), abs=1e-8)
    for metric in METRICS:
        copies = [np.repeat(np.arange(count), row.astype(int)) for row in weight]
        repeated = [metric(value[rows], true[rows]) for rows in copies]
        np.testing.assert_allclose(metric(value, true, weight), repeated, atol=1e-8)


def test_truth_itself_is_perfect_and_its_mean_explains_nothing() -> None:
    true = np.array([1.0, 2, 3, 6])
    assert r2(true, true) == pearson(true, true) == concordance(true, true) == 1
    assert mean_absolute_error(true, true) == 0
    assert r2(np.full(4, 3.0), true) == pytest.approx(0)
    assert concordance(true + 100, true) < 0.01
    assert pearson(true + 100, true) == pytest.approx(1)


def test_what_does_not_vary_is_undefined_without_a_warning() -> None:
    true, same = np.array([0.1, 0.7, 0.1]), np.full(3, 0.1)
    weight = np.array([[1.0, 0, 2], [1, 1, 1], [0, 0, 0]])
    assert np.isnan(r2(true, true, weight)).tolist() == [True, False, True]
    assert np.isnan(pearson(same, true))
    assert np.isnan(r2(true, same))
    assert np.isnan(concordance(same, same))
    assert all(np.isnan(metric([], [])) for metric in METRICS)
    assert np.isnan(r2([np.nan, 1, 2], true))
