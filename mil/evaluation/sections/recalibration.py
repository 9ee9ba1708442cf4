"""The reported patients with the probabilities that their fold's calibration gives them."""

import logging
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mil.decisions.calibrators import calibrated_name, fit
from mil.errors import PredictionsError
from mil.evaluation.context import Evaluation
from mil.evaluation.predictions import rows_of

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


def recalibrated(evaluation: Evaluation) -> Recalibrated | None:
    """Fits the tool's calibration to each fold's select rows and applies it to its report rows; none without one.

    Where the table brings calibrated columns, as a released tool's predictions do, they are taken as they are and
    nothing is fitted.

    Raises:
        ConfigError: a method that does not exist.
    """
    method = evaluation.tool.get("calibration")
    if method is None or not evaluation.questions:
        return None
    names = [calibrated_name(name) for question in evaluation.questions for name in question.columns]
    if set(names) <= set(evaluation.table.columns):
        return Recalibrated(str(method), evaluation.reported, [])
    select = dict(rows_of(evaluation.table, "select"))
    parts, fitted = list[pd.DataFrame](), list[dict[str, Any]]()
    for fold, rows in rows_of(evaluation.table, "report"):
        try:
            calibrator = fit(str(method), evaluation.endpoint, select[fold].set_index("patient"))
        except PredictionsError as error:
            logger.warning("fold %s: %s", fold, error)
            fitted.append({"fold": fold, "reason": str(error)})
            continue
        parts.append(calibrator.apply(rows))
        fitted.append({"fold": fold, "n": len(select[fold]), "parameters": calibrator.state()})
    pooled = pd.concat(parts) if parts else evaluation.table.head(0)
    return Recalibrated(str(method), pooled.drop_duplicates("patient").set_index("patient"), fitted)
