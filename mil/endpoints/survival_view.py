"""What an endpoint of times to an event declares about its predictions."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mil.endpoints.cox import BaselineHazard
from mil.stats.survival_metrics import c_index, competing_c_index

ROUNDING = 1e-6
"""By how much a horizon may exceed the follow-up, relative to it: 60 months are 1826.2 days."""


@dataclass(frozen=True)
class SurvivalView:
    """Columns, horizons and causes of an endpoint of times to an event."""

    time_column: str
    """of the cohort: follow-up time in `unit`"""
    event_column: str
    """of the cohort: how follow-up ended"""
    unit: str
    """days, months or years"""
    horizons: Mapping[str, float]
    """times in `unit` by name, at which the predictions state a risk"""
    rank_column: str
    """of the predictions: orders patients, larger for earlier events"""
    causes: tuple[str, ...] = ()
    """competing events, coded from 1, the one of interest first; empty where there is one kind of event"""
    baseline: BaselineHazard | None = None
    """hazard of a patient whose rank column is 0; None where that column is no log hazard, or nothing is fitted"""
    longest: float | None = None
    """longest follow-up of the training patients in `unit`, beyond which no risk is stated; None where it is unknown"""

    def beyond(self, horizon: str) -> str | None:
        """Return why there is no risk at a horizon, or None where the training patients were followed that long."""
        time = self.horizons[horizon]
        if self.longest is None or time <= self.longest * (1 + ROUNDING):
            return None
        followed = f"the training patients were followed for {self.longest:g} {self.unit} at most"
        return f"{time:g} {self.unit} lie beyond the follow-up: {followed}"

    def event_times(self, target: Tensor) -> Tensor:
        """Return time and code in double precision, `(p, 2)`; code 0 is censored, 1 the event or the first cause."""
        return target[:, :2].double()

    def risk_column(self, horizon: str, cause: str | None = None) -> str:
        """Return the predictions' column of the risk until a horizon; without `cause`, of the event of interest.

        Raises:
            ValueError: unknown horizon or cause.
        """
        if horizon not in self.horizons:
            raise ValueError(f"horizon {horizon!r}, expected one of {', '.join(self.horizons) or '(none)'}")
        if cause is None and self.causes:
            cause = self.causes[0]
        if cause is None:
            return f"risk_{horizon}"
        if cause not in self.causes:
            raise ValueError(f"cause {cause!r}, expected one of {', '.join(self.causes) or '(none)'}")
        return f"risk_{cause}_{horizon}"

    def risk_columns(self, cause: str | None = None) -> dict[str, str]:
        """Return `risk_column` by horizon, in order of time."""
        names = sorted(self.horizons, key=self.horizons.__getitem__)
        return {name: self.risk_column(name, cause) for name in names}

    def all_risk_columns(self) -> list[list[str]]:
        """Return the columns of all risks, one list per cause, each in order of time."""
        return [list(self.risk_columns(cause).values()) for cause in self.causes or (None,)]

    def concordance(
        self,
        risk: NDArray[np.float64],
        time: NDArray[np.float64],
        code: NDArray[np.float64],
        weight: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:
        """Return Harrell's C-index, `()` or `(r,)`; patients with a competing event count as event-free for ever."""
        return (competing_c_index if self.causes else c_index)(risk, time, code, weight)
