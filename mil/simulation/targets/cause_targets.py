"""Time to the first of two events."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from mil.errors import ConfigError
from mil.simulation.associations import FollowUp
from mil.simulation.draws import SPREAD, Draws, Floats, noisy_view, stratified
from mil.simulation.effect_sizes import Hazard, competing_hazard, sample_c
from mil.simulation.targets.event_targets import death, exchanged, most_typical
from mil.simulation.targets.simulated_target import Truth, class_names, discrimination, proportion

CENSORED = "censored"


@dataclass(frozen=True)
class CompetingRisks:
    """Two causes: a Weibull proportional-hazards model of the severity, and one independent of it.

    Args:
        time: the column of follow-up times, months.
        event: the column of how it ended: `censored`, or the name of a cause.
        causes: the two causes' names.
        event_rate: share of patients with the first cause.
        competing_rate: share of patients with the second.
        attainable: C-index of the first cause of a perfect reader of the tiles (Wolbers et al., Epidemiology 2009).
        horizon: end of follow-up, months.
        shape: the Weibull distribution's.
    """

    time: str
    event: str
    causes: Sequence[str]
    event_rate: float
    competing_rate: float
    attainable: float
    horizon: float = 60.0
    shape: float = 1.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "causes", class_names(self.causes, least=2, most=2))
        proportion("event_rate", self.event_rate)
        proportion("competing_rate", self.competing_rate)
        discrimination(self.attainable)
        if self.event_rate + self.competing_rate >= 1:
            together = self.event_rate + self.competing_rate
            raise ConfigError(f"competing_rate: {together:g} found with event_rate, a sum below 1 expected")
        for name, value in (("horizon", self.horizon), ("shape", self.shape)):
            if not 0 < value < np.inf:
                raise ConfigError(f"{name}: {value} found, a positive number expected")

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.time, self.event)

    @property
    def biomarkers(self) -> tuple[str, ...]:
        return ("biomarker",)

    def draw(self, patients: int, rng: Draws) -> Truth:
        """Draw the truth about patients; of several draws the most typical, as in `Survival.draw`."""
        rates = self.event_rate, self.competing_rate
        hazard = competing_hazard(self.attainable, *rates, self.horizon, self.shape)
        return most_typical(lambda: self._draw(hazard, patients, rng), self._luck, patients)

    def _draw(self, hazard: Hazard, patients: int, rng: Draws) -> Truth:
        uniform = stratified(patients, 5, rng)
        shown, severity = noisy_view(ndtri(uniform[:, 0]), ndtri(uniform[:, 1]))
        died, competing = death(hazard, severity, uniform[:, 2]), -np.log(uniform[:, 3]) / hazard.competing
        left = np.minimum(hazard.horizon, -np.log(uniform[:, 4]) / hazard.loss)
        ends = np.stack([left, died, competing])  # (3, p)
        time = np.clip(np.round(ends.min(axis=0), 2), 0.01, None)
        words = np.array([CENSORED, *self.causes])[ends.argmin(axis=0)]
        return Truth(
            severity=severity,
            shown=shown,
            shares=ndtr(shown / SPREAD)[:, None],
            labels=pd.DataFrame({self.time: time, self.event: words}),
            hidden=pd.DataFrame({f"uncensored_{self.time}": np.round(died, 2)}),
        )

    def _luck(self, truth: Truth) -> float:
        time, word = truth.labels[self.time].to_numpy(), truth.labels[self.event].to_numpy()
        outlived = np.where(word == self.causes[1], np.inf, time)
        return abs(sample_c(outlived, (word == self.causes[0]).astype(np.int64), truth.shown) - self.attainable)

    def outcome(self, labels: pd.DataFrame) -> FollowUp:
        code = {name: k for k, name in enumerate((CENSORED, *self.causes))}
        cause = np.array([code[word] for word in labels[self.event]], np.int64)
        return FollowUp(labels[self.time].to_numpy(), cause, tuple(self.causes))

    def oracle(self, shares: Floats) -> pd.DataFrame:
        return pd.DataFrame({"oracle": shares[:, 0]})

    def flip(self, labels: pd.DataFrame, chosen: NDArray[np.intp], rng: Draws) -> pd.DataFrame:
        """Exchange time and event among the chosen patients."""
        return exchanged(labels, chosen)
