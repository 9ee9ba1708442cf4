"""The reported patients with the probabilities or risks that their fold's calibration gives them."""

from dataclasses import dataclass

import pandas as pd
from pydantic import JsonValue

from mil.endpoints.endpoint import Endpoint
from mil.fitted.calibrators import SELECT, calibrated_name
from mil.report.evaluation import Evaluation
from mil.report.predictions import fold_name, rows_of
from mil.report.schema import Model

NOT_CALIBRATED = "no fold could be calibrated"
"""Why a question or horizon has no numbers after recalibration."""


class FoldCalibration(Model):
    """What was fitted to the select patients of one fold, or the reason why nothing was."""

    fold: int | str
    n: int | None = None
    parameters: dict[str, JsonValue] | None = None
    reason: str | None = None


class CalibrationFit(Model):
    """A calibration method, and what it was fitted to."""

    method: str
    on: str
    folds: tuple[FoldCalibration, ...]


@dataclass(frozen=True, eq=False)
class Recalibrated:
    """The calibration of each fold, applied to its reported patients."""

    fit: CalibrationFit
    reported: pd.DataFrame
    """one row a patient, indexed by patient, as the first fold with a calibration has it; may be empty"""

    @property
    def method(self) -> str:
        """Name of the calibration method."""
        return self.fit.method

    def risks(self, column: str) -> tuple[str, pd.DataFrame]:
        """Return the calibrated column of a risk, and the patients who have a number there."""
        name = calibrated_name(column)
        return name, self.reported[self.reported[name].notna()] if name in self.reported else self.reported.head(0)


def recalibrated(evaluation: Evaluation) -> Recalibrated | None:
    """Apply each fold's calibration to its reported rows; None where there is none to apply.

    A fold whose patients were too few for a calibration is listed with the reason.
    """
    if not _columns(evaluation.endpoint):
        return None
    method, on = evaluation.tool.calibration, SELECT
    reported, folds = list[pd.DataFrame](), list[FoldCalibration]()
    for fold, rows in rows_of(evaluation.table, "report"):
        state = evaluation.state(fold)
        if (calibrator := state.calibration) is not None:
            reported.append(state.calibrated(rows))
            method, on = calibrator.method, calibrator.on  # a checkpoint may have been calibrated again elsewhere
            parameters = calibrator.model_dump(mode="json")
            folds.append(FoldCalibration(fold=fold_name(fold), n=calibrator.n, parameters=parameters))
        elif (reason := state.left_out.get("calibration")) is not None:
            folds.append(FoldCalibration(fold=fold_name(fold), reason=reason))
    if method is None or not folds:
        return None
    pooled = pd.concat(reported) if reported else evaluation.table.head(0)
    fit = CalibrationFit(method=str(method), on=on, folds=tuple(folds))
    return Recalibrated(fit, pooled.drop_duplicates("patient").set_index("patient"))


def _columns(endpoint: Endpoint) -> list[str]:
    """Return the columns that can be calibrated."""
    if endpoint.survival is not None:
        return [column for risks in endpoint.survival.all_risk_columns() for column in risks]
    return [column for question in endpoint.questions() for column in question.columns]
