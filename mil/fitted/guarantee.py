"""What a cut promises, on average or with confidence, for further patients from the source that set it.

The cut is the j-th lowest of k positives' scores. Whatever the distribution of scores, the share of further positives
from the same source that lie at or above it is Beta(k + 1 - j, j) distributed (order statistics; with tied scores it is
larger, so the promise holds). Its mean (k + 1 - j) / (k + 1) is the sensitivity to be expected, its lower quantile what
holds with confidence. Negatives below a cut that lies above the j-th highest negative are the mirror image.

`mil calibrate` promises with confidence (`Guarantee`), rules of a tool promise on average (`AveragePromise`): the
conformal rank j = floor((k + 1) (1 - sensitivity)) of Vovk, Gammerman and Shafer, Algorithmic Learning in a Random
World, 2005.
"""

import math
from decimal import ROUND_FLOOR, Decimal
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict
from scipy import stats

from mil.errors import ConfigError, PredictionsError

_SLACK = 1 + 1e-12
_CONFIDENCE = 0.95


class AveragePromise(BaseModel):
    """What a cut at the conformal rank promises on average over samples of the patients who set it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    measure: Literal["sensitivity", "specificity"]
    target: float
    """as the rule states it"""
    patients: int
    """k, positives (or negatives) who set the cut"""
    rank: int
    """j, of the patient at the cut: from the lowest positive, or from the highest negative"""
    expected: float
    """the measure, on average over samples of k; with tied scores it is larger"""
    lower: float
    """the measure that a single sample has at least, with `confidence`"""
    confidence: float = _CONFIDENCE

    @property
    def holds(self) -> bool:
        """Whether so many patients can carry the target on average."""
        return average_rank(self.target, self.patients) > 0

    def sentence(self) -> str:
        """Return the promise in words, with the numbers that it rests on."""
        if self.measure == "sensitivity":
            kind, place = "positives", f"at the {_ordinal(self.rank, 'lowest')} score"
        else:
            kind, place = "negatives", f"above the {_ordinal(self.rank, 'highest')} score"
        return (
            f"The cut lies {place} of {self.patients} {kind}. For further {kind} from the same source, a "
            f"{self.measure} of {_down(self.expected)} or more is to be expected on average over such samples; with "
            f"{self.confidence:.0%} confidence it is at least {_down(self.lower)}."
        )

    def shortage(self) -> str | None:
        """Return why the target cannot be promised; None where it can."""
        if self.holds:
            return None
        kind, end = ("positives", "lowest") if self.measure == "sensitivity" else ("negatives", "highest")
        least = fewest_on_average(self.target)
        needed = "no number suffices" if least is None else f"{least} are needed"
        return (
            f"A {self.measure} of {self.target!r} cannot be promised from {self.patients} {kind} ({needed}): the cut "
            f"is set by the {end} of their scores, and {_down(self.expected)} is to be expected."
        )


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
        return (
            f"With the cut at {self.cut:.6g}, the {_ordinal(self.rank, 'lowest')} score of {self.positives} known "
            f"positives, a sensitivity of {_down(self.expected)} is to be expected, and with {self.confidence:.0%} "
            f"confidence it is at least {_down(self.lower)}, for positives that come from the same source as these."
        )


def average_rank(share: float, patients: int) -> int:
    """Return the highest rank whose cut has this share of further patients on its side on average; 0 if none has."""
    return math.floor((patients + 1) * (1 - exact(share)))


def fewest_on_average(share: float) -> int | None:
    """Return how few patients carry a share on average: 19 for 0.95; None for 1, which nobody can promise."""
    return None if exact(share) == 1 else math.ceil(1 / (1 - exact(share))) - 1


def average_promise(
    measure: Literal["sensitivity", "specificity"], share: float, patients: int, confidence: float = _CONFIDENCE
) -> AveragePromise:
    """Return the promise of a cut at the conformal rank, or at rank 1 where so few patients carry none."""
    rank = max(1, average_rank(share, patients))
    return AveragePromise(
        measure=measure,
        target=share,
        patients=patients,
        rank=rank,
        expected=(patients + 1 - rank) / (patients + 1),
        lower=_lower(patients, rank, confidence),
        confidence=confidence,
    )


def exact(share: float) -> Fraction:
    """Return a share as it is written: 0.95 is 19/20, which no binary number is."""
    return Fraction(repr(float(share)))


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
    lower, expected = _down(_lower(positives, 1, confidence)), _down(positives / (positives + 1))
    return f"{positives} carry {lower} (expected sensitivity {expected}) and not {promise}"


def _down(share: float) -> str:
    """Return a share to three decimals, rounded down: what is printed may be asked for, and is then promised."""
    return str(Decimal(repr(share)).quantize(Decimal("0.001"), ROUND_FLOOR))


def _ordinal(rank: int, end: str) -> str:
    return end if rank == 1 else f"{rank}{_ending(rank)} {end}"


def _ending(number: int) -> str:
    return "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
