"""Cuts of a score, chosen on select patients and frozen; a patient at a cut is above it (`score >= cut`)."""

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
    """Every score as a cut, increasing, and what each would do, `(k,)`."""

    cuts: Floats
    found: NDArray[np.int64]
    """positives from the cut on"""
    cleared: NDArray[np.int64]
    """negatives below it"""
    positives: int
    negatives: int

    def rate(self, measure: str) -> Floats:
        """Sensitivity, specificity, NPV or PPV of each cut; NaN where nobody is on that side."""
        lower = self.cleared + self.positives - self.found
        everyone = np.ones_like(self.found)
        part, whole = {
            "sensitivity": (self.found, everyone * self.positives),
            "specificity": (self.cleared, everyone * self.negatives),
            "ppv": (self.found, self.positives + self.negatives - lower),
            "npv": (self.cleared, lower),
        }[measure]
        rate = np.full(len(self.cuts), np.nan)
        np.divide(part, whole, out=rate, where=whole > 0)
        return rate


def candidates(score: ArrayLike, positive: ArrayLike, what: str) -> Candidates:
    """All cuts of these patients.

    Raises:
        PredictionsError: a class is absent among the patients.
    """
    score, positive = np.asarray(score, dtype=np.float64), np.asarray(positive, dtype=bool)
    if not positive.any() or positive.all():
        mixture = f"{int(positive.sum())} positives among {len(positive)} select patients"
        raise PredictionsError(f"decision {what}: {mixture}, expected both classes")
    cuts = np.unique(score)
    positives, negatives = int(positive.sum()), int((~positive).sum())
    found = positives - np.searchsorted(np.sort(score[positive]), cuts)
    cleared = np.searchsorted(np.sort(score[~positive]), cuts)
    return Candidates(cuts, found, cleared, positives, negatives)


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
        return float(every.cuts[np.argmax(every.found * every.negatives + every.cleared * every.positives)])
    rate, share = every.rate(rule.rule), rule.at_least
    if isinstance(rule, SensitivityRule):
        return float(every.cuts[rate >= share].max())
    if rate[-1] < share:
        among = every.positives + every.negatives
        logger.warning("decision: no cut has a specificity of %s on %d select patients", share, among)
        return float(every.cuts[-1])
    return float(every.cuts[rate >= share].min())


def two_cuts(out: Mapping[str, float], into: Mapping[str, float], score: ArrayLike, positive: ArrayLike) -> list[float]:
    """The cut below which patients are ruled out and the one from which on they are ruled in, or one for both.

    The first is the highest cut with the sensitivity, or the NPV below it, that is asked for; the second the lowest
    with the specificity or the PPV: both decide as many patients as the promise allows. Where the zones overlap there
    is no zone between them, and one cut lies in their middle.

    Args:
        out: `{"sensitivity": share}` or `{"npv": share}`.
        into: `{"specificity": share}` or `{"ppv": share}`.
        score: `(p,)` of select patients.
        positive: `(p,)`, true or 1 for positives.

    Raises:
        PredictionsError: a class is absent among the patients, or no cut reaches what is asked.
    """
    every = candidates(score, positive, "two_cuts")
    low, high = float(_reaching(every, out).max()), float(_reaching(every, into).min())
    return [low, high] if low < high else [(low + high) / 2]


def _reaching(every: Candidates, target: Mapping[str, float]) -> Floats:
    ((measure, share),) = target.items()
    rate = every.rate(measure)
    if not (rate >= share).any():
        among, best = every.positives + every.negatives, float(np.nanmax(rate, initial=0.0))
        found = f"no cut reaches {measure} {share} on {among} select patients"
        raise PredictionsError(f"decision two_cuts: {found}, expected one; the best reachable is {best:.3f}")
    return every.cuts[rate >= share]


def achieved(cuts: Sequence[float], score: Floats, positive: NDArray[np.bool_]) -> dict[str, float | None]:
    """Sensitivity and NPV of the lowest cut, specificity and PPV of the highest; None where nobody is there."""
    out, into = score < cuts[0], score >= cuts[-1]
    pairs = {
        "sensitivity": (~out & positive, positive),
        "specificity": (~into & ~positive, ~positive),
        "npv": (out & ~positive, out),
        "ppv": (into & positive, into),
    }
    rates = {name: float(hit.sum() / among.sum()) if among.any() else None for name, (hit, among) in pairs.items()}
    return rates | ({"indeterminate": float(np.mean(~out & ~into))} if len(cuts) == 2 else {})
