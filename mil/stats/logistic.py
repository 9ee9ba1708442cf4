"""Logistic regression on a few columns, and restricted cubic splines, for every resample of the patients at once."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from mil.stats.weights import Floats, as_rows

_ROUNDS, _SMALL = 50, 1e-5


def logistic(design: ArrayLike, target: ArrayLike, weight: Floats | None = None, offset: ArrayLike = 0.0) -> Floats:
    """Return the coefficients of maximum likelihood, `(r, k)`; a single row without weights.

    Newton's method, whose steps are halved where the gradient would grow. Where the likelihood has no maximum (one
    class only, or classes that a column separates) the coefficients are merely large; see `overlaps`.

    Args:
        design: `(p, k)`, with a column of ones for an intercept.
        target: `(p,)`, 0 to 1; shares count as that much of a positive.
        weight: Multiplicities `(r, p)`.
        offset: `(p,)`, added to the linear predictor.
    """
    design, target = np.asarray(design, np.float64), np.asarray(target, np.float64)
    rows = as_rows(weight, len(target))
    # the solution of the sample is near that of every resample, and saves each of them half of its steps
    start = np.zeros(design.shape[1]) if weight is None else logistic(design, target, None, offset)[0]
    weights = np.tile(start, (len(rows), 1))
    best, step = np.full(len(rows), np.inf), np.zeros_like(weights)
    live = np.arange(len(rows))
    for _ in range(_ROUNDS):
        trial = weights[live] + step[live]
        size, further = _newton(design, target, rows[live], trial @ design.T + offset)
        improved = size <= best[live]
        better = live[improved]
        weights[better], best[better], step[better] = trial[improved], size[improved], further[improved]
        step[live[~improved]] /= 2
        done = (np.abs(step[live]) <= _SMALL * (1 + np.abs(weights[live]))).all(1)
        weights[live[done]] += step[live[done]]  # the last step squares an error that is small by now
        live = live[~done]
        if not len(live):
            break
    return weights


def _newton(design: Floats, target: Floats, rows: Floats, eta: Floats) -> tuple[Floats, Floats]:
    """Return the squared gradient `(l,)` and the step `(l, k)` from linear predictors `(l, p)`."""
    patients, k = design.shape
    share = expit(eta)
    gradient = (rows * (target - share)) @ design
    products = (design[:, :, None] * design[:, None, :]).reshape(patients, k * k)
    hessian = ((rows * share * (1 - share)) @ products).reshape(-1, k, k)
    # a resample may leave a column without two values; the ridge changes the steps, not the solution
    ridge = 1e-10 * np.trace(hessian, axis1=1, axis2=2)[:, None, None] + 1e-300
    step = np.linalg.solve(hessian + ridge * np.eye(k), gradient[:, :, None])[:, :, 0]
    return np.einsum("lk,lk->l", gradient, gradient), np.asarray(step)


def overlaps(values: ArrayLike, target: ArrayLike, weight: Floats | None = None) -> Floats:
    """Return 1 where no threshold separates the classes, so that a slope exists, else NaN, `(r,)`.

    Albert & Anderson, Biometrika 71, 1984, for one column and an intercept.
    """
    values, target = np.asarray(values, np.float64), np.asarray(target, np.float64)
    present = as_rows(weight, len(values)) > 0
    yes, no = present & (target > 0), present & (target < 1)
    lowest = [np.where(which, values, np.inf).min(1, initial=np.inf) for which in (yes, no)]
    highest = [np.where(which, values, -np.inf).max(1, initial=-np.inf) for which in (yes, no)]
    return np.where((lowest[0] < highest[1]) & (lowest[1] < highest[0]), 1.0, np.nan)


def knots(values: ArrayLike) -> Floats:
    """Return four knots at Harrell's percentiles, fewer where values tie; fewer than three give a straight line."""
    return np.unique(np.quantile(np.asarray(values, np.float64), [0.05, 0.35, 0.65, 0.95]))


def spline(values: ArrayLike, at: Floats) -> Floats:
    """Return ones, the values, and the terms of a restricted cubic spline, `(p, k)` for `k` knots.

    Harrell, Regression Modeling Strategies, 2nd edition, 2015, equation 2.25.
    """
    values = np.asarray(values, np.float64)
    columns = [np.ones_like(values), values]
    if len(at) > 2:
        *inner, before, last = at
        for knot in inner:
            bend = _cube(values - knot) - _cube(values - before) * (last - knot) / (last - before)
            bend += _cube(values - last) * (before - knot) / (last - before)
            columns.append(bend / (last - at[0]) ** 2)
    return np.stack(columns, axis=1)


def _cube(values: Floats) -> Floats:
    return np.asarray(np.maximum(values, 0) ** 3)
