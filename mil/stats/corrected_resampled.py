"""Differences between learners over folds: is a method better, trained anew on other patients?

Models of different folds share most of their training patients, so that their differences are correlated and the plain
t test over folds calls equal learners different far too often. Nadeau and Bengio (Machine Learning 52, 2003) take the
correlation for the share of the patients that a fold reports: the variance of the mean of k differences is
`s^2 (1 / k + n_report / n_fit)` instead of `s^2 / k`, with k - 1 degrees of freedom. For repeated cross-validation
Bouckaert and Frank (PAKDD 2004) use the same with all k r differences.

Of several learners the best is chosen by the same folds. All pairs at once are judged by the studentised range (Tukey),
with the variance that is left between folds once learner and fold are accounted for; of two learners this is the test
above.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from mil.stats.estimate import LEVEL

FOR_METHOD = "for the method, trained anew"
"""The question that these intervals and tests answer."""


@dataclass(frozen=True)
class FoldMean:
    """The mean of numbers over folds, with the standard error that shared training patients leave."""

    value: float
    error: float
    """NaN below two folds"""
    freedom: float

    @property
    def p(self) -> float:
        """P value of a mean of zero, two-sided; NaN where there is no error."""
        if self.error == 0:
            return 1.0 if self.value == 0 else float("nan")
        return float(2 * stats.t.sf(abs(self.value) / self.error, self.freedom))

    def bounds(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the bounds of the interval of Student's t; NaN where there is no error."""
        if not self.error > 0:
            return (0.0, 0.0) if self.error == self.value == 0 else (float("nan"), float("nan"))
        half = float(stats.t.ppf((1 + level) / 2, self.freedom)) * self.error
        return self.value - half, self.value + half


def fold_mean(values: ArrayLike, ratio: float) -> FoldMean:
    """Return the mean over the folds that define a number, with Nadeau and Bengio's standard error.

    Args:
        values: Of each fold, `(k,)`; NaN where a fold does not define it.
        ratio: Patients that a fold reports over those its model was fitted to.
    """
    defined = np.asarray(values, np.float64)
    defined = defined[np.isfinite(defined)]
    k = len(defined)
    if k < 2:
        return FoldMean(float(defined[0]) if k else float("nan"), float("nan"), float("nan"))
    error = float(np.sqrt(defined.var(ddof=1) * (1 / k + ratio)))
    return FoldMean(float(defined.mean()), error, k - 1)


def unpaired(first: FoldMean, second: FoldMean) -> FoldMean:
    """Return the difference of two means over different folds, with Welch's degrees of freedom.

    Both report the same patients, which makes the means alike; that is not used, and the error is rather too large.
    """
    variances = [first.error**2, second.error**2]
    total = sum(variances)
    spread = sum(variance**2 / each.freedom for variance, each in zip(variances, (first, second), strict=True))
    return FoldMean(first.value - second.value, total**0.5, total**2 / spread if spread > 0 else float("nan"))


def all_pairs_p(values: NDArray[np.float64], ratio: float) -> NDArray[np.float64]:
    """Return p values of all pairs of learners, adjusted for there being so many, `(m, m)`.

    Args:
        values: Of each fold and learner, `(k, m)`; folds that do not define all of them are left out.
        ratio: As in `fold_mean`.

    Returns:
        Symmetric; ones on the diagonal, NaN below two folds or learners.
    """
    defined = values[np.isfinite(values).all(axis=1)]
    k, m = defined.shape
    if min(k, m) < 2:
        return np.full((m, m), np.nan)
    residual = defined - defined.mean(0) - defined.mean(1, keepdims=True) + defined.mean()
    freedom = (k - 1) * (m - 1)
    error = float(np.sqrt((residual**2).sum() / freedom * (1 / k + ratio)))
    gaps = np.abs(np.subtract.outer(defined.mean(0), defined.mean(0)))
    if error == 0:
        return np.where(gaps == 0, 1.0, np.nan)
    upper = np.triu_indices(m, 1)
    adjusted = np.ones((m, m))
    adjusted[upper] = stats.studentized_range.sf(gaps[upper] / error, m, freedom)
    return np.minimum(adjusted, adjusted.T)


def mean_ratio(reported: Sequence[int], fitted: Sequence[int]) -> float:
    """Return the patients that a fold reports over those its model was fitted to, on average; 0 without any fitted."""
    ratios = [n / m for n, m in zip(reported, fitted, strict=True) if m]
    return float(np.mean(ratios)) if ratios else 0.0
