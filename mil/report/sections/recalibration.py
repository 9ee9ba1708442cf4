"""The reported patients with the probabilities or risks that their fold's calibration gives them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pandas as pd
from pydantic import Field, JsonValue

from mil.endpoints.endpoint import Endpoint
from mil.fitted.calibration_check import CalibrationCheck
from mil.fitted.calibrators import SELECT, calibrated_name
from mil.report.evaluation import Evaluation
from mil.report.predictions import fold_name, rows_of
from mil.report.schema import Estimate, Model, Sentence
from mil.report.sections.pooled import METHOD
from mil.stats.bootstrap import Floats
from mil.stats.bootstrap_intervals import Sampled
from mil.stats.jackknife import LOGARITHM, with_interval

NOT_CALIBRATED = "no fold has a calibration: it could not be fitted, or does not help"
"""Why a question or horizon has no numbers after recalibration."""


FEW = 300
NARROW = f"of fewer than {FEW} patients such an interval holds the truth in 0.89 to 0.93 of samples"
"""`docs/coverage.md`: losses of single patients are skewed."""


class FoldCalibration(Model):
    """What was fitted to the select patients of one fold, or the reason why nothing was."""

    fold: int | str
    n: int | None = None
    parameters: dict[str, JsonValue] | None = None
    reason: str | None = None
    checks: tuple[CalibrationCheck, ...] = Field(default=(), title="Does it help select patients")


class CalibrationEffect(Model):
    """Loss and slope of report patients without and with the tool's calibration, of the same patients."""

    name: str
    """of the question or horizon, or `all classes`"""
    score: str
    """the loss, smaller is better"""
    before: Estimate
    after: Estimate
    change: Estimate = Field(title="After minus before")
    slope_before: Estimate | None = None
    slope_after: Estimate | None = None
    verdict: Sentence | None = None
    """where the calibration made the report patients worse"""

    @classmethod
    def of(
        cls,
        name: str,
        score: str,
        samples: Mapping[str, Sampled],
        counts: Mapping[str, int],
        slopes: tuple[Estimate | None, Estimate | None] = (None, None),
        losses: Mapping[str, Callable[[Floats | None], Floats]] | None = None,
    ) -> "CalibrationEffect":
        """Return the effect from the loss `before` and `after` in the same resamples, and the two slopes.

        Args:
            name: Of the question or horizon.
            score: The loss in words.
            samples: Each loss in the resamples.
            counts: Of the patients, n first.
            slopes: Before and after.
            losses: Each loss from weights, where it is a mean over patients: the jackknife then gives its interval, as
                elsewhere in the report.
        """
        before, after = samples["before"], samples["after"]
        sides = {side: samples[side].interval(METHOD, counts) for side in ("before", "after")}
        for side, loss in (losses or {}).items():
            sides[side] = with_interval(sides[side], loss, counts["n"], LOGARITHM)
        effect = cls(
            name=name,
            score=score,
            before=sides["before"],
            after=sides["after"],
            change=after.minus(before).interval(METHOD, counts).with_caveat(NARROW if counts["n"] < FEW else None),
            slope_before=slopes[0],
            slope_after=slopes[1],
        )
        return effect.model_copy(update={"verdict": effect.sentence}) if effect.worsens else effect

    @property
    def worsens(self) -> bool:
        """Whether the loss of report patients is higher with the calibration than without."""
        return self.change.value is not None and self.change.value > 0

    @property
    def worsens_surely(self) -> bool:
        """Whether the interval of the change lies above zero."""
        return self.change.low is not None and self.change.low > 0

    @property
    def sentence(self) -> str:
        """The change in words, with n and interval."""
        slopes = ""
        if self.slope_before is not None and self.slope_after is not None:
            slopes = f", slope {self.slope_before} without and {self.slope_after} with it"
        direction = "higher" if self.worsens else "not higher"
        return (
            f"{self.name}: calibrated, the {self.score} of the report patients is {direction}: {self.after} and "
            f"{self.before} without it, change {self.change}, {self.change.population}{slopes}"
        )


class CalibrationFit(Model):
    """A calibration method, and what it was fitted to."""

    method: str
    on: str
    folds: tuple[FoldCalibration, ...]
    effects: tuple[CalibrationEffect, ...] = Field(default=(), title="Effect on report patients")


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

    def with_effects(self, effects: Iterable[CalibrationEffect]) -> CalibrationFit:
        """Return what was fitted, with what it does to report patients."""
        return self.fit.model_copy(update={"effects": tuple(effects)})

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
            folds.append(
                FoldCalibration(
                    fold=fold_name(fold), n=calibrator.n, parameters=parameters, checks=state.calibration_checks
                )
            )
        elif (reason := state.left_out.get("calibration")) is not None:
            folds.append(FoldCalibration(fold=fold_name(fold), reason=reason, checks=state.calibration_checks))
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
