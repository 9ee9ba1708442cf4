"""Random-effects synthesis against a published example, and by simulation."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal

from mil.stats.random_effects import pool, restricted_tau2

BCG = """4 119 11 128, 6 300 29 274, 3 228 11 209, 62 13536 248 12619, 33 5036 47 5761, 180 1361 372 1079,
8 2537 10 619, 505 87886 499 87892, 29 7470 45 7232, 17 1699 65 1600, 186 50448 141 27197, 5 2493 3 2338,
27 16886 29 17825"""
"""Thirteen trials of BCG vaccination, cases and others with and without it: Colditz et al., JAMA 271, 1994."""


def bcg() -> tuple[np.ndarray, np.ndarray]:
    a, b, c, d = np.array([trial.split() for trial in BCG.split(",")], dtype=float).T
    return np.log(a / (a + b) * (c + d) / c), (1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)) ** 0.5


def test_the_synthesis_of_the_bcg_trials_is_metafors() -> None:
    """Viechtbauer, Journal of Statistical Software 36, 2010, section 4, and `rma(..., test="knha")`."""
    result = pool(*bcg())
    assert result.tau2 == pytest.approx(0.3132, abs=1e-4)
    assert result.mean == pytest.approx(-0.7145, abs=1e-4)
    assert result.error == pytest.approx(0.1808, abs=1e-4)
    assert result.low == pytest.approx(-1.1084, abs=1e-4)
    assert result.high == pytest.approx(-0.3206, abs=1e-4)
    assert result.q == pytest.approx(152.23, abs=0.01)
    assert result.i2 == pytest.approx(0.9222, abs=1e-4)
    # the interval that takes tau² as known, mean ± t sqrt(tau² + error²), is -1.996 to 0.567
    assert -2.2 < result.predicted_low < -1.996
    assert 0.567 < result.predicted_high < 0.75


@pytest.mark.parametrize("seed", range(4))
def test_tau2_maximises_the_likelihood_of_contrasts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    value, error = rng.normal(0, 0.5, 7), rng.uniform(0.1, 0.6, 7)
    contrasts = np.linalg.svd(np.eye(7) - 1 / 7)[0][:, :6].T  # orthogonal to the mean

    def deviance(tau2: float) -> float:
        covariance = contrasts @ np.diag(error**2 + tau2) @ contrasts.T
        return -float(multivariate_normal(np.zeros(6), covariance).logpdf(contrasts @ value))

    best = minimize_scalar(deviance, bounds=(0, 3), method="bounded", options={"xatol": 1e-10}).x
    assert restricted_tau2(value, error**2) == pytest.approx(best, abs=1e-4)


def test_sites_that_agree_have_no_variance_between_them_and_bound_a_further_one() -> None:
    result = pool([0.5, 0.5, 0.5], [0.1, 0.1, 0.1])
    assert (result.tau2, result.mean, result.p) == (0.0, 0.5, 1.0)
    assert result.predicted_low <= result.low < 0.5 < result.high <= result.predicted_high


@pytest.mark.parametrize("errors", [[0.1, 0.1], [0.1, 0.0, 0.1], [0.1, float("nan"), 0.1]])
def test_too_few_sites_or_no_errors_are_refused(errors: list[float]) -> None:
    with pytest.raises(ValueError, match="synthesis"):
        pool(np.zeros(len(errors)), errors)


@pytest.mark.slow
@pytest.mark.parametrize("sites", [4, 6, 12])
@pytest.mark.parametrize("tau", [0.0, 0.3, 0.6])
def test_both_intervals_cover(sites: int, tau: float) -> None:
    """600 syntheses: Monte-Carlo standard error 0.009."""
    rng = np.random.default_rng([sites, int(10 * tau)])
    means, further = [], []
    for _ in range(600):
        error = rng.uniform(0.15, 0.5, sites)
        result = pool(tau * rng.normal(size=sites) + error * rng.normal(size=sites), error)
        means.append(result.low <= 0 <= result.high)
        further.append(result.predicted_low <= tau * rng.normal() <= result.predicted_high)
    assert np.mean(means) > 0.92 - 0.02
    assert np.mean(further) > 0.92 - 0.02
