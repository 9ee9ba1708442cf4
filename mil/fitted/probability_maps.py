"""From one probability to another: a line on a scale where it is straight, or straight pieces between corners."""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.special import expit

from mil.stats.calibration_metrics import log_log, logit

Floats = NDArray[np.float64]
Scale = Literal["logit", "log_log"]
LOGIT: Scale = "logit"
LOG_LOG: Scale = "log_log"
_SCALES: Mapping[Scale, tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]] = {
    LOGIT: (logit, expit),
    LOG_LOG: (log_log, lambda eta: -np.expm1(-np.exp(np.minimum(eta, 50.0)))),
}
"""The transformation to each scale and back; at 50 a risk has long been one."""


class Curve(BaseModel):
    """Map one question's probability, or the risk of one event at one horizon, to the calibrated one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
    note: str | None = None
    """what bounded it"""
    scale: Scale = LOGIT
    """on which the line is straight: of probabilities `logit`, of risks `log_log`, log(-log(1 - risk))"""

    def __call__(self, table: pd.DataFrame) -> Floats:
        """Return the calibrated probabilities, `(p,)`."""
        raw = table[list(self.columns)].astype(np.float64).sum(axis=1, skipna=False).to_numpy()
        if self.corners is not None:
            return np.asarray(np.interp(raw, *self.corners))
        transform, inverse = _SCALES[self.scale]
        return np.asarray(inverse(self.intercept + self.slope * transform(raw)))
