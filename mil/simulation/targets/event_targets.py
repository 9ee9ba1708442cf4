"""Time to an event, with censoring."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from mil.errors import ConfigError
from mil.simulation.associations import FollowUp
from mil.simulation.draws import SPREAD, Draws, Floats, noisy_view, stratified
from mil.simulation.effect_sizes import Hazard, proportional_hazard, sample_c
from mil.simulation.targets.simulated_target import Truth, discrimination, proportion

_TRIES = 64
_TRIED = 2000  # patients from whom on luck is small and a second try not worth its time


@dataclass(frozen=True)
class Survival:
    """Time to an event, by a Weibull proportional-hazards model with administrative and random censoring.

    Args:
        time: the column of follow-up times, months.
        event: the column of the event indicator, 0 or 1.
        event_rate: share of patients whose event is seen.
        attainable: Harrell's C of a perfect reader of the tiles.
        horizon: end of follow-up, months.
        shape: the Weibull distribution's; above one the hazard rises.
    """

    time: str
    event: str
    event_rate: float
    attainable: float
    horizon: float = 60.0
    shape: float = 1.2

    def __post_init__(self) -> None:
        proportion("event_rate", self.event_rate)
        discrimination(self.attainable)
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
        """Draw the truth about patients.

        Few patients have few events, so the C-index of a perfect reader varies much by chance. Of several draws the one
        is used whose C-index is nearest to the population's.
        """
        hazard = proportional_hazard(self.attainable, self.event_rate, self.horizon, self.shape)
        return most_typical(lambda: self._draw(hazard, patients, rng), self._luck, patients)

    def _draw(self, hazard: Hazard, patients: int, rng: Draws) -> Truth:
        uniform = stratified(patients, 4, rng)
        shown, severity = noisy_view(ndtri(uniform[:, 0]), ndtri(uniform[:, 1]))
        died = death(hazard, severity, uniform[:, 2])
        left = np.minimum(hazard.horizon, -np.log(uniform[:, 3]) / max(hazard.loss, 1e-12))
        time = np.clip(np.round(np.minimum(died, left), 2), 0.01, None)
        return Truth(
            severity=severity,
            shown=shown,
            shares=ndtr(shown / SPREAD)[:, None],
            labels=pd.DataFrame({self.time: time, self.event: (died <= left).astype(np.int64)}),
            hidden=pd.DataFrame({f"uncensored_{self.time}": np.round(died, 2)}),
        )

    def _luck(self, truth: Truth) -> float:
        time, event = (truth.labels[column].to_numpy() for column in self.columns)
        return abs(sample_c(time, event, truth.shown) - self.attainable)

    def outcome(self, labels: pd.DataFrame) -> FollowUp:
        return FollowUp(labels[self.time].to_numpy(), labels[self.event].to_numpy(), (self.event,))

    def oracle(self, shares: Floats) -> pd.DataFrame:
        return pd.DataFrame({"oracle": shares[:, 0]})

    def flip(self, labels: pd.DataFrame, chosen: NDArray[np.intp], rng: Draws) -> pd.DataFrame:
        """Exchange time and event among the chosen patients."""
        return exchanged(labels, chosen)


def most_typical(draw: Callable[[], Truth], luck: Callable[[Truth], float], patients: int) -> Truth:
    """Return the most typical of several draws; for many patients, one draw."""
    return min((draw() for _ in range(_TRIES if patients < _TRIED else 1)), key=luck)


def exchanged(labels: pd.DataFrame, chosen: NDArray[np.intp]) -> pd.DataFrame:
    """Give each chosen patient the labels of another one."""
    wrong = labels.copy()
    wrong.iloc[chosen] = labels.iloc[np.roll(chosen, 1)].to_numpy()
    return wrong.astype(labels.dtypes)


def death(hazard: Hazard, severity: Floats, uniform: Floats) -> Floats:
    """Return times of death `(p,)` by inversion of the survival function."""
    cumulative = -np.log(uniform) * np.exp(-hazard.slope * severity)
    return np.asarray(hazard.scale * cumulative ** (1 / hazard.shape))
