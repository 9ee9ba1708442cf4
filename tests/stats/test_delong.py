"""DeLong's variances against the definition over all pairs, and against what the areas of many samples do."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from mil.stats.delong import Area, area, covariance, difference, mean

few = settings(deadline=None, max_examples=60)


def graded(seed: int, patients: int, values: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Two models' scores `(2, p)` with ties, and who is positive, two of each class at least."""
    rng = np.random.default_rng(seed)
    positive = rng.permutation(np.append([True, True, False, False], rng.random(patients - 4) < 0.4))
    shared = rng.normal(size=patients) + positive
    return np.round((shared + rng.normal(size=(2, patients)) / 2) * values) / values, positive


samples = st.builds(graded, st.integers(0, 2**32 - 1), st.integers(4, 50), st.sampled_from([1, 3, 10**6]))


def components(scores: Any, positive: Any) -> Any:
    """The definition: areas `(k,)` and their covariance `(k, k)`, from every positive with every negative."""
    high, low = scores[:, positive, None], scores[:, ~positive][:, None]
    kernel = (high > low) + 0.5 * (high == low)  # (k, m, n)
    shares = [kernel.mean(2), kernel.mean(1)]
    return kernel.mean((1, 2)), sum(np.cov(share) / share.shape[1] for share in shares)


@few
@given(samples)
def test_areas_and_covariances_are_those_of_the_structural_components(sample: Any) -> None:
    scores, positive = sample
    values, expected = components(scores, positive)
    first, second = (area(score, positive) for score in scores)
    assert first.value == pytest.approx(roc_auc_score(positive, scores[0]), abs=1e-12)
    np.testing.assert_allclose([first.value, second.value], values, atol=1e-12)
    result = [[covariance(a, b) for b in (first, second)] for a in (first, second)]
    np.testing.assert_allclose(result, expected, atol=1e-14)
    assert first.variance == pytest.approx(expected[0, 0], abs=1e-14)


@few
@given(samples)
def test_the_paired_test_is_that_of_the_contrast(sample: Any) -> None:
    scores, positive = sample
    values, matrix = components(scores, positive)
    first, second = (area(score, positive) for score in scores)
    result = difference(first, second)
    variance = matrix[0, 0] + matrix[1, 1] - 2 * matrix[0, 1]
    assert result.value == pytest.approx(values[0] - values[1], abs=1e-12)
    if variance > 1e-12:
        error = variance**0.5
        assert result.p == pytest.approx(2 * norm.sf(abs(first.value - second.value) / error), rel=1e-6)
        assert result.high == pytest.approx(min(1, first.value - second.value + norm.ppf(0.975) * error), abs=1e-9)


@few
@given(samples, samples)
def test_folds_of_different_patients_add_their_variances(first: Any, second: Any) -> None:
    folds = [area(scores[0], positive) for scores, positive in (first, second)]
    both = mean(folds)
    assert both.value == pytest.approx((folds[0].value + folds[1].value) / 2)
    assert both.variance == pytest.approx((folds[0].variance + folds[1].variance) / 4, rel=1e-12)
    names = [
        np.char.add(letter, np.arange(len(fold.influence)).astype(str))
        for letter, fold in zip("ab", folds, strict=True)
    ]
    assert mean(folds, names).variance == pytest.approx(both.variance, rel=1e-12)


def test_a_repeat_does_not_make_patients() -> None:
    scores, positive = graded(0, 60, 3)
    names, order = np.arange(60).astype(str), np.random.default_rng(0).permutation(60)
    once = area(scores[0], positive)
    again = area(scores[0][order], positive[order])
    twice = mean([once, again], [names, names[order]])
    assert (twice.value, twice.variance) == pytest.approx((once.value, once.variance))
    assert mean([once, again]).variance == pytest.approx(once.variance / 2)


def test_a_fold_without_a_class_is_left_out() -> None:
    scores, positive = graded(0, 30, 3)
    good, empty = area(scores[0], positive), area(np.arange(4.0), np.ones(4))
    assert np.isnan(empty.value)
    both = mean([good, empty], [np.arange(30).astype(str), np.array(list("abcd"))])
    assert (both.value, both.variance) == pytest.approx((good.value, good.variance))
    nobody = mean([empty]).estimate()
    assert (nobody.value, nobody.reason) == (None, "no fold has positives and negatives")


def test_the_logit_interval_stays_inside_and_is_wider_below() -> None:
    good = area([1, 2, 3, 4, 9, 5, 6, 7, 8, 10.0], [0] * 5 + [1] * 5)
    low, high = good.interval()
    assert 0 < low < good.value < high < 1
    assert good.value - low > high - good.value
    assert good.interval(scale="plain")[1] == 1
    result = good.estimate({"n": 10, "positives": 5})
    assert (result.value, result.low, result.high, result.method) == (
        good.value,
        low,
        high,
        "DeLong, on the logit scale",
    )
    assert result.counts == {"n": 10, "positives": 5}
    narrow = good.interval(level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_all_pairs_in_order_have_an_exact_bound() -> None:
    perfect = area([1.0, 2, 3, 4, 5], [0, 0, 0, 1, 1])
    result = perfect.estimate()
    assert [result.value, result.low, result.high] == pytest.approx([1, 0.05 ** (1 / 2), 1])
    assert str(result.method).startswith("exact one-sided bound")
    turned = area([5.0, 4, 3, 2, 1], [0, 0, 0, 1, 1]).estimate()
    assert [turned.value, turned.low, turned.high] == pytest.approx([0, 0, 1 - 0.05 ** (1 / 2)])
    assert mean([perfect] * 5).estimate().low == pytest.approx(0.05 ** (1 / 10))
    names = np.array(list("abcde"))
    assert mean([perfect] * 4, [names] * 4).estimate().low == pytest.approx(0.05 ** (1 / 2))
    assert difference(perfect, perfect).p == 1
    assert difference(perfect, area([5.0, 4, 3, 2, 1], [0, 0, 0, 1, 1])).p is None


def test_the_exact_bound_holds_where_it_is_reached() -> None:
    """Positives that fall below all negatives with probability 1 - a have the area a: the least favourable case."""
    pairs, rng = 8, np.random.default_rng(0)
    bound = 0.05 ** (1 / pairs)
    right = rng.random((200_000, pairs)) < bound
    assert right.all(axis=1).mean() == pytest.approx(0.05, abs=0.003)


def test_equal_scores_are_no_certainty() -> None:
    result = area([1.0, 1, 1, 1], [0, 0, 1, 1]).estimate()
    assert (result.value, result.low) == (0.5, None)
    assert "no variance" in str(result.reason)
    assert area([1.0, 3, 2], [0, 0, 1]).estimate().low is None


@pytest.mark.slow
@pytest.mark.parametrize(("gap", "patients"), [(1.0, 100), (2.5, 60)])
def test_intervals_cover_the_truth_and_tests_keep_their_level(gap: float, patients: int) -> None:
    rng, truth = np.random.default_rng(0), norm.cdf(gap / np.sqrt(2))
    covered, rejected = [], []
    for _ in range(2000):
        positive = rng.random(patients) < 0.3
        shared = rng.normal(size=patients) / np.sqrt(2) + gap * positive
        first, second = (area(shared + rng.normal(size=patients) / np.sqrt(2), positive) for _ in range(2))
        low, high = first.interval()
        covered.append(low <= truth <= high)
        p = difference(first, second).p
        assert p is not None
        rejected.append(p < 0.05)
    assert 0.93 <= np.mean(covered) <= 0.97
    # near one the test is known to be careful: few pairs are out of order
    assert (0.035 if gap == 1 else 0.005) <= np.mean(rejected) <= 0.065


def test_an_area_of_nobody() -> None:
    assert np.isnan(area([], []).value)
    assert np.isnan(Area(0.5, np.full(2, np.nan)).interval()[0])
