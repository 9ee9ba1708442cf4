"""The reported patients with the probabilities that their fold's calibration gives them."""

import logging
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mil.endpoints.endpoint import Endpoint
from mil.errors import PredictionsError
from mil.fitted.calibrators import calibrated_name
from mil.report.evaluation import Evaluation
from mil.report.frozen import calibrator
from mil.report.predictions import rows_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Recalibrated:
    """What was fitted in each fold, and whom it was applied to."""

    method: str
    reported: pd.DataFrame
    """One row a patient, indexed by patient, as the first fold with a calibration has it; may be empty."""
    fitted: list[dict[str, Any]]
    """A fold each: `fold`, and `n`, `parameters`, or the `reason` why there is none."""

    @property
    def on(self) -> str:
        """Which patients it was fitted to."""
        return "select" if self.fitted else "frozen before: the table brings calibrated columns"

    def answered(self, column: str) -> tuple[str, pd.DataFrame]:
        """A risk's calibrated column, and the patients who have a number there."""
        name = calibrated_name(column)
        return name, self.reported[self.reported[name].notna()] if name in self.reported else self.reported.head(0)


def recalibrated(evaluation: Evaluation) -> Recalibrated | None:
    """Fits the tool's calibration to each fold's select rows and applies it to its report rows; none without one.

    Where the table brings calibrated columns, as a released tool's predictions do, they are taken as they are and
    nothing is fitted.

    Raises:
        ConfigError: a method that does not exist.
    """
    method, names = _method(evaluation), _columns(evaluation.endpoint)
    if method is None or not names:
        return None
    if set(map(calibrated_name, names)) <= set(evaluation.table.columns):
        return Recalibrated(method, evaluation.reported, [])
    parts, fitted = list[pd.DataFrame](), list[dict[str, Any]]()
    for fold, rows in rows_of(evaluation.table, "report"):
        try:
            found = calibrator(evaluation, fold)
        except PredictionsError as error:
            logger.warning("fold %s: %s", fold, error)
            fitted.append({"fold": fold, "reason": str(error)})
            continue
        if found is not None:
            parts.append(found.apply(rows))
            fitted.append({"fold": fold, "n": found.n, "parameters": found.state()})
    pooled = pd.concat(parts) if parts else evaluation.table.head(0)
    return Recalibrated(method, pooled.drop_duplicates("patient").set_index("patient"), fitted)


def _method(evaluation: Evaluation) -> str | None:
    """What the tool asks for, or what a checkpoint holds, which may have been put right anew since it was trained."""
    held = (evaluation.frozen or {}).get("calibration")
    method = held["method"] if held else evaluation.tool.get("calibration")
    return None if method is None else str(method)


def _columns(endpoint: Endpoint) -> list[str]:
    """What can be calibrated."""
    if endpoint.survival is not None:
        return [name for columns in endpoint.survival.all_risk_columns() for name in columns]
    return [name for question in endpoint.questions() for name in question.columns]
