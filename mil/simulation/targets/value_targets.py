"""A number with a unit."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from mil.errors import ConfigError
from mil.simulation.draws import SPREAD, Draws, Floats, noisy_view, stratified
from mil.simulation.targets.event_targets import exchanged, most_typical
from mil.simulation.targets.simulated_target import Truth, normal_scores
from mil.stats.value_metrics import r2

_MOST = 1 / SPREAD**2
"""What the tiles show of a severity that is the number itself."""


@dataclass(frozen=True)
class Regression:
    """A normally distributed number, of which severity is a part.

    Args:
        column: the number's column.
        attainable: R² of a perfect reader of the tiles.
        mean: of the numbers.
        sd: of the numbers.
    """

    column: str
    attainable: float
    mean: float = 0.0
    sd: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.attainable <= _MOST:
            raise ConfigError(f"attainable: {self.attainable} found, a number from 0 to {_MOST:.3f} expected")
        if not np.isfinite(self.mean):
            raise ConfigError(f"mean: {self.mean} found, a number expected")
        if not 0 < self.sd < np.inf:
            raise ConfigError(f"sd: {self.sd} found, a positive number expected")

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def biomarkers(self) -> tuple[str, ...]:
        return ("biomarker",)

    def draw(self, patients: int, rng: Draws) -> Truth:
        return most_typical(lambda: self._draw(patients, rng), self._luck, patients)

    def _draw(self, patients: int, rng: Draws) -> Truth:
        normal = ndtri(stratified(patients, 3, rng))
        shown, severity = noisy_view(normal[:, 0], normal[:, 1])
        explained = self.attainable / _MOST  # of the variance, by the severity
        value = self.mean + self.sd * (np.sqrt(explained) * severity + np.sqrt(1 - explained) * normal[:, 2])
        # a thousandth of a standard deviation is as fine as anybody measures
        digits = 3 - int(np.floor(np.log10(self.sd)))
        return Truth(
            severity=severity,
            shown=shown,
            shares=ndtr(shown / SPREAD)[:, None],
            labels=pd.DataFrame({self.column: np.round(value, digits)}),
            hidden=pd.DataFrame(index=range(patients)),
        )

    def _luck(self, truth: Truth) -> float:
        reached = r2(self.oracle(truth.shares)["oracle"], truth.labels[self.column])
        return abs(float(reached) - self.attainable)

    def outcome(self, labels: pd.DataFrame) -> None:
        """Return None: clinical variables have effects on the severity."""

    def oracle(self, shares: Floats) -> pd.DataFrame:
        """Return the expected number."""
        return pd.DataFrame({"oracle": self.mean + self.sd * np.sqrt(self.attainable) * normal_scores(shares[:, 0])})

    def flip(self, labels: pd.DataFrame, chosen: NDArray[np.intp], rng: Draws) -> pd.DataFrame:
        """Exchange numbers among the chosen patients."""
        return exchanged(labels, chosen)
