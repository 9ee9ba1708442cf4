"""DeLong's intervals and tests of areas under the ROC curve, without resampling.

An area is a mean over positives of the share of negatives that each one scores above, and as much a mean over negatives
of the share of positives above each of them. How far a patient's share lies from the area is the patient's influence on
it; sums of squared influences are the variance of DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988), products of
two models' influences their covariance. Ranks give all shares in O(n log n), as Sun and Xu (IEEE Signal Processing
Letters 21, 2014) found.

Over folds the areas are averaged. A patient's influence on the mean is the sum of those on each fold over their number:
with folds of different patients the variance is the sum of theirs over k squared, and a patient whom several folds
report (repeated cross-validation) counts as one. The interval is about these trained models on further patients: what
other training patients would have given is not in it.

Where every positive lies above every negative, the sample does not show how certain the area is. K positives and K
negatives make K pairs that share no patient, and all of them are in order with probability `area ** K` at most, so that
`0.05 ** (1 / K)` bounds the area from below with at least 95% confidence, whatever the distributions are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from mil.stats.estimate import LEVEL, Estimate

Floats = NDArray[np.float64]
METHOD = {"logit": "DeLong, on the logit scale", "plain": "DeLong"}
PAIRED = "DeLong, paired"
EXACT = "exact one-sided bound: all positives are in order with all negatives"


@dataclass(frozen=True, eq=False)
class Area:
    """An area under the ROC curve, or the mean of several.

    Attributes:
        value: NaN where a class is absent.
        influence: Of each patient, `(p,)`; NaN where a class has one patient only.
        pairs: Number of pairs of a positive and a negative that share no patient; of a mean, as many as bound it.
        folds: Number of folds that it is the mean over.
    """

    value: float
    influence: Floats
    pairs: int = 0
    folds: int = 1

    @property
    def variance(self) -> float:
        """DeLong's variance; NaN where it is not defined."""
        return float(self.influence @ self.influence)

    def interval(self, level: float = LEVEL, scale: Literal["logit", "plain"] = "logit") -> tuple[float, float]:
        """Return low and high, NaN where the variance is undefined or zero.

        On the logit scale the bounds stay between 0 and 1 and cover a large area of few patients better, as its
        distribution is skewed (Pepe, The Statistical Evaluation of Medical Tests, 2003, section 5.2.3). The plain
        scale, area and z standard errors cut at 0 and 1, is what most software prints.
        """
        error, z = self.variance**0.5, float(stats.norm.ppf((1 + level) / 2))
        if not error > 0:  # all pairs in order: the sample does not show how certain the area is
            return float("nan"), float("nan")
        if scale == "plain":
            return max(0.0, self.value - z * error), min(1.0, self.value + z * error)
        if not 0 < self.value < 1:
            return float("nan"), float("nan")
        middle, half = special.logit(self.value), z * error / (self.value * (1 - self.value))
        return float(special.expit(middle - half)), float(special.expit(middle + half))

    def exact_bounds(self, level: float = LEVEL) -> tuple[float, float]:
        """Return low and high where all pairs are in order, or none is; NaN where some are, or a class is absent."""
        if self.value not in (0.0, 1.0) or not self.pairs:
            return float("nan"), float("nan")
        bound = (1 - level) ** (1 / self.pairs)
        return (bound, 1.0) if self.value == 1 else (0.0, 1 - bound)

    def estimate(self, counts: Mapping[str, int] | None = None, level: float = LEVEL) -> Estimate:
        """Return the area with the logit interval, or the exact bound where all pairs are in order.

        Args:
            counts: Of the estimate.
            level: Of the interval.
        """
        counts, method = dict(counts or {}), METHOD["logit"]
        if np.isnan(self.value):
            reason = "no fold has positives and negatives"
            return Estimate(value=None, level=level, method=method, reason=reason, counts=counts)
        (low, high), over_folds = self.interval(level), f"; mean of {self.folds} folds" if self.folds > 1 else ""
        if np.isnan(low):
            low, high = self.exact_bounds(level)
            method = EXACT
        if np.isnan(low):
            reason = "every positive stands alike to the negatives, or a class has one patient: no variance"
            return Estimate(value=self.value, level=level, method=METHOD["logit"], reason=reason, counts=counts)
        return Estimate(value=self.value, low=low, high=high, level=level, method=method + over_folds, counts=counts)


def area(score: ArrayLike, positive: ArrayLike) -> Area:
    """Return the AUROC with every patient's influence; ties count half.

    Args:
        score: `(p,)`, higher for positives.
        positive: `(p,)`, true or 1 for positives.
    """
    score, positive = np.asarray(score, np.float64), np.asarray(positive, dtype=bool)
    influence = np.full(len(score), np.nan)
    high, low = score[positive], score[~positive]
    if not len(high) or not len(low) or np.isnan(score).any():
        return Area(float("nan"), influence)
    above = _share_below(high, low)  # of each positive
    value = float(above.mean())
    influence[positive] = _deviations(above, value)
    influence[~positive] = _deviations(1 - _share_below(low, high), value)
    return Area(value, influence, min(len(high), len(low)))


def mean(areas: Sequence[Area], patients: Sequence[ArrayLike] | None = None) -> Area:
    """Return the mean over the folds that define an area, with the influences of patients in order of their names.

    Args:
        areas: Of each fold.
        patients: Names `(p,)` of each fold's patients; None: all are different.
    """
    defined = [fold for fold, each in enumerate(areas) if np.isfinite(each.value)]
    if not defined:
        return Area(float("nan"), np.full(1, np.nan))
    influence = np.concatenate([areas[fold].influence for fold in defined]) / len(defined)
    repeats = 1
    if patients is not None:
        names = np.concatenate([np.asarray(patients[fold]) for fold in defined])
        _, person = np.unique(names, return_inverse=True)
        influence = np.asarray(np.bincount(person, weights=influence), dtype=np.float64)
        repeats = int(np.bincount(person).max())
    value = float(np.mean([areas[fold].value for fold in defined]))
    # the mean of k areas is bounded as if each had the fewest pairs; folds that share patients bound it once
    pairs = max(1, len(defined) // repeats) * min(areas[fold].pairs for fold in defined)
    return Area(value, influence, pairs, len(defined))


def covariance(first: Area, second: Area) -> float:
    """Return the covariance of two models' areas; their patients are the same in the same order."""
    return float(first.influence @ second.influence)


def difference(first: Area, second: Area, level: float = LEVEL) -> Estimate:
    """Return the first area minus the second, with p; their patients are the same in the same order.

    Bounds and p are None where the influences do not define them.
    """
    value = first.value - second.value
    error = Area(value, first.influence - second.influence).variance ** 0.5
    if error == 0 and value == 0:  # the models order the patients alike
        return Estimate(value=0.0, low=0.0, high=0.0, p=1.0, level=level, method=PAIRED)
    if not error > 0:
        return Estimate(value=value, level=level, method=PAIRED)
    half = float(stats.norm.ppf((1 + level) / 2)) * error
    low, high = max(-1.0, value - half), min(1.0, value + half)
    p = float(2 * stats.norm.sf(abs(value) / error))
    return Estimate(value=value, low=low, high=high, p=p, level=level, method=PAIRED)


def _share_below(scores: Floats, others: Floats) -> Floats:
    """Return the share of `others` below each score, ties half, `(p,)`."""
    others = np.sort(others)
    less, most = np.searchsorted(others, scores, side="left"), np.searchsorted(others, scores, side="right")
    return np.asarray((less + most) / (2 * len(others)))


def _deviations(shares: Floats, value: float) -> Floats:
    """Return the influences of one class's patients, whose squares sum to the variance; NaN of a single patient."""
    n = len(shares)
    return (shares - value) / np.sqrt(n * (n - 1)) if n > 1 else np.full(n, np.nan)
