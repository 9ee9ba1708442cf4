"""Kaplan-Meier curves of events and of censoring, for weights by the inverse probability of censoring.

The weights take G, the chance to be followed beyond a time, from the patients a model was trained on, so that they are
fixed before a report patient is seen and the same in every resample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mil.stats.weights import Floats

Amounts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class KaplanMeier:
    """The chance to be without event after a time. Kaplan and Meier, JASA 53, 1958.

    Attributes:
        times: Times of events and censorings, rising `(t,)`.
        values: The chance after each of them, `(t,)`.
    """

    times: Floats
    values: Floats

    @classmethod
    def fit(cls, time: ArrayLike, event: ArrayLike) -> Self:
        """Fit the curve to patients `(p,)`; an event is any number but zero, and precedes a censoring of its time."""
        times, at_risk, events, _ = _counts(time, event)
        return cls(times, _product(events, at_risk))

    def before(self, time: ArrayLike) -> Floats:
        """Return the chance just before these times, of any shape: the limit from the left.

        Beyond the last patient's time it is zero where the curve has come to zero, and NaN otherwise.
        """
        return self.at(np.nextafter(np.asarray(time, dtype=np.float64), -np.inf))

    def at(self, time: ArrayLike) -> Floats:
        """Return the chance after these times, of any shape; the events of a time have happened.

        Beyond the last patient's time it is zero where the curve has come to zero, and NaN otherwise.
        """
        time = np.asarray(time, dtype=np.float64)
        reached = np.concatenate([[1.0], self.values])
        unknown = (time > self.last) & (reached[-1] > 0)
        return np.asarray(np.where(unknown, np.nan, reached[np.searchsorted(self.times, time, side="right")]))

    @property
    def last(self) -> float:
        """The longest time of a patient; minus infinity without patients."""
        return float(self.times[-1]) if len(self.times) else -np.inf

    def state(self) -> dict[str, list[float]]:
        """Return the curve in plain JSON types."""
        return {"times": self.times.tolist(), "values": self.values.tolist()}

    @classmethod
    def of(cls, state: Mapping[str, Sequence[float]]) -> Self:
        """Restore a curve from what `state` returned."""
        return cls(np.asarray(state["times"], np.float64), np.asarray(state["values"], np.float64))


class Censoring(KaplanMeier):
    """The chance G to be followed beyond a time: Kaplan-Meier with events and censorings exchanged.

    A patient with an event at a time cannot be censored at that time. G of a time includes the censorings of
    that very time, as scikit-survival has it.
    """

    @classmethod
    def fit(cls, time: ArrayLike, event: ArrayLike) -> Self:
        """Fit the curve to the training patients `(p,)`; an event is any number but zero."""
        times, at_risk, events, censored = _counts(time, event)
        return cls(times, _product(censored, at_risk - events))

    def inverse(self, time: ArrayLike) -> Floats:
        """Return `1 / G` after these times, NaN where G is zero or unknown because nobody was followed that long."""
        return _inverse(self.at(time))

    def inverse_before(self, time: ArrayLike) -> Floats:
        """Return `1 / G` just before these times, NaN where G is zero or unknown there.

        It is the weight of a patient whose state at these times is seen: a censoring at the very time of an event comes
        after the event, and a patient who is censored at a time was without event until then.
        """
        return _inverse(self.before(time))


def _inverse(chance: Floats) -> Floats:
    weight = np.full(chance.shape, np.nan)
    np.divide(1.0, chance, out=weight, where=chance > 0)
    return weight


def _counts(time: ArrayLike, event: ArrayLike) -> tuple[Floats, Amounts, Amounts, Amounts]:
    """Return the different times, the patients at risk just before each, and its events and censorings, `(t,)` each."""
    times, place = np.unique(np.asarray(time, np.float64), return_inverse=True)
    seen = np.asarray(event) != 0
    events, censored = (np.bincount(place[kind], minlength=len(times)) for kind in (seen, ~seen))
    at_risk = np.cumsum((events + censored)[::-1])[::-1]
    return times, at_risk, events, censored


def _product(leaving: Amounts, among: Amounts) -> Floats:
    hazard = np.divide(leaving, among, out=np.zeros(len(among)), where=leaving > 0)
    return np.asarray(np.cumprod(1 - hazard))
