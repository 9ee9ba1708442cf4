"""The reported patients with the probabilities that their fold's calibration gives them."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from mil.endpoints.endpoint import Endpoint
from mil.fitted.calibrators import SELECT, calibrated_name
from mil.report.evaluation import Evaluation
from mil.report.predictions import rows_of


@dataclass(frozen=True, eq=False)
class Recalibrated:
    """What was fitted in each fold, and whom it was applied to."""

    method: str
    reported: pd.DataFrame
    """One row a patient, indexed by patient, as the first fold with a calibration has it; may be empty."""
    fitted: list[dict[str, Any]]
    """A fold each: `fold`, and `n`, `parameters`, or the `reason` why there is none."""
    on: str
    """Which patients it was fitted to."""

    def answered(self, column: str) -> tuple[str, pd.DataFrame]:
        """A risk's calibrated column, and the patients who have a number there."""
        name = calibrated_name(column)
        return name, self.reported[self.reported[name].notna()] if name in self.reported else self.reported.head(0)


def recalibrated(evaluation: Evaluation) -> Recalibrated | None:
    """Apply each fold's calibration to its reported rows; None where there is none to apply.

    A fold whose patients were too few for a calibration is listed with the reason.
    """
    if not _columns(evaluation.endpoint):
        return None
    tables, fitted, method, on = list[pd.DataFrame](), list[dict[str, Any]](), evaluation.tool.get("calibration"), None
    for fold, rows in rows_of(evaluation.table, "report"):
        state = evaluation.state(fold)
        if (calibrator := state.calibration) is not None:
            tables.append(state.calibrated(rows))
            method, on = calibrator.method, calibrator.on  # a checkpoint may have been calibrated again elsewhere
            fitted.append({"fold": fold, "n": calibrator.n, "parameters": calibrator.model_dump(mode="json")})
        elif (reason := state.left_out.get("calibration")) is not None:
            fitted.append({"fold": fold, "reason": reason})
    if method is None or not fitted:
        return None
    pooled = pd.concat(tables) if tables else evaluation.table.head(0)
    once = pooled.drop_duplicates("patient").set_index("patient")
    return Recalibrated(str(method), once, fitted, on or SELECT)


def _columns(endpoint: Endpoint) -> list[str]:
    """What can be calibrated."""
    if endpoint.survival is not None:
        return [name for columns in endpoint.survival.all_risk_columns() for name in columns]
    return [name for question in endpoint.questions() for name in question.columns]
