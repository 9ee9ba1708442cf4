"""Choose cuts of a score on select patients; a patient at a cut is above it (`score >= cut`)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mil.errors import PredictionsError
from mil.fitted.guarantee import average_rank, exact
from mil.fitted.rules import SensitivityRule, SpecificityRule, YoudenRule

Floats = NDArray[np.float64]


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
        """Return NPV or PPV of each cut; NaN where no patient is on that side."""
        hits, among = self._counts(measure)
        rate = np.full(len(self.cuts), np.nan)
        np.divide(hits, among, out=rate, where=among > 0)
        return rate

    def reaches(self, measure: str, share: float) -> NDArray[np.bool_]:
        """Return whether NPV or PPV of each cut is at least a share, by whole numbers: 19 of 21 is not 0.905."""
        hits, among = self._counts(measure)
        limit = exact(share)
        pairs = zip(hits.tolist(), among.tolist(), strict=True)
        return np.array([n > 0 and hit * limit.denominator >= n * limit.numerator for hit, n in pairs], dtype=np.bool_)

    def _counts(self, measure: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        below = self.cleared + self.positives - self.detected
        return (self.cleared, below) if measure == "npv" else (self.detected, self.positives + self.negatives - below)


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
    """Return the cut from which on (`score >= cut`) a patient is called positive.

    A cut for a sensitivity or a specificity keeps it on average for further patients, not for those who set it: it is
    at the conformal rank of their scores (`mil.fitted.guarantee`). Where they are too few, the cut is at the lowest
    positive, or above the highest negative. Youden's rule takes the lowest of the cuts where sensitivity + specificity
    is largest.

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
    return _promised(every, rule.rule, rule.at_least)


def two_cuts(out: Mapping[str, float], into: Mapping[str, float], score: ArrayLike, positive: ArrayLike) -> list[float]:
    """Return the cut below which patients are ruled out and the cut from which on they are ruled in, or one for both.

    A sensitivity or a specificity is kept on average for further patients, as by `choose`. An NPV or a PPV is reached
    by the patients who set the cut: the first cut is the highest with that NPV below it, the second the lowest with
    that PPV. Where the zones overlap, one cut lies in the middle of the overlap.

    Args:
        out: `{"sensitivity": share}` or `{"npv": share}`.
        into: `{"specificity": share}` or `{"ppv": share}`.
        score: `(p,)` of select patients.
        positive: `(p,)`, true or 1 for positives.

    Raises:
        PredictionsError: a class is absent among the patients, or no cut reaches an NPV or PPV.
    """
    every = candidates(score, positive, "two_cuts")
    low, high = _side(every, out), _side(every, into)
    return [low, high] if low < high else [(low + high) / 2]


def _side(every: Candidates, target: Mapping[str, float]) -> float:
    ((measure, share),) = target.items()
    if measure in ("sensitivity", "specificity"):
        return _promised(every, measure, share)
    cuts = every.cuts[every.reaches(measure, share)]
    if not len(cuts):
        among, best = every.positives + every.negatives, float(np.nanmax(every.rate(measure), initial=0.0))
        reason = f"no cut reaches {measure} {share} on {among} select patients"
        raise PredictionsError(f"decision two_cuts: {reason}, expected one; the best reachable is {best:.6g}")
    return float(cuts.max() if measure == "npv" else cuts.min())


def _promised(every: Candidates, measure: str, share: float) -> float:
    """Return the cut at the conformal rank: the j-th lowest positive, or just above the j-th highest negative."""
    if measure == "sensitivity":
        rank = max(1, average_rank(share, every.positives))
        return float(every.cuts[every.positives - every.detected < rank].max())
    rank = max(1, average_rank(share, every.negatives))
    cuts = every.cuts[every.negatives - every.cleared < rank]
    return float(cuts.min()) if len(cuts) else float(np.nextafter(every.cuts[-1], np.inf))


def achieved(cuts: Sequence[float], score: Floats, positive: NDArray[np.bool_]) -> dict[str, float | None]:
    """Return the rates of a single cut, or of two those of each by name; None for empty groups."""
    if len(cuts) == 1:
        return _rates_at(cuts[0], score, positive)
    lower, upper = (_rates_at(cut, score, positive) for cut in cuts)
    rates = {f"{name}, lower cut": lower[name] for name in ("sensitivity", "specificity", "npv")}
    rates |= {f"{name}, upper cut": upper[name] for name in ("sensitivity", "specificity", "ppv")}
    return rates | {"undecided": float(np.mean((score >= cuts[0]) & (score < cuts[1])))}


def _rates_at(cut: float, score: Floats, positive: NDArray[np.bool_]) -> dict[str, float | None]:
    above = score >= cut
    pairs = {
        "sensitivity": (above & positive, positive),
        "specificity": (~above & ~positive, ~positive),
        "npv": (~above & ~positive, ~above),
        "ppv": (above & positive, above),
    }
    return {name: float(hit.sum() / among.sum()) if among.any() else None for name, (hit, among) in pairs.items()}
