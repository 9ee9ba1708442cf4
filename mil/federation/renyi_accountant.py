"""Epsilon of noise that is added again and again to sums over patients drawn at random.

I. Mironov: Rényi differential privacy. CSF 2017 (composition: proposition 1; the Gaussian mechanism: proposition 7).
I. Mironov, K. Talwar, L. Zhang: Rényi differential privacy of the sampled Gaussian mechanism. arXiv 1908.10530, 2019
(theorems 4 and 5: the divergence of order α is log A_α / (α - 1), equation 3).
C. Canonne, G. Kamath, T. Steinke: The discrete Gaussian for differential privacy. NeurIPS 2020 (proposition 12: from
Rényi divergences to epsilon; also Balle et al., AISTATS 2020, theorem 21).

Two cohorts are neighbours if one has one patient more. Checked against the figures that TensorFlow Privacy and Abadi et
al. (CCS 2016) published, in `tests/federation/test_privacy_budget.py`.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

Floats = NDArray[np.float64]
ORDERS: Floats = np.concatenate([1 + np.arange(1, 100) / 10, np.arange(11, 64), [80, 96, 128, 192, 256, 512]])
"""Orders of the divergence among which the best is taken: fractional ones matter where epsilon is large."""
_POINTS, _REACH = 20_001, 12.0


def divergences(sampled: float, noise: float, steps: int, orders: Floats = ORDERS) -> Floats:
    """Return the Rényi divergence of each order, `(orders,)`, after some steps.

    Args:
        sampled: Probability with which each patient takes part in a step, independently of the others.
        noise: Standard deviation of the noise, in multiples of what one patient can add.
        steps: How often a sum with noise is released.
        orders: Above 1.
    """
    return np.array([steps * _log_moment(sampled, noise, float(order)) / (order - 1) for order in orders])


def _log_moment(sampled: float, noise: float, order: float) -> float:
    """Return log A_α, the expectation of ((1 - q) + q μ1/μ0)^α under μ0 = N(0, σ²), by the trapezoidal rule.

    The integrand is analytic and falls off as a Gaussian about 0 and about α, so that the rule converges geometrically.
    """
    if sampled >= 1:
        return order * (order - 1) / (2 * noise**2)
    if sampled <= 0:
        return 0.0
    points = np.linspace(-_REACH * noise, order + _REACH * noise, _POINTS)
    ratio = np.logaddexp(np.log1p(-sampled), np.log(sampled) + (2 * points - 1) / (2 * noise**2))
    density = -(points**2) / (2 * noise**2) - np.log(noise * np.sqrt(2 * np.pi))
    return float(logsumexp(density + order * ratio) + np.log(points[1] - points[0]))


def epsilon(sampled: float, noise: float, steps: int, delta: float) -> float:
    """Return epsilon of (epsilon, delta)-differential privacy; arguments as in `divergences`."""
    if sampled <= 0 or not steps:
        return 0.0
    bounds = (
        divergences(sampled, noise, steps) + np.log1p(-1 / ORDERS) - (np.log(delta) + np.log(ORDERS)) / (ORDERS - 1)
    )
    return float(max(0.0, np.min(bounds)))
