"""What a section needs fitted: to each fold's own patients, or as a checkpoint has it frozen."""

from collections.abc import Hashable

import pandas as pd

from mil.decisions import conformal
from mil.decisions.conformal import Conformal
from mil.decisions.rules import Decision, Plan
from mil.errors import PredictionsError
from mil.evaluation.context import Evaluation


def rows(evaluation: Evaluation, fold: Hashable, role: str) -> pd.DataFrame:
    """One fold's patients of one role."""
    table = evaluation.table
    return table[(table["fold"] == fold) & (table["role"] == role)]


def decision(evaluation: Evaluation, plan: Plan, fold: Hashable) -> Decision:
    """A plan with its cuts.

    Raises:
        PredictionsError: the fold's patients cannot set them, or the checkpoint has none.
    """
    if evaluation.frozen is None:
        return plan.fit(rows(evaluation, fold, "train"), rows(evaluation, fold, "select"))
    for state in evaluation.frozen.get("decisions") or []:
        frozen = Decision.from_state(state)
        if frozen.columns == plan.columns:
            return frozen
    raise PredictionsError(f"decision {plan.name}: the checkpoint holds none, expected one that was frozen with it")


def limits(evaluation: Evaluation, fold: Hashable) -> Conformal | None:
    """The limits of sets or intervals; none where the endpoint or the checkpoint has none."""
    if evaluation.frozen is None:
        return conformal.fit(evaluation.tool["conformal"], evaluation.endpoint, rows(evaluation, fold, "select"))
    state = evaluation.frozen.get("conformal")
    return None if state is None else Conformal.from_state(state)
