"""Agreement of predicted with true values, for every resample of the patients at once."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from mil.stats.weights import Floats, as_given, as_rows, ratio


def r2(value: ArrayLike, true: ArrayLike, weight: Floats | None = None) -> Floats:
    """Return the share of the variance that is explained; below zero where the mean of the true values would do better.

    Args:
        value: `(p,)`, predicted.
        true: `(p,)`
        weight: Multiplicities `(r, p)`.

    Returns:
        `()` or `(r,)`; NaN where all true values are the same.
    """
    value, true = np.asarray(value, np.float64), np.asarray(true, np.float64)
    rows = as_rows(weight, len(true))
    spread = _moments(true, true, rows)
    missed = _mean(rows, (value - true) ** 2)
    return as_given(1 - ratio(missed, spread), weight)


def mean_absolute_error(value: ArrayLike, true: ArrayLike, weight: Floats | None = None) -> Floats:
    """Return the mean distance in the target's unit, `()` or `(r,)`; NaN without patients. Arguments as in `r2`."""
    value, true = np.asarray(value, np.float64), np.asarray(true, np.float64)
    rows = as_rows(weight, len(true))
    return as_given(_mean(rows, np.abs(value - true)), weight)


def pearson(value: ArrayLike, true: ArrayLike, weight: Floats | None = None) -> Floats:
    """Return Pearson's correlation, `()` or `(r,)`; NaN where either side does not vary. Arguments as in `r2`."""
    return _related(
        value, true, weight, lambda covariance, first, second, gap: ratio(covariance, np.sqrt(first * second))
    )


def concordance(value: ArrayLike, true: ArrayLike, weight: Floats | None = None) -> Floats:
    """Return Lin's concordance correlation, `()` or `(r,)`: Pearson's, reduced by differences in shift and scale.

    Lin, Biometrics 45, 1989, with variances divided by n. NaN where neither side varies and both are equal.
    """
    return _related(
        value, true, weight, lambda covariance, first, second, gap: ratio(2 * covariance, first + second + gap)
    )


def _related(
    value: ArrayLike,
    true: ArrayLike,
    weight: Floats | None,
    combine: Callable[[Floats, Floats, Floats, Floats], Floats],
) -> Floats:
    """Return a function of covariance, the two variances and the squared difference of means, each `(r,)`."""
    value, true = np.asarray(value, np.float64), np.asarray(true, np.float64)
    rows = as_rows(weight, len(true))
    gap = (_mean(rows, value) - _mean(rows, true)) ** 2
    combined = combine(_moments(value, true, rows), _moments(value, value, rows), _moments(true, true, rows), gap)
    return as_given(combined, weight)


def _mean(rows: Floats, values: Floats) -> Floats:
    return ratio(rows @ values, rows.sum(1))


def _moments(first: Floats, second: Floats, rows: Floats) -> Floats:
    """Return the weighted covariance of each row, `(r,)`; exactly zero where a row does not vary."""
    # relative to the first value: large values lose no digits, and equal values are zeros
    first, second = (values - values[:1] for values in (first, second))
    covariance = _mean(rows, first * second) - _mean(rows, first) * _mean(rows, second)
    rounding = 1e-13 * np.abs(first).max(initial=0) * np.abs(second).max(initial=0)
    return np.asarray(np.where(np.abs(covariance) <= rounding, 0.0, covariance))
