"""Gaps between groups against those of permuted labels."""

import numpy as np
import pytest
from scipy import stats

from mil.stats.bootstrap import Floats
from mil.stats.label_permutation import PermutedGap, dispersion, group_values, permutations, proportion_gap


def test_two_proportions_are_tested_as_fishers_exact_test_does() -> None:
    gap = proportion_gap([18, 9], [20, 20], 200_000, np.random.default_rng(0))
    assert gap.value == pytest.approx(0.45)
    assert gap.p() == pytest.approx(stats.fisher_exact([[18, 9], [2, 11]]).pvalue, abs=0.001)
    assert gap.p(tests=3) == pytest.approx(3 * gap.p())
    assert proportion_gap([20, 30], [20, 30], 100, np.random.default_rng(0)).p() == 1


def test_the_interval_excludes_zero_only_where_p_is_below_five_percent() -> None:
    rng = np.random.default_rng(1)
    permuted = rng.random(999)
    for value in np.linspace(0.9, 1.0, 101):
        gap = PermutedGap(float(value), permuted)
        low, high = gap.bounds()
        assert (low > 0) == (gap.p() < 0.05) or np.isclose(gap.p(), 0.05)
        assert low <= value <= high
        assert gap.bounds(tests=4)[0] <= low
    assert PermutedGap(0.4, permuted[:9]).bounds() == (-0.6, 1.0)


def test_labels_are_permuted_within_strata() -> None:
    strata = np.array([1, 0, 1, 0, 0, 2])
    places = permutations(strata, 500, np.random.default_rng(0))
    assert (np.sort(places, axis=1) == np.arange(6)).all()
    assert (strata[places] == strata).all()
    shares = [(places[:, 0] == at).mean() for at in (0, 2)]
    assert shares == pytest.approx([0.5, 0.5], abs=0.08)


def test_dispersion_of_means_is_the_permutation_test_of_an_analysis_of_variance() -> None:
    rng = np.random.default_rng(2)
    group = np.repeat([0, 1, 2], [20, 30, 40])
    value = rng.normal(size=90) + 0.35 * (group == 1)

    def mean(weight: Floats) -> Floats:
        return np.asarray(weight @ value / weight.sum(1))

    values = group_values(mean, group, np.zeros(90, np.int64), 20_000, np.random.default_rng(0))
    parts = [value[group == each] for each in range(3)]
    assert values[:, 0] == pytest.approx([part.mean() for part in parts])
    test = dispersion(values, [20, 30, 40])
    anova = stats.permutation_test(
        parts, lambda *each: stats.f_oneway(*each).statistic, n_resamples=2_000, alternative="greater", rng=rng
    )
    assert test.p == pytest.approx(anova.pvalue, abs=0.03)
    assert 0.05 < test.p < 0.95
    assert test.statistic == pytest.approx(sum(len(part) * (part.mean() - value.mean()) ** 2 for part in parts))


def test_permutations_in_which_a_group_has_no_value_are_left_out() -> None:
    target = np.array([1, 0, 0, 0, 1, 0])

    def share(weight: Floats) -> Floats:
        hits = weight @ target
        return np.asarray(np.where(hits > 0, hits / weight.sum(1), np.nan))

    values = group_values(share, np.array([0, 0, 0, 1, 1, 1]), np.zeros(6, np.int64), 200, np.random.default_rng(0))
    assert values.shape[1] < 201
    assert np.isfinite(values).all()
    assert dispersion(values, [3, 3]).p == 1
