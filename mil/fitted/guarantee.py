"""What a cut promises that is set on known positives of a new site or scanner.

The cut is the j-th lowest of k positives' scores. Whatever the distribution of scores, the share of further positives
from the same source that lie at or above it is Beta(k + 1 - j, j) distributed (order statistics; with tied scores it is
larger, so the promise holds). Its mean is the sensitivity to be expected, its lower quantile what can be promised.
"""

import math

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict
from scipy import stats

from mil.errors import ConfigError, PredictionsError

_SLACK = 1 + 1e-12


class Guarantee(BaseModel):
    """A cut, and the sensitivity that it guarantees."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    cut: float
    positives: int
    """k, number of scores"""
    rank: int
    """j, of the cut among them from the lowest, 1"""
    expected: float
    """sensitivity, on average over samples of k"""
    lower: float
    """sensitivity that it has at least, with `confidence`"""
    sensitivity: float
    """that is promised"""
    confidence: float

    def sentence(self) -> str:
        """Return the promise in words, with the numbers that it rests on."""
        place = "lowest" if self.rank == 1 else f"{self.rank}{_ending(self.rank)} lowest"
        return (
            f"With the cut at {self.cut:.6g}, the {place} score of {self.positives} known positives, "
            f"a sensitivity of {self.expected:.3f} is to be expected, and with {self.confidence:.0%} confidence "
            f"it is at least {self.lower:.3f}, for positives that come from the same source as these."
        )


def cut_from_positives(scores: ArrayLike, sensitivity: float = 0.95, confidence: float = 0.95) -> Guarantee:
    """Return the highest cut that, with `confidence`, has the sensitivity or more, by the scores of known positives.

    Args:
        scores: `(k,)` of known positives, drawn without regard to their scores.
        sensitivity: What is promised, between 0 and 1.
        confidence: How often the promise holds, over samples of positives, between 0 and 1.

    Raises:
        ConfigError: a share that is not between 0 and 1.
        PredictionsError: a score is not finite, or there are too few to carry the promise.
    """
    fewest = needed(sensitivity, confidence)
    ordered = np.sort(np.asarray(scores, dtype=np.float64).ravel())  # (k,)
    if not np.isfinite(ordered).all():
        wrong = int((~np.isfinite(ordered)).sum())
        raise PredictionsError(f"known positives: {wrong} of {len(ordered)} scores are not finite numbers")
    k = len(ordered)
    if k < fewest:
        raise PredictionsError(f"known positives: {_too_few(k, sensitivity, confidence)}, expected {fewest} or more")
    ranks = np.arange(1, k + 1)
    broken = stats.beta.cdf(sensitivity, k + 1 - ranks, ranks)  # (k,), rising
    rank = int(ranks[broken <= (1 - confidence) * _SLACK].max(initial=1))
    return Guarantee(
        cut=float(ordered[rank - 1]),
        positives=k,
        rank=rank,
        expected=(k + 1 - rank) / (k + 1),
        lower=_lower(k, rank, confidence),
        sensitivity=sensitivity,
        confidence=confidence,
    )


def needed(sensitivity: float, confidence: float) -> int:
    """Return the fewest positives for a promise, with the cut at the lowest: 59 for 0.95 with 95% confidence.

    Raises:
        ConfigError: a share that is not between 0 and 1.
    """
    for name, share in (("sensitivity", sensitivity), ("confidence", confidence)):
        if not 0 < share < 1:
            raise ConfigError(f"{name}: {share!r}, expected a share between 0 and 1")
    fewest = max(1, math.floor(math.log1p(-confidence) / math.log(sensitivity)))
    while sensitivity**fewest > (1 - confidence) * _SLACK:
        fewest += 1
    return fewest


def _lower(positives: int, rank: int, confidence: float) -> float:
    return float(stats.beta.ppf(1 - confidence, positives + 1 - rank, rank))


def _too_few(positives: int, sensitivity: float, confidence: float) -> str:
    promise = f"a sensitivity of {sensitivity:g} with {confidence:.0%} confidence"
    if not positives:
        return f"none, to promise {promise}"
    lower = _lower(positives, 1, confidence)
    digits = next(places for places in range(3, 18) if round(lower, places) < sensitivity)  # 0.9497 is not 0.95
    expected = positives / (positives + 1)
    return f"{positives} carry {lower:.{digits}f} (expected sensitivity {expected:.3f}) and not {promise}"


def _ending(number: int) -> str:
    return "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
