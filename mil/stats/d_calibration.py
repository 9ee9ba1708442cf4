"""D-calibration: whether predicted survival functions are right as distributions.

At a patient's time of event the predicted survival is uniform between 0 and 1, where the predictions are right.
Patients are sorted into bins of equal width by it; one who is censored, or whose event is only known to lie in an
interval, is spread over the values that are still possible, evenly, as they are under the null hypothesis. Haider,
Hoehn, Davis and Greiner, Journal of Machine Learning Research 21, 2020, section 3.5.

Their test takes the counts for multinomial ones and compares Pearson's statistic with chi-squared. Spread patients vary
less than that: with a third of the patients censored it rejects right predictions in 0.005 of samples instead of 0.05,
and wrong ones rarely. Here the covariance of the shares is that of uniform survival cut off at censorings as they occur
among these patients, so that the p value is uniform with censoring too. Without censoring it is Pearson's test.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
BINS, IN_A_BIN = 10, 10
"""Bins, and patients for each of them where they are fewer than 100."""
_GRID, _LEAST = 2000, 0.01
"""Values of survival at a censoring; variance of a contrast of bins over the largest, below which it is left out."""


@dataclass(frozen=True)
class DCalibrationTest:
    """How the predicted survival at the time of the event is spread.

    Attributes:
        shares: Of the patients in each bin, from the lowest survival, `(b,)`; 1 / b each where predictions are right.
        statistic: Of the test that they are.
        freedom: Degrees of freedom of chi-squared.
        p: P value.
    """

    shares: Floats
    statistic: float
    freedom: int
    p: float


def bins_for(patients: int) -> int:
    """Return the number of bins for so many patients."""
    return max(2, min(BINS, patients // IN_A_BIN))


def d_calibration(
    low: ArrayLike, high: ArrayLike, bins: int = BINS, limit: ArrayLike | None = None, weight: ArrayLike | None = None
) -> DCalibrationTest:
    """Return the test that the survival at the time of the event is uniform.

    Args:
        low: Least possible survival at the patient's event, `(p,)`; 0 for a censored patient.
        high: Greatest possible one, `(p,)`; for a censored patient the survival at the censoring. Equal to `low` where
            the event was seen and the predicted curve is smooth.
        bins: Number of bins, b.
        limit: Predicted survival at the times at which patients may be censored, `(p, c)`; None where nobody is.
        weight: Probability of being censored at each of these times, `(c,)`.

    Raises:
        ValueError: a bound is outside 0 to 1, or a lower one above an upper one.
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if not ((low >= 0) & (low <= high) & (high <= 1)).all():
        raise ValueError("D-calibration: bounds of survival, expected 0 <= low <= high <= 1")
    shares = spread_over(low, high, bins).mean(0)
    limits, chances = (np.zeros((1, 1)), np.ones(1)) if limit is None else (np.asarray(limit), np.asarray(weight))
    values, vectors = np.linalg.eigh(_covariance(np.asarray(limits, np.float64), np.asarray(chances), bins))
    estimable = values > _LEAST * values[-1]  # bins that no patient is followed to cannot be told apart
    along = vectors[:, estimable].T @ (shares - 1 / bins)
    statistic, freedom = float(len(low) * (along**2 / values[estimable]).sum()), int(estimable.sum())
    return DCalibrationTest(shares, statistic, freedom, float(stats.chi2.sf(statistic, freedom)))


def _covariance(limit: Floats, weight: Floats, bins: int) -> Floats:
    """Return the covariance of a patient's shares of the bins, `(b, b)`, mean over patients and their censorings."""
    chance = np.broadcast_to(weight / weight.sum() / len(limit), limit.shape)
    cells = np.minimum((np.clip(limit, 0, 1) * _GRID).astype(np.intp), _GRID - 1)
    mass = np.bincount(cells.ravel(), weights=chance.ravel(), minlength=_GRID)
    at = (np.arange(_GRID) + 0.5) / _GRID * (limit.max() > 0)
    edges = np.arange(bins + 1) / bins
    above = np.clip(edges[1:] - np.maximum(edges[:-1], at[:, None]), 0, None)  # (g, b), seen events
    below = 1 / bins - above  # (g, b), what the others are spread over
    spread = np.einsum("g,gi,gj->ij", mass / np.maximum(at, 1e-12), below, below)
    return np.asarray(np.diag(mass @ above) + spread - 1 / bins**2)


def spread_over(low: Floats, high: Floats, bins: int) -> Floats:
    """Return the share of each patient in each bin, `(p, b)`; the rows sum to one."""
    edges = np.arange(bins + 1) / bins
    overlap = np.clip(np.minimum(high[:, None], edges[1:]) - np.maximum(low[:, None], edges[:-1]), 0, None)
    width = (high - low)[:, None]
    single = np.minimum((low * bins).astype(np.intp), bins - 1)[:, None] == np.arange(bins)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(width > 1e-12, overlap / width, single.astype(np.float64)))
