"""Choose cuts of a score on select patients; a patient at a cut is above it (`score >= cut`)."""

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mil.errors import PredictionsError
from mil.fitted.rules import SensitivityRule, SpecificityRule, YoudenRule

Floats = NDArray[np.float64]

logger = logging.getLogger(__name__)


class Candidates(NamedTuple):
    """Every score as a possible cut, increasing, with the patients on either side, `(k,)` each."""

    cuts: Floats
    detected: NDArray[np.int64]
    """positives at or above the cut"""
    cleared: NDArray[np.int64]
    """negatives below it"""
    positives: int
    negatives: int

    def rate(self, measure: str) -> Floats:
        """Return sensitivity, specificity, NPV or PPV of each cut; NaN where no patient is on that side."""
        below = self.cleared + self.positives - self.detected
        each = np.ones_like(self.detected)
        numerator, denominator = {
            "sensitivity": (self.detected, each * self.positives),
            "specificity": (self.cleared, each * self.negatives),
            "ppv": (self.detected, self.positives + self.negatives - below),
            "npv": (self.cleared, below),
        }[measure]
        rate = np.full(len(self.cuts), np.nan)
        np.divide(numerator, denominator, out=rate, where=denominator > 0)
        return rate


def candidates(score: ArrayLike, positive: ArrayLike, what: str) -> Candidates:
    """Return all possible cuts of these patients' scores.

    Raises:
        PredictionsError: a class is absent among the patients.
    """
    score, positive = np.asarray(score, dtype=np.float64), np.asarray(positive, dtype=bool)
    if not positive.any() or positive.all():
        mixture = f"{int(positive.sum())} positives among {len(positive)} select patients"
        raise PredictionsError(f"decision {what}: {mixture}, expected both classes")
    cuts = np.unique(score)
    positives, negatives = int(positive.sum()), int((~positive).sum())
    detected = positives - np.searchsorted(np.sort(score[positive]), cuts)
    cleared = np.searchsorted(np.sort(score[~positive]), cuts)
    return Candidates(cuts, detected, cleared, positives, negatives)


def choose(rule: SensitivityRule | SpecificityRule | YoudenRule, score: ArrayLike, positive: ArrayLike) -> float:
    """Return the cut, one of the scores, from which on (`score >= cut`) a patient is called positive.

    For a sensitivity it is the highest cut that finds that share of the positives, for a specificity the lowest that
    clears that share of the negatives, and for Youden's rule the lowest of the cuts where sensitivity + specificity is
    largest. Where even the highest score clears too few negatives, it is the cut, with a warning.

    Args:
        rule: As the tool states it.
        score: `(p,)` of the patients of model selection.
        positive: `(p,)`, true or 1 for positives.

    Raises:
        PredictionsError: a class is absent among the patients.
    """
    every = candidates(score, positive, rule.rule)
    if isinstance(rule, YoudenRule):
        return float(every.cuts[np.argmax(every.detected * every.negatives + every.cleared * every.positives)])
    rate, share = every.rate(rule.rule), rule.at_least
    if isinstance(rule, SensitivityRule):
        return float(every.cuts[rate >= share].max())
    if rate[-1] < share:
        among = every.positives + every.negatives
        logger.warning("decision: no cut has a specificity of %s on %d select patients", share, among)
        return float(every.cuts[-1])
    return float(every.cuts[rate >= share].min())


def two_cuts(out: Mapping[str, float], into: Mapping[str, float], score: ArrayLike, positive: ArrayLike) -> list[float]:
    """Return the cut below which patients are ruled out and the cut from which on they are ruled in, or one for both.

    The first is the highest cut with the promised sensitivity, or NPV below it; the second the lowest with the promised
    specificity or PPV: both decide as many patients as the promises allow. Where the zones overlap, one cut lies in the
    middle of the overlap.

    Args:
        out: `{"sensitivity": share}` or `{"npv": share}`.
        into: `{"specificity": share}` or `{"ppv": share}`.
        score: `(p,)` of select patients.
        positive: `(p,)`, true or 1 for positives.

    Raises:
        PredictionsError: a class is absent among the patients, or no cut keeps a promise.
    """
    every = candidates(score, positive, "two_cuts")
    low, high = float(_reaching(every, out).max()), float(_reaching(every, into).min())
    return [low, high] if low < high else [(low + high) / 2]


def _reaching(every: Candidates, target: Mapping[str, float]) -> Floats:
    ((measure, share),) = target.items()
    rate = every.rate(measure)
    if not (rate >= share).any():
        among, best = every.positives + every.negatives, float(np.nanmax(rate, initial=0.0))
        reason = f"no cut reaches {measure} {share} on {among} select patients"
        raise PredictionsError(f"decision two_cuts: {reason}, expected one; the best reachable is {best:.3f}")
    return every.cuts[rate >= share]


def achieved(cuts: Sequence[float], score: Floats, positive: NDArray[np.bool_]) -> dict[str, float | None]:
    """Return sensitivity and NPV of the lowest cut, specificity and PPV of the highest; None for empty groups."""
    out, into = score < cuts[0], score >= cuts[-1]
    pairs = {
        "sensitivity": (~out & positive, positive),
        "specificity": (~into & ~positive, ~positive),
        "npv": (out & ~positive, out),
        "ppv": (into & positive, into),
    }
    rates = {name: float(hit.sum() / among.sum()) if among.any() else None for name, (hit, among) in pairs.items()}
    return rates | ({"indeterminate": float(np.mean(~out & ~into))} if len(cuts) == 2 else {})
