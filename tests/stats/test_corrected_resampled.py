"""Means over folds whose models share training patients: the correction, and its rate of false differences."""

import numpy as np
import pytest
from scipy import stats

from mil.stats.corrected_resampled import all_pairs_p, fold_mean, mean_ratio, unpaired


def test_the_corrected_error_is_nadeau_and_bengios() -> None:
    values = [0.1, 0.3, 0.2, 0.05, 0.25]
    mean = fold_mean([*values, np.nan], 0.25)
    assert mean.value == pytest.approx(0.18)
    assert mean.error == pytest.approx(np.sqrt(np.var(values, ddof=1) * (1 / 5 + 1 / 4)))
    assert mean.freedom == 4
    assert mean.p == pytest.approx(2 * stats.t.sf(0.18 / mean.error, 4))
    low, high = mean.bounds()
    assert (low + high) / 2 == pytest.approx(0.18)
    assert stats.t.cdf((high - 0.18) / mean.error, 4) == pytest.approx(0.975)


def test_without_a_correction_it_is_the_t_test() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 7)
    assert fold_mean(values, 0).p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    others = np.random.default_rng(1).normal(0, 2, 5)
    welch = stats.ttest_ind(values, others, equal_var=False)
    assert unpaired(fold_mean(values, 0), fold_mean(others, 0)).p == pytest.approx(welch.pvalue)


def test_one_fold_or_equal_folds_show_nothing() -> None:
    assert np.isnan(fold_mean([0.1], 0.25).bounds()).all()
    assert np.isnan(fold_mean([], 0.25).value)
    assert np.isnan(fold_mean([0.1, 0.1], 0.25).p)
    level = fold_mean([0.0, 0.0], 0.25)
    assert (level.p, level.bounds()) == (1.0, (0.0, 0.0))


def test_two_learners_by_the_studentised_range_are_the_corrected_test() -> None:
    values = np.random.default_rng(0).normal(size=(5, 2))
    p = all_pairs_p(values, 0.25)
    assert p[0, 1] == p[1, 0] == pytest.approx(fold_mean(values[:, 0] - values[:, 1], 0.25).p, abs=1e-9)
    assert p[0, 0] == 1


def test_all_pairs_are_tukeys_where_folds_are_independent() -> None:
    values = np.random.default_rng(0).normal(size=(6, 3)) + np.array([0, 0.5, 2])
    expected = stats.tukey_hsd(*(values - values.mean(1, keepdims=True)).T)
    p = all_pairs_p(values, 0.0)
    assert (p[0, 2] < p[0, 1]) == (expected.pvalue[0, 2] < expected.pvalue[0, 1])
    residual = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    error = np.sqrt((residual**2).sum() / 10 / 6)
    gap = abs(values[:, 0].mean() - values[:, 2].mean())
    assert p[0, 2] == pytest.approx(stats.studentized_range.sf(gap / error, 3, 10))
    assert np.isnan(all_pairs_p(values[:1], 0)).all()


def test_the_ratio_is_that_of_the_folds() -> None:
    assert mean_ratio([20, 20], [80, 80]) == 0.25
    assert mean_ratio([20, 30], [80, 60]) == pytest.approx((0.25 + 0.5) / 2)
    assert mean_ratio([20], [0]) == 0
