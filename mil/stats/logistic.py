"""Logistic regression on a few columns, and the spline that bends it, for every resample of the patients at once."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from mil.stats.weights import Floats, as_rows

_ROUNDS, _SMALL = 50, 1e-5


def logistic(design: ArrayLike, target: ArrayLike, weight: Floats | None = None, offset: ArrayLike = 0.0) -> Floats:
    """Coefficients of maximum likelihood, `(r, k)`; a single row without weights.

    Newton's method, whose steps are halved where the gradient would grow. Where no finite coefficients are best (one
    class only, or classes that a column separates) those given are merely large; `overlaps` tells for one column.

    Args:
        design: `(p, k)`, a column of ones among them where there is to be an intercept.
        target: `(p,)`, 0 to 1; shares count as that much of a positive.
        weight: Multiplicities `(r, p)`.
        offset: `(p,)`, added to the linear predictor.
    """
    design, target = np.asarray(design, np.float64), np.asarray(target, np.float64)
    rows = as_rows(weight, len(target))
    # the whole sample's answer lies near every resample's, and saves each of them half of its steps
    start = np.zeros(design.shape[1]) if weight is None else logistic(design, target, None, offset)[0]
    found = np.tile(start, (len(rows), 1))
    best, step = np.full(len(rows), np.inf), np.zeros_like(found)
    live = np.arange(len(rows))
    for _ in range(_ROUNDS):
        trial = found[live] + step[live]
        size, further = _newton(design, target, rows[live], trial @ design.T + offset)
        fine = size <= best[live]
        kept = live[fine]
        found[kept], best[kept], step[kept] = trial[fine], size[fine], further[fine]
        step[live[~fine]] /= 2
        done = (np.abs(step[live]) <= _SMALL * (1 + np.abs(found[live]))).all(1)
        found[live[done]] += step[live[done]]  # the last step squares an error that is small by now
        live = live[~done]
        if not len(live):
            break
    return found


def _newton(design: Floats, target: Floats, rows: Floats, eta: Floats) -> tuple[Floats, Floats]:
    """Square of the gradient `(l,)` and the step `(l, k)` from linear predictors `(l, p)`."""
    patients, k = design.shape
    share = expit(eta)
    gradient = (rows * (target - share)) @ design
    products = (design[:, :, None] * design[:, None, :]).reshape(patients, k * k)
    hessian = ((rows * share * (1 - share)) @ products).reshape(-1, k, k)
    # a resample may leave a column without two values; the ridge bends the way to the answer, not the answer
    ridge = 1e-10 * np.trace(hessian, axis1=1, axis2=2)[:, None, None] + 1e-300
    step = np.linalg.solve(hessian + ridge * np.eye(k), gradient[:, :, None])[:, :, 0]
    return np.einsum("lk,lk->l", gradient, gradient), np.asarray(step)


def overlaps(values: ArrayLike, target: ArrayLike, weight: Floats | None = None) -> Floats:
    """1 where no cut of the values separates the classes, so that a slope exists, else NaN, `(r,)`.

    Albert & Anderson, Biometrika 71, 1984, for one column and an intercept.
    """
    values, target = np.asarray(values, np.float64), np.asarray(target, np.float64)
    there = as_rows(weight, len(values)) > 0
    yes, no = there & (target > 0), there & (target < 1)
    lowest = [np.where(which, values, np.inf).min(1, initial=np.inf) for which in (yes, no)]
    highest = [np.where(which, values, -np.inf).max(1, initial=-np.inf) for which in (yes, no)]
    return np.where((lowest[0] < highest[1]) & (lowest[1] < highest[0]), 1.0, np.nan)


def knots(values: ArrayLike) -> Floats:
    """Four knots at Harrell's percentiles, fewer where values tie; less than three stand for a straight line."""
    return np.unique(np.quantile(np.asarray(values, np.float64), [0.05, 0.35, 0.65, 0.95]))


def spline(values: ArrayLike, at: Floats) -> Floats:
    """Ones, the values, and a restricted cubic spline's bends, `(p, k)` for `k` knots; it is straight beyond the ends.

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
