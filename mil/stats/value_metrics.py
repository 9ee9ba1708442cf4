"""How near values are to the true ones, for every resample of the patients at once."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from mil.stats.weights import Floats, as_given, as_rows, ratio


def r2(value: ArrayLike, true: ArrayLike, weight: Floats | None = None) -> Floats:
    """Share of the variance that is explained; below zero where the mean of the true values would do better.

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
    """Mean distance in the target's unit, `()` or `(r,)`; NaN without patients. Arguments as in `r2`."""
    value, true = np.asarray(value, np.float64), np.asarray(true, np.float64)
    rows = as_rows(weight, len(true))
    return as_given(_mean(rows, np.abs(value - true)), weight)


def pearson(value: ArrayLike, true: ArrayLike, weight: Floats | None = None) -> Floats:
    """Pearson's correlation, `()` or `(r,)`; NaN where either side does not vary. Arguments as in `r2`."""
    return _related(value, true, weight, lambda covariance, one, other, gap: ratio(covariance, np.sqrt(one * other)))


def concordance(value: ArrayLike, true: ArrayLike, weight: Floats | None = None) -> Floats:
    """Lin's concordance correlation, `()` or `(r,)`: like Pearson's, less what shift and scale take away.

    Lin, Biometrics 45, 1989, with variances divided by n. NaN where neither side varies and both are equal.
    """
    return _related(value, true, weight, lambda covariance, one, other, gap: ratio(2 * covariance, one + other + gap))


def _related(
    value: ArrayLike,
    true: ArrayLike,
    weight: Floats | None,
    combine: Callable[[Floats, Floats, Floats, Floats], Floats],
) -> Floats:
    """A function of covariance, the two variances and the squared difference of means, each `(r,)`."""
    value, true = np.asarray(value, np.float64), np.asarray(true, np.float64)
    rows = as_rows(weight, len(true))
    gap = (_mean(rows, value) - _mean(rows, true)) ** 2
    found = combine(_moments(value, true, rows), _moments(value, value, rows), _moments(true, true, rows), gap)
    return as_given(found, weight)


def _mean(rows: Floats, values: Floats) -> Floats:
    return ratio(rows @ values, rows.sum(1))


def _moments(one: Floats, other: Floats, rows: Floats) -> Floats:
    """Weighted covariance of each row, `(r,)`, about the row's own means; exactly zero where a row does not vary."""
    # from the first value on: what is far from zero loses no digits, and equal values are zeros
    one, other = (values - values[:1] for values in (one, other))
    found = _mean(rows, one * other) - _mean(rows, one) * _mean(rows, other)
    rounding = 1e-13 * np.abs(one).max(initial=0) * np.abs(other).max(initial=0)
    return np.asarray(np.where(np.abs(found) <= rounding, 0.0, found))
