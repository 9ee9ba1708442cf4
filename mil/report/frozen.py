"""What a section needs fitted: to each fold's own patients, or as a checkpoint has it frozen."""

import logging
from collections.abc import Hashable

import pandas as pd

from mil.errors import PredictionsError
from mil.fitted import calibrators, conformal
from mil.fitted.calibrators import Calibrator, either
from mil.fitted.conformal import Conformal
from mil.fitted.decision_rules import Decision, Plan
from mil.report.evaluation import Evaluation

logger = logging.getLogger(__name__)


def rows(evaluation: Evaluation, fold: Hashable, role: str) -> pd.DataFrame:
    """One fold's patients of one role."""
    table = evaluation.table
    return table[(table["fold"] == fold) & (table["role"] == role)]


def calibrator(evaluation: Evaluation, fold: Hashable) -> Calibrator | None:
    """What puts a fold's probabilities or risks right; none where the tool asks for none, or the checkpoint has none.

    Raises:
        ConfigError: a method that does not exist.
        PredictionsError: the fold's select patients cannot carry it.
    """
    if evaluation.frozen is not None:
        state = evaluation.frozen.get("calibration")
        return None if state is None else Calibrator.from_state(state)
    method = evaluation.tool.get("calibration")
    select = rows(evaluation, fold, "select").set_index("patient")
    return None if method is None else calibrators.fit(str(method), evaluation.endpoint, select)


def decided(
    evaluation: Evaluation, plan: Plan, fold: Hashable, reported: pd.DataFrame
) -> tuple[Decision, pd.DataFrame]:
    """A plan with its cuts, and a fold's reported rows with the calibrated columns that they may be of.

    Where select patients can carry no calibration, what the tool states is cut as the model gives it.

    Raises:
        PredictionsError: the fold's patients cannot set the cuts, or the checkpoint has none.
    """
    if not plan.stated:
        return decision(evaluation, plan, fold), reported
    try:
        found = calibrator(evaluation, fold)
    except PredictionsError as error:
        logger.warning("fold %s: cut as the model gives it: %s", fold, error)
        found = None
    return decision(evaluation, plan, fold, found), reported if found is None else found.apply(reported)


def decision(evaluation: Evaluation, plan: Plan, fold: Hashable, found: Calibrator | None = None) -> Decision:
    """A plan with its cuts, of calibrated columns where a rule states them and there is a calibration.

    Raises:
        PredictionsError: the fold's patients cannot set them, or the checkpoint has none.
    """
    if evaluation.frozen is None:
        return plan.fit(rows(evaluation, fold, "train"), rows(evaluation, fold, "select"), found)
    for state in evaluation.frozen.get("decisions") or []:
        frozen = Decision.from_state(state)
        if frozen.columns in either(plan.columns):
            return frozen
    raise PredictionsError(f"decision {plan.name}: the checkpoint holds none, expected one that was frozen with it")


def limits(evaluation: Evaluation, fold: Hashable) -> Conformal | None:
    """The limits of sets or intervals; none where the endpoint or the checkpoint has none."""
    if evaluation.frozen is None:
        return conformal.fit(evaluation.tool["conformal"], evaluation.endpoint, rows(evaluation, fold, "select"))
    state = evaluation.frozen.get("conformal")
    return None if state is None else Conformal.from_state(state)
