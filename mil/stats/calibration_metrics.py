"""Calibration of probabilities and values, for every resample of the patients at once.

Probabilities of exactly 0 or 1 are read as 1e-300 and 1 - 2^-53, so that they have a logit.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from mil.stats.logistic import logistic, overlaps
from mil.stats.weights import Floats, as_given, as_rows, ratio

BINS, _IN_A_BIN = 15, 10
"""Bins of the calibration error, and patients for one bin where they are fewer than 150."""
_LOWEST, _HIGHEST = 1e-6, 1 - 1e-12
"""Limits of risks on the scale of `log_log`, which is steep near zero: lower ones would outweigh all others."""


def logit(probability: ArrayLike) -> Floats:
    """Return the logarithm of the odds, finite for all of [0, 1]."""
    inside = np.clip(np.asarray(probability, np.float64), 1e-300, 1 - 2**-53)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def log_log(risk: ArrayLike) -> Floats:
    """Return log(-log(1 - risk)), the scale on which hazards are proportional; risks of 0 and 1 are moved inside."""
    inside = np.clip(np.asarray(risk, np.float64), _LOWEST, _HIGHEST)
    return np.asarray(np.log(-np.log1p(-inside)))


def brier(probability: ArrayLike, truth: ArrayLike, weight: Floats | None = None) -> Floats:
    """Return the mean squared distance from the truth, `()` or `(r,)`. Brier, Monthly Weather Review 78, 1950.

    Args:
        probability: `(p,)` of yes, or `(p, c)` of classes: then the distances of all classes add up.
        truth: `(p,)` or `(p, c)`, 1 for yes and 0 for no.
        weight: Multiplicities `(r, p)`.
    """
    squares = (np.asarray(probability, np.float64) - np.asarray(truth, np.float64)) ** 2
    return _mean(squares.reshape(len(squares), -1).sum(1), weight)


def scaled_brier(probability: ArrayLike, truth: ArrayLike, weight: Floats | None = None) -> Floats:
    """Return 1 - Brier / Brier of predicting the prevalence for everyone; 1 is perfect, 0 no better than that.

    It is the index of prediction accuracy of Kattan and Gerds, Diagnostic and Prognostic Research 2, 2018, whose null
    model is the prevalence, and the scaled score of Steyerberg et al., Epidemiology 21, 2010. Arguments as in `brier`;
    NaN where nobody differs.
    """
    truth = np.asarray(truth, np.float64)
    rows = as_rows(weight, len(truth))
    shares = rows @ truth.reshape(len(truth), -1) / rows.sum(1, keepdims=True)  # (r, c)
    missed = np.atleast_1d(brier(probability, truth, weight))
    return as_given(1 - ratio(missed, (shares * (1 - shares)).sum(1)), weight)


def log_loss(probability: ArrayLike, truth: ArrayLike, weight: Floats | None = None) -> Floats:
    """Return the mean of minus the logarithm of the true class's probability, `()` or `(r,)`.

    Args:
        probability: `(p, c)`
        truth: `(p, c)`, 1 for the true class and 0 for the others.
        weight: Multiplicities `(r, p)`.
    """
    return _mean(log_losses(probability, truth), weight)


def log_losses(probability: ArrayLike, truth: ArrayLike) -> Floats:
    """Return minus the logarithm of each patient's probability of the true class, `(p,)`; arguments of `log_loss`."""
    given = (np.asarray(probability, np.float64) * np.asarray(truth, np.float64)).sum(1)
    return np.asarray(-np.log(np.maximum(given, 1e-300)))


def binary_log_loss(probability: ArrayLike, truth: ArrayLike, weight: Floats | None = None) -> Floats:
    """Return `log_loss` of probabilities of yes, `()` or `(r,)`.

    Args:
        probability: `(p,)` of yes.
        truth: `(p,)`, 1 for yes and 0 for no.
        weight: Multiplicities `(r, p)`.
    """
    shares, yes = np.asarray(probability, np.float64), np.asarray(truth, np.float64)
    return log_loss(np.stack([1 - shares, shares], 1), np.stack([1 - yes, yes], 1), weight)


def intercept(probability: ArrayLike, truth: ArrayLike, weight: Floats | None = None) -> Floats:
    """Return calibration in the large: the shift of all logits at which as many are positive as are predicted to be.

    Zero is right; below zero the probabilities are too high. Cox, Biometrika 45, 1958.

    Args:
        probability: `(p,)` of yes.
        truth: `(p,)`, 1 for yes and 0 for no.
        weight: Multiplicities `(r, p)`.

    Returns:
        `()` or `(r,)`; NaN where a class is absent.
    """
    truth = np.asarray(truth, np.float64)
    share = np.atleast_1d(_mean(truth, weight))
    shift = logistic(np.ones((len(truth), 1)), truth, weight, logit(probability))[:, 0]
    return as_given(np.where((share > 0) & (share < 1), shift, np.nan), weight)


def slope(probability: ArrayLike, truth: ArrayLike, weight: Floats | None = None) -> Floats:
    """Coefficient of the logit in a logistic regression of the truth on it; one is right, below it is too sure.

    Arguments as in `intercept`. NaN where the classes do not overlap: no finite slope exists.
    """
    values = logit(probability)
    coefficient = logistic(np.stack([np.ones_like(values), values], 1), truth, weight)[:, 1]
    return as_given(coefficient * overlaps(values, truth, weight), weight)


def intercept_with_error(probability: ArrayLike, truth: ArrayLike) -> tuple[float, float]:
    """Return `intercept` and its standard error, of the inverse information; NaN both where a class is absent.

    Args:
        probability: `(p,)` of yes.
        truth: `(p,)`, 1 for yes and 0 for no.
    """
    shift = float(intercept(probability, truth))
    chance = expit(logit(probability) + shift)
    information = float((chance * (1 - chance)).sum())
    return shift, information**-0.5 if information > 0 else float("nan")


def slope_with_error(probability: ArrayLike, truth: ArrayLike) -> tuple[float, float]:
    """Return `slope` and its standard error, of the inverse information; NaN both where the classes do not overlap.

    Args:
        probability: `(p,)` of yes.
        truth: `(p,)`, 1 for yes and 0 for no.
    """
    values = logit(probability)
    design = np.stack([np.ones_like(values), values], 1)
    line = logistic(design, truth)[0]
    chance = expit(design @ line)
    information = (design * (chance * (1 - chance))[:, None]).T @ design
    defined = float(overlaps(values, truth)[0])
    return float(line[1]) * defined, float(np.linalg.pinv(information)[1, 1]) ** 0.5 * defined


def squared_error(probability: ArrayLike, truth: ArrayLike, weight: Floats | None = None) -> Floats:
    """Return the squared calibration error of bins of equal mass without the part that chance alone contributes.

    Patients are sorted by probability and filled into fifteen bins of equal mass, fewer than 150 patients into one bin
    for every ten; equal probabilities stay together. The error of a bin is the squared mean of `probability - truth`,
    estimated without bias by the mean product of all pairs of different patients; bins count by their mass. Perfect
    probabilities have a mean of zero, so that the value may be negative. `calibration_error` is its root. Kumar, Liang
    and Ma, NeurIPS 2019, section 4; Bröcker, Climate Dynamics 39, 2012.

    Args:
        probability: `(p,)` of yes, or `(p, c)` of classes: then the mean over the classes, each with bins of its own.
        truth: `(p,)` or `(p, c)`, 1 for yes and 0 for no.
        weight: Multiplicities `(r, p)`. Copies of a patient are pairs too, which moves resamples up by as much as
            chance moves a plain error; in rows of weights it is taken off once more, so that resamples lie about the
            value of the sample.

    Returns:
        `()` or `(r,)`; NaN without patients.
    """
    probability, truth = np.asarray(probability, np.float64), np.asarray(truth, np.float64)
    rows = as_rows(weight, len(probability))
    columns = zip(np.atleast_2d(probability.T), np.atleast_2d(truth.T), strict=True)
    chance = 1.0 if weight is None else 2.0
    return as_given(np.mean([_squared_error(share, yes, rows, chance) for share, yes in columns], axis=0), weight)


def calibration_error(squared: float) -> float:
    """Return the debiased calibration error, the root of `squared_error`; zero where that is negative."""
    return float(np.sqrt(max(0.0, squared)))


def bins_of_error(patients: int) -> int:
    """Return the number of bins of `squared_error` for so many patients."""
    return min(BINS, max(1, patients // _IN_A_BIN))


def line(value: ArrayLike, true: ArrayLike, weight: Floats | None = None) -> tuple[Floats, Floats]:
    """Return intercept and slope of the true values on the predicted ones by least squares, `()` or `(r,)` both.

    NaN where the predictions do not vary.
    """
    value, true = np.asarray(value, np.float64), np.asarray(true, np.float64)
    middle = float(value.mean()) if len(value) else 0.0
    fitted = least_squares(np.stack([np.ones_like(value), value - middle], 1), true, weight)
    return as_given(fitted[:, 0] - middle * fitted[:, 1], weight), as_given(fitted[:, 1], weight)


def line_with_errors(value: ArrayLike, true: ArrayLike) -> tuple[Floats, Floats]:
    """Return `line`, `(2,)`, and its standard errors, which allow a spread that changes along the line.

    Percentile intervals of 40 patients hold the true slope in 0.90 of samples, these with Student's t of p - 2 degrees
    of freedom in 0.95.

    Args:
        value: `(p,)`, which vary.
        true: `(p,)`

    References:
        HC3: MacKinnon and White, Journal of Econometrics 29, 1985.
    """
    value, true = np.asarray(value, np.float64), np.asarray(true, np.float64)
    intercept, slope = (float(each) for each in line(value, true))
    middle = float(value.mean())
    design = np.stack([np.ones_like(value), value - middle], 1)  # (p, 2)
    inverse = np.linalg.inv(design.T @ design)
    leverage = np.einsum("pk,kl,pl->p", design, inverse, design)
    residual = (true - intercept - slope * value) / np.maximum(1 - leverage, 1e-12)
    covariance = inverse @ (design.T * residual**2) @ design @ inverse
    at_zero = np.array([1.0, -middle])
    return np.array([intercept, slope]), np.sqrt([at_zero @ covariance @ at_zero, covariance[1, 1]])


def least_squares(design: ArrayLike, true: ArrayLike, weight: Floats | None = None) -> Floats:
    """Return the coefficients `(r, k)` of a design `(p, k)`; NaN where a row's patients do not determine them."""
    design, true = np.asarray(design, np.float64), np.asarray(true, np.float64)
    rows, k = as_rows(weight, len(true)), design.shape[1]
    scale = np.maximum(np.abs(design).max(0, initial=0), 1e-300)
    inputs = design / scale
    products = (inputs[:, :, None] * inputs[:, None, :]).reshape(len(true), k * k)
    normal = (rows @ products).reshape(-1, k, k)
    solved = np.einsum("rkl,rl->rk", np.linalg.pinv(normal, hermitian=True), (rows * true) @ inputs)
    determined = np.linalg.matrix_rank(normal, hermitian=True) == k
    return np.asarray(np.where(determined[:, None], solved / scale, np.nan))


def _mean(values: Floats, weight: Floats | None) -> Floats:
    rows = as_rows(weight, len(values))
    return as_given(ratio(rows @ values, rows.sum(1)), weight)


def _squared_error(probability: Floats, truth: Floats, rows: Floats, chance: float) -> Floats:
    """Return the error `(r,)`, with the variance of each bin's mean taken off so many times."""
    if not len(probability):
        return np.full(len(rows), np.nan)
    order = np.argsort(probability, kind="stable")
    probability, residual, rows = probability[order], (probability - truth)[order], rows[:, order]
    group = np.flatnonzero(np.append(True, np.diff(probability) > 0))  # the first of each run of ties
    mass, total, squares = (np.add.reduceat(rows * x, group, axis=1) for x in (1.0, residual, residual**2))  # (r, g)
    patients = mass.sum(1, keepdims=True)
    bins = np.clip(patients // _IN_A_BIN, 1, BINS)
    middle = (mass.cumsum(1) - mass / 2) / np.maximum(patients, 1)
    place = np.minimum(bins * middle, bins - 1).astype(np.intp) + BINS * np.arange(len(rows))[:, None]
    n, total, squares = (
        np.bincount(place.ravel(), x.ravel(), minlength=BINS * len(rows)).reshape(-1, BINS)
        for x in (mass, total, squares)
    )
    filled = np.maximum(n, 1e-300)
    mean = total / filled
    variance = np.maximum(squares / filled - mean**2, 0) / np.maximum(n - 1, 1)  # of the mean
    return ratio((n * (mean**2 - chance * variance)).sum(1), patients[:, 0])
