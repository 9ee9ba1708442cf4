"""From one probability to another: a line on a scale where it is straight, or straight pieces between corners."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from mil.stats.calibration_metrics import log_log, logit

Floats = NDArray[np.float64]
LOGIT, LOG_LOG = "logit", "log_log"
_SCALES: Mapping[str, tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]] = {
    LOGIT: (logit, expit),
    LOG_LOG: (log_log, lambda eta: -np.expm1(-np.exp(np.minimum(eta, 50.0)))),
}
"""There and back; at 50 a risk has long been one."""


@dataclass(frozen=True)
class Curve:
    """One question's probability, or the risk of one event at one horizon."""

    name: str
    columns: tuple[str, ...]
    """of the predictions, whose sum is mapped"""
    n: int
    positives: int
    """or events until the horizon"""
    intercept: float = 0.0
    slope: float = 1.0
    corners: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """probabilities before and after, both rising; then no line"""
    scale: str = LOGIT
    """on which the line is straight: of probabilities `logit`, of risks `log_log`, log(-log(1 - risk))"""

    def __call__(self, table: pd.DataFrame) -> Floats:
        """The probability put right, `(p,)`."""
        given = table[list(self.columns)].astype(np.float64).sum(axis=1, skipna=False).to_numpy()
        if self.corners is not None:
            return np.asarray(np.interp(given, *self.corners))
        there, back = _SCALES[self.scale]
        return np.asarray(back(self.intercept + self.slope * there(given)))

    def state(self) -> dict[str, Any]:
        """All of it in plain JSON types."""
        corners = self.corners and [list(side) for side in self.corners]
        return asdict(self) | {"columns": list(self.columns), "corners": corners}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Curve":
        """Takes back what `state` gave; curves of probabilities were once stored without their scale.

        Raises:
            KeyError: something is missing, or the scale is none.
        """
        sides, scale = state["corners"], str(state.get("scale", LOGIT))
        if scale not in _SCALES:
            raise KeyError(scale)
        corners = None if sides is None else (tuple(map(float, sides[0])), tuple(map(float, sides[1])))
        return cls(
            name=str(state["name"]),
            columns=tuple(map(str, state["columns"])),
            n=int(state["n"]),
            positives=int(state["positives"]),
            intercept=float(state["intercept"]),
            slope=float(state["slope"]),
            corners=corners,
            scale=scale,
        )
