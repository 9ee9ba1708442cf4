"""Everything that is fitted once a model has its weights, and how it is applied to scores.

It is fitted at the end of training (`FittedState.fit`), stored in the checkpoint's manifest, and applied unchanged by
predictions, reports and cards. `refit` is for tables of predictions that no checkpoint stands behind.
"""

import logging
from collections.abc import Callable, Collection, Hashable, Mapping
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, JsonValue

from mil.endpoints.endpoint import Endpoint
from mil.errors import PredictionsError
from mil.fitted import conformal, decision_rules, novelty
from mil.fitted.calibration_check import CalibrationCheck, fit_where_it_helps
from mil.fitted.calibrators import Calibrator, raw_and_calibrated
from mil.fitted.checks import check_specification
from mil.fitted.conformal import Conformal
from mil.fitted.decision_rules import Decision, Plan, group_plan, plans
from mil.fitted.novelty import Novelty
from mil.fitted.options import NoveltyOptions
from mil.fitted.specification import Specification
from mil.fitted.withholding import RowBags, reasons, withhold

logger = logging.getLogger(__name__)
Fitted = TypeVar("Fitted")


class BagSummaries(NamedTuple):
    """Size and mean features of one role's bags."""

    tiles: NDArray[np.int64]
    """number of tiles, `(b,)`"""
    means: NDArray[np.float64]
    """mean features, `(b, d)`"""


class FittedState(BaseModel):
    """What was fitted beside a model's weights: endpoint, decisions, calibration, prediction sets, novelty."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: dict[str, JsonValue] = {}
    """class weights, baseline hazards and the like, as `Endpoint.state` returns them"""
    endpoint_on: str = "train"
    """role of the patients that the endpoint was fitted to"""
    decisions: tuple[Decision, ...] = ()
    """decisions of the tool; of several endpoints each begins with its endpoint's name and a space"""
    calibration: Calibrator | None = None
    """as far as it helps by cross-validation, see `calibration_checks`"""
    calibration_checks: tuple[CalibrationCheck, ...] = ()
    """what of the calibration was kept, with the log loss before and after; empty where none was fitted"""
    conformal: Conformal | None = None
    novelty: Novelty | None = None
    risk_groups: tuple[Decision, ...] = ()
    """for reports on survival, where the tool has no rule of risk groups: groups cut at the training median"""
    left_out: dict[str, str] = {}
    """what was asked for and could not be fitted (`calibration`, `conformal`, `decision <name>`), with the reason"""

    @classmethod
    def fit(
        cls,
        tool: Specification,
        endpoint: Endpoint,
        train: pd.DataFrame,
        select: pd.DataFrame,
        bags: Mapping[str, BagSummaries] | None = None,
    ) -> "FittedState":
        """Fit what the tool's `decision`, `calibration`, `conformal` and `novelty` ask for.

        What these patients cannot support is left out, with the reason in `left_out` and a warning.

        Args:
            tool: What is asked for.
            endpoint: What is predicted; its own state is stored as it is now.
            train: Targets and scores of the training patients.
            select: Targets and scores of the patients of model selection.
            bags: Summaries of the bags of `train` and, where there are some, `select`; without them novelty is not
                fitted.

        Raises:
            ConfigError: the tool asks for something that does not exist.
        """
        check_specification(tool, endpoint)
        attempts = _Attempts()
        calibrator, checks = attempts.calibration(tool.calibration, endpoint, select)
        decisions, risk_groups = list[Decision](), list[Decision]()
        for prefix, decision, single in tool.decisions(endpoint):
            patients = train[single.has_target(train)], select[single.has_target(select)]
            requested = plans(decision, single)
            for plan in requested:
                decisions += attempts.decision(prefix, partial(plan.fit, *patients, calibrator), plan)
            if not requested and (groups := group_plan(None, single)) is not None:
                fit = partial(groups.fit, *patients, calibrator)
                risk_groups += attempts.decision(prefix, fit, groups, logging.DEBUG)  # no tool asked for them
        limits = None
        if (sets := tool.conformal) is not None:
            limits = attempts.make("conformal", partial(conformal.fit, sets, endpoint, select))
        return cls(
            endpoint=endpoint.state(),
            decisions=tuple(decisions),
            calibration=calibrator,
            calibration_checks=checks,
            conformal=limits,
            novelty=None if tool.novelty is None or bags is None else _novelty(tool.novelty, bags),
            risk_groups=tuple(risk_groups),
            left_out=attempts.reasons,
        )

    def apply(self, table: pd.DataFrame, bags: RowBags | None = None) -> pd.DataFrame:
        """Add what follows from scores: `calibrated_*`, `call*`, `set*` or `low` and `high`, and `withheld`.

        A column that the table has already is not replaced.

        Args:
            table: Scores, one row a patient or slide.
            bags: The bags behind the rows; without them no result is withheld.

        Raises:
            CheckpointError: features of another width than in training.
            PredictionsError: a column of scores that is needed is missing.
        """
        out = self.calibrated(table)
        if self.decisions:
            out = _joined(out, decision_rules.apply(self.decisions, out))
        if self.conformal is not None:
            out = _joined(out, self.conformal.apply(table))
        if self.novelty is not None and bags is not None:
            out = withhold(out, reasons(self.novelty, bags, len(out)))
        return out

    def calibrated(self, table: pd.DataFrame) -> pd.DataFrame:
        """Add the calibrated columns, where a calibration was fitted.

        Raises:
            PredictionsError: a column of scores is missing.
        """
        return table if self.calibration is None else _joined(table, self.calibration.apply(table))

    def decision(self, plan: Plan) -> Decision:
        """Return the fitted decision of a plan.

        Raises:
            PredictionsError: it was not fitted; with the reason, where that is known.
        """
        for fitted in (*self.decisions, *self.risk_groups):
            if fitted.columns in raw_and_calibrated(plan.columns):
                return fitted
        missing = f"decision {plan.name}: the checkpoint holds none, expected one that was fitted with it"
        raise PredictionsError(self.left_out.get(f"decision {plan.name}", missing))

    def of_endpoint(self, name: str) -> "FittedState":
        """Return what was fitted for one of several endpoints: its decisions, by the names it gives them."""
        start = f"{name} "
        reasons_of = {key.removeprefix("decision "): reason for key, reason in self.left_out.items()}
        return FittedState(
            decisions=_of_endpoint(self.decisions, start),
            risk_groups=_of_endpoint(self.risk_groups, start),
            left_out={
                f"decision {key.removeprefix(start)}": reason
                for key, reason in reasons_of.items()
                if key.startswith(start)
            },
        )


def refit(table: pd.DataFrame, endpoint: Endpoint, tool: Specification) -> dict[Hashable, FittedState]:
    """Fit a state to each fold's own training and selection rows of a table of predictions.

    For predictions that no checkpoint stands behind: those of other software, and those of a nested selection.

    Args:
        table: Columns `fold` and `role`, targets and scores; rows of the final test are not read.
        endpoint: What was predicted.
        tool: As in `FittedState.fit`.

    Raises:
        ConfigError: the tool asks for something that does not exist.
    """
    states = dict[Hashable, FittedState]()
    for fold, rows in table.groupby("fold"):
        by_patient = rows.set_index("patient")
        train, select = (by_patient[by_patient["role"] == role] for role in ("train", "select"))
        states[fold] = FittedState.fit(tool, endpoint, train, select)
    return states


class _Attempts:
    """Fits that patients may be too few for; remembers the reasons."""

    def __init__(self) -> None:
        self.reasons = dict[str, str]()

    def make(self, what: str, fit: Callable[[], Fitted], level: int = logging.WARNING) -> Fitted | None:
        """Return what was fitted, or None and log the reason at this level."""
        try:
            return fit()
        except PredictionsError as error:
            logger.log(level, "no %s: %s", what.partition(" ")[0], error)
            self.reasons[what] = str(error)
            return None

    def calibration(
        self, method: str | None, endpoint: Endpoint, select: pd.DataFrame
    ) -> tuple[Calibrator | None, tuple[CalibrationCheck, ...]]:
        """Return a calibration as far as it helps, and what was compared."""
        if method is None:
            return None, ()
        choice = self.make("calibration", partial(fit_where_it_helps, method, endpoint, select))
        if choice is None:
            return None, ()
        if choice.calibrator is None:
            self.reasons["calibration"] = choice.reason(method)
            logger.warning("%s", self.reasons["calibration"])
        return choice

    def decision(
        self, prefix: str, fit: Callable[[], Decision], plan: Plan, level: int = logging.WARNING
    ) -> Collection[Decision]:
        """Return the fitted decision under its endpoint's name, or nothing."""
        fitted = self.make(f"decision {prefix}{plan.name}", fit, level)
        return [] if fitted is None else [fitted.model_copy(update={"name": f"{prefix}{fitted.name}"})]


def _novelty(options: NoveltyOptions, bags: Mapping[str, BagSummaries]) -> Novelty:
    train, select = bags["train"], bags.get("select")
    return novelty.fit(options, train.tiles, train.means, None if select is None else select.means)


def _of_endpoint(decisions: Collection[Decision], start: str) -> tuple[Decision, ...]:
    return tuple(
        fitted.model_copy(update={"name": fitted.name.removeprefix(start)})
        for fitted in decisions
        if fitted.name.startswith(start)
    )


def _joined(table: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    return table.assign(**{str(name): new[name] for name in new if name not in table})
