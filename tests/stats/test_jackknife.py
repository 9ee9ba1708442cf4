"""Errors from leaving out patients, against the formula of the mean and scipy's scales."""

from functools import partial

import numpy as np
import pytest
from scipy import special, stats

from mil.stats import average_precision, quadratic_kappa
from mil.stats.estimate import Estimate
from mil.stats.jackknife import LOGARITHM, bounds, jackknife_error, logarithm_of_rest, with_interval


def test_the_error_of_a_mean_is_the_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=700)
    error = jackknife_error(lambda weight: weight @ values / weight.sum(1), 700)
    assert error == pytest.approx(stats.sem(values))
    assert np.isnan(jackknife_error(lambda weight: weight @ values[:1], 1))


def test_bounds_are_symmetric_on_their_scale() -> None:
    low, high = bounds(0.8, 0.05, "logit")
    middle, half = special.logit(0.8), stats.norm.ppf(0.975) * 0.05 / (0.8 * 0.2)
    assert (low, high) == pytest.approx(special.expit([middle - half, middle + half]))
    low, high = bounds(0.8, 0.05, "atanh", 9)
    half = stats.t.ppf(0.975, 9) * 0.05 / (1 - 0.64)
    assert (low, high) == pytest.approx(np.tanh([np.arctanh(0.8) - half, np.arctanh(0.8) + half]))
    for value, error in ((1.0, 0.0), (0.5, 0.0), (0.5, np.nan)):
        assert np.isnan(bounds(value, error, "logit")).all()


def test_an_interval_is_symmetric_on_its_scale_and_keeps_its_value() -> None:
    losses = np.random.default_rng(0).exponential(size=30)
    left_out = np.log((losses.sum() - losses) / 29)
    half = stats.t.ppf(0.975, 29) * np.sqrt(29 / 30 * ((left_out - left_out.mean()) ** 2).sum())
    bare = Estimate(value=float(losses.mean()), counts={"n": 30}, resamples=200)
    loss = with_interval(bare, lambda weight: weight @ losses / weight.sum(1), 30, LOGARITHM, ", pooled")
    assert (loss.low, loss.high) == pytest.approx(losses.mean() * np.exp([-half, half]))
    assert (loss.value, loss.method, loss.resamples) == (bare.value, "jackknife, logarithm, pooled", None)
    share = bare.model_copy(update={"value": 1 - float(losses.mean()) / 4})
    rest = with_interval(share, lambda weight: 1 - weight @ losses / weight.sum(1) / 4, 30, logarithm_of_rest("R²"))
    assert (rest.low, rest.high) == pytest.approx(1 - losses.mean() / 4 * np.exp([half, -half]))
    assert with_interval(bare, lambda weight: np.ones(len(weight)), 30, LOGARITHM) is bare


@pytest.mark.slow
@pytest.mark.parametrize("patients", [40, 100])
def test_kappa_and_average_precision_are_covered(patients: int) -> None:
    """Monte-Carlo error of 800 samples: 0.008."""
    rng = np.random.default_rng(0)
    grades = rng.integers(0, 4, 400_000)
    called = np.clip(np.round(grades + rng.normal(0, 0.8, len(grades))), 0, 3).astype(int)
    kappa = float(quadratic_kappa(called, grades, 4))
    score = rng.normal(size=400_000) + 1.2 * (positive := rng.random(400_000) < 0.3)
    precision, covered = float(average_precision(score, positive)), np.zeros(2)
    for at in range(800):
        rows = slice(at * patients, (at + 1) * patients)
        shown = float(quadratic_kappa(called[rows], grades[rows], 4))
        error = jackknife_error(partial(quadratic_kappa, called[rows], grades[rows], 4), patients)
        low, high = bounds(shown, error, "atanh", patients - 1)
        covered[0] += low <= kappa <= high
        shown = float(average_precision(score[rows], positive[rows]))
        error = jackknife_error(partial(average_precision, score[rows], positive[rows]), patients)
        low, high = bounds(shown, error, "logit")
        covered[1] += low <= precision <= high
    assert (np.abs(covered / 800 - 0.95) < 0.03).all()
