"""Calibration measures against scikit-learn, root finding and naive loops, and on resamples."""

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss

from mil.stats.calibration_metrics import (
    bins_of_error,
    brier,
    calibration_error,
    intercept,
    intercept_with_error,
    least_squares,
    line,
    line_with_errors,
    log_loss,
    logit,
    scaled_brier,
    slope,
    slope_with_error,
    squared_error,
)
from mil.stats.weights import Floats

OF_QUESTIONS: dict[str, Callable[..., Floats]] = {
    "brier": brier,
    "scaled_brier": scaled_brier,
    "intercept": intercept,
    "slope": slope,
}


def sample(patients: int = 400, seed: int = 0, steepness: float = 2.0) -> tuple[Floats, Floats]:
    """Probabilities that are too extreme by a factor, rounded so that some tie."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=patients) - 0.5
    return expit(steepness * values).round(2).clip(0.01, 0.99), (rng.random(patients) < expit(values)).astype(float)


def classes(patients: int = 200) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(1)
    return rng.dirichlet([1, 2, 3], patients), np.eye(3)[rng.integers(0, 3, patients)]


def test_brier_and_log_loss_are_those_of_scikit_learn() -> None:
    probability, truth = sample()
    assert brier(probability, truth) == pytest.approx(brier_score_loss(truth, probability), rel=1e-12)
    shares, label = classes()
    assert brier(shares, label) == pytest.approx(((shares - label) ** 2).sum(1).mean(), rel=1e-12)
    assert log_loss(shares, label) == pytest.approx(sklearn_log_loss(label.argmax(1), shares), rel=1e-12)


def test_scaled_brier_is_zero_for_the_prevalence_and_one_for_the_truth() -> None:
    for truth in (sample()[1], classes()[1]):
        assert scaled_brier(truth, truth) == 1
        assert scaled_brier(np.broadcast_to(truth.mean(0), truth.shape), truth) == pytest.approx(0, abs=1e-12)
    assert np.isnan(scaled_brier([0.2, 0.3], [1.0, 1.0]))


def test_the_slope_is_scikit_learns_and_the_intercept_makes_the_sums_equal() -> None:
    probability, truth = sample()
    values = logit(probability)
    oracle = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10000).fit(values[:, None], truth)
    assert slope(probability, truth) == pytest.approx(oracle.coef_[0, 0], rel=1e-6)
    root = brentq(lambda shift: expit(values + shift).sum() - truth.sum(), -5, 5, xtol=1e-13)
    assert intercept(probability, truth) == pytest.approx(root, rel=1e-8)


def test_a_model_that_is_right_has_intercept_zero_and_slope_one_and_halved_logits_twice_the_slope() -> None:
    rng = np.random.default_rng(0)
    probability = expit(1.5 * rng.normal(size=200_000))
    truth = (rng.random(200_000) < probability).astype(float)
    assert intercept(probability, truth) == pytest.approx(0, abs=0.02)
    assert slope(probability, truth) == pytest.approx(1, abs=0.02)
    halved = expit(logit(probability) / 2)
    assert slope(halved, truth) == pytest.approx(2 * slope(probability, truth), rel=1e-7)
    shifted = expit(logit(probability) - 1)
    assert intercept(shifted, truth) == pytest.approx(1 + intercept(probability, truth), rel=1e-7)


def test_what_does_not_exist_is_nan_without_a_warning() -> None:
    assert np.isnan(slope([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]))
    assert np.isnan(slope([0.3, 0.3, 0.3, 0.3], [0, 1, 0, 1]))
    assert np.isnan(intercept([0.3, 0.6], [1, 1]))
    assert intercept([0.3, 0.3, 0.3, 0.3], [0, 1, 0, 1]) == pytest.approx(-logit(0.3))
    drawn = np.array([[1.0, 1, 1, 1], [0, 0, 2, 2], [0, 0, 0, 0]])
    for metric in (intercept, slope):
        np.testing.assert_array_equal(np.isnan(metric([0.1, 0.6, 0.4, 0.9], [0, 0, 1, 1], drawn)), [False, True, True])


def test_probabilities_of_zero_and_one_have_a_logit() -> None:
    probability, truth = np.array([0.0, 0.0, 1.0, 1.0, 0.5]), np.array([0.0, 1, 1, 0, 1])
    assert np.isfinite([intercept(probability, truth), slope(probability, truth)]).all()


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from(sorted(OF_QUESTIONS)))
def test_a_weight_is_as_many_copies(seed: int, name: str) -> None:
    probability, truth = sample(80, seed)
    weight = np.random.default_rng(seed).integers(0, 4, (4, 80))
    metric = OF_QUESTIONS[name]
    for row, result in zip(weight, metric(probability, truth, weight.astype(np.float64)), strict=True):
        assert result == pytest.approx(metric(np.repeat(probability, row), np.repeat(truth, row)), rel=1e-6, abs=1e-9)


def naive_squares(probability: Floats, truth: Floats) -> float:
    """Bins are filled from the lowest probability on; a run of ties goes where its middle falls; pairs one by one."""
    order = np.argsort(probability, kind="stable")
    size, bins = len(order), 15 if len(order) >= 150 else max(1, len(order) // 10)
    filled: list[list[int]] = [[] for _ in range(bins)]
    for value in np.unique(probability):
        places = np.flatnonzero(probability[order] == value)
        filled[int(bins * (places.mean() + 0.5) / size)] += order[places].tolist()
    total = 0.0
    for members in filled:
        gaps = (probability - truth)[members]
        pairs = [first * second for first, second in permutations(gaps, 2)]
        total += len(members) * (float(np.mean(pairs)) if pairs else float((gaps**2).sum()))
    return total / size


@pytest.mark.parametrize("patients", [7, 30, 149, 150, 400])
def test_the_calibration_error_is_the_naive_one(patients: int) -> None:
    probability, truth = sample(patients)
    assert squared_error(probability, truth) == pytest.approx(naive_squares(probability, truth), rel=1e-9, abs=1e-12)
    assert bins_of_error(patients) == min(15, max(1, patients // 10))


def test_tied_probabilities_share_a_bin_so_that_the_order_of_patients_says_nothing() -> None:
    probability, truth = np.repeat([0.2, 0.5], 100), np.tile([0.0, 1.0], 100)
    expected = (0.3**2 - 0.25 / 99) / 2 - 0.25 / 99 / 2
    assert squared_error(probability, truth) == pytest.approx(expected)
    order = np.random.default_rng(0).permutation(200)
    assert squared_error(probability[order], truth[order]) == pytest.approx(expected)


@pytest.mark.parametrize("patients", [40, 300])
def test_right_probabilities_have_no_error_on_average_and_wrong_ones_theirs(patients: int) -> None:
    """400 samples: the plain squared error of right ones would be 0.02 to 0.05 on average."""
    rng = np.random.default_rng(2)
    right, shifted = [], []
    for _ in range(400):
        probability = rng.uniform(0.1, 0.9, patients)
        truth = (rng.random(patients) < probability).astype(float)
        right.append(float(squared_error(probability, truth)))
        shifted.append(float(squared_error(probability + 0.1, truth)))
    for values, expected in ((right, 0.0), (shifted, 0.01)):
        assert abs(np.mean(values) - expected) < 3 * np.std(values) / 20
    assert calibration_error(-0.1) == 0
    assert calibration_error(0.01) == pytest.approx(0.1)


def test_resamples_lie_about_the_error_of_the_sample() -> None:
    probability, truth = sample(400, steepness=1.0)
    weight = np.random.default_rng(0).multinomial(400, np.full(400, 1 / 400), 2000).astype(float)
    resamples = squared_error(probability, truth, weight)
    plain = np.mean([squared_error(np.repeat(probability, w), np.repeat(truth, w)) for w in weight[:300].astype(int)])
    value, error = float(squared_error(probability, truth)), resamples.std()
    assert abs(resamples.mean() - value) < 0.2 * error
    assert plain - value > 0.5 * error


def test_all_classes_have_the_mean_of_their_errors() -> None:
    shares, label = classes()
    expected = np.mean([squared_error(share, yes) for share, yes in zip(shares.T, label.T, strict=True)])
    assert squared_error(shares, label) == pytest.approx(float(expected))


@pytest.mark.slow
@pytest.mark.parametrize("patients", [40, 100, 300])
@pytest.mark.parametrize("shift", [0.0, 0.1, 0.2])
def test_the_interval_of_the_calibration_error_covers_it(patients: int, shift: float) -> None:
    """400 samples: Monte-Carlo error of the coverage 0.011."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        chance = rng.uniform(0.05, 0.75, patients)
        probability, truth = chance + shift, (rng.random(patients) < chance).astype(float)
        weight = rng.multinomial(patients, np.full(patients, 1 / patients), 400).astype(float)
        low, high = np.quantile(squared_error(probability, truth, weight), [0.025, 0.975])
        held += calibration_error(low) <= shift + 1e-9 and shift <= calibration_error(high)
    assert held / 400 > 0.90, held / 400


def test_the_line_is_that_of_polyfit_and_nan_without_variation() -> None:
    rng = np.random.default_rng(0)
    value = 1e6 + rng.normal(size=50)
    true = 3 * value + rng.normal(size=50)
    rise, start = np.polyfit(value - 1e6, true, 1)
    result = line(value, true)
    assert result[1] == pytest.approx(rise, rel=1e-9)
    assert result[0] + 1e6 * result[1] == pytest.approx(start, rel=1e-9)
    assert np.isnan(line(np.ones(5), np.arange(5.0))[1])


def test_errors_of_the_line_are_those_of_residuals_of_patients_left_out() -> None:
    """HC3's residuals are those of the line through all other patients."""
    rng = np.random.default_rng(0)
    value = 100 + rng.normal(size=30)
    true = value + rng.normal(size=30) * (1 + (value > 100))
    coefficients, errors = line_with_errors(value, true)
    assert coefficients == pytest.approx([float(each) for each in line(value, true)])
    design, residual = np.column_stack([np.ones(30), value]), np.zeros(30)
    for at in range(30):
        rest = np.arange(30) != at
        residual[at] = true[at] - design[at] @ np.linalg.lstsq(design[rest], true[rest], rcond=None)[0]
    bread = np.linalg.inv(design.T @ design)
    expected = np.sqrt(np.diag(bread @ (design.T * residual**2) @ design @ bread))
    assert errors == pytest.approx(expected, rel=1e-6)


def test_least_squares_of_resamples_are_those_of_copies() -> None:
    rng = np.random.default_rng(0)
    design, true = np.column_stack([np.ones(40), rng.normal(size=(40, 2))]), rng.normal(size=40)
    weight = rng.integers(0, 3, (5, 40))
    for row, result in zip(weight, least_squares(design, true, weight.astype(np.float64)), strict=True):
        oracle = np.linalg.lstsq(np.repeat(design, row, axis=0), np.repeat(true, row), rcond=None)[0]
        np.testing.assert_allclose(result, oracle, rtol=1e-8)
    assert np.isnan(least_squares(design, true, np.eye(1, 40))).all()


def test_errors_of_intercept_and_slope_are_those_of_the_likelihoods_curvature() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random(80) < 0.4).astype(float)
    probability = 1 / (1 + np.exp(-(rng.normal(size=80) + truth)))
    score = np.log(probability / (1 - probability))

    def log_likelihood(a: float, b: float) -> float:
        line = a + b * score
        return float((truth * line - np.logaddexp(0, line)).sum())

    shift, error = intercept_with_error(probability, truth)
    step = 1e-4
    bend = log_likelihood(shift + step, 1) - 2 * log_likelihood(shift, 1) + log_likelihood(shift - step, 1)
    assert error == pytest.approx((-bend / step**2) ** -0.5, rel=1e-4)
    slope_value, slope_error = slope_with_error(probability, truth)

    def profile(b: float) -> float:
        return -float(minimize_scalar(lambda a: -log_likelihood(a, b), bounds=(-9, 9), method="bounded").fun)

    best = minimize_scalar(lambda b: -profile(b), bounds=(0, 5), method="bounded").x
    assert best == pytest.approx(slope_value, abs=1e-3)
    step = 0.02
    bend = profile(slope_value + step) - 2 * profile(slope_value) + profile(slope_value - step)
    assert slope_error == pytest.approx((-bend / step**2) ** -0.5, rel=0.01)


def test_a_separated_slope_has_no_error() -> None:
    assert np.isnan(slope_with_error([0.1, 0.2, 0.8], [0, 0, 1])).all()
