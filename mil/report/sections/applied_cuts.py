"""The frozen decisions applied to the reported patients, fold by fold.

Each fold's cuts come from its own training or selection patients. Calls, unlike scores, can be pooled over folds; a
patient whom several folds report counts once, as in the first fold that can decide.
"""

import logging
from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from mil.errors import PredictionsError
from mil.fitted.decision_rules import Plan
from mil.report.evaluation import Evaluation
from mil.report.predictions import fold_name, rows_of
from mil.report.schema import Model, Number

logger = logging.getLogger(__name__)


class FittedCuts(Model):
    """The cuts of one fold, and the patients who set them."""

    fold: int | str
    columns: tuple[str, ...] | None = None
    """summed into the score that is cut"""
    cuts: tuple[float, ...] | None = None
    """None where these patients cannot set them; `reason` says why"""
    on: str | None = None
    n: int | None = None
    positives: int | None = None
    achieved: dict[str, Number] = Field(default={})
    """rates of the patients who set the cuts"""
    note: str | None = None
    promise: str | None = None
    """what the cuts promise for further patients, in words"""
    reason: str | None = None


class FoldCalls(NamedTuple):
    """What the decision of one fold called its reported patients."""

    fitted: FittedCuts
    calls: NDArray[np.object_] | None
    """`(p,)`, None in place of a call where a score is missing; None for all where the fold has no cuts"""
    names: tuple[str, ...]
    """of the calls that there may be, from the lowest score"""


def call_fold(evaluation: Evaluation, plan: Plan, fold: Hashable, rows: pd.DataFrame) -> FoldCalls:
    """Apply a fold's decision to its reported rows; a fold without cuts decides nobody and says why."""
    name, state = fold_name(fold), evaluation.state(fold)
    try:
        decision = state.decision(plan)
        calls = decision.call(state.calibrated(rows))
    except PredictionsError as error:
        logger.warning("fold %s: %s", fold, error)
        return FoldCalls(FittedCuts(fold=name, n=0, reason=str(error)), None, ())
    fitted = FittedCuts(
        fold=name,
        columns=decision.columns,
        cuts=decision.cuts,
        on=decision.on,
        n=decision.n,
        positives=decision.positives,
        achieved=decision.achieved,
        note=decision.note,
        promise=" ".join(decision.promise_sentences()) or None,
    )
    return FoldCalls(fitted, calls, decision.calls)


def call_patients(evaluation: Evaluation, plan: Plan) -> tuple[tuple[FittedCuts, ...], pd.DataFrame]:
    """Return each fold's cuts, and the reported patients whom some fold decided, with their `call`."""
    fitted, decided = list[FittedCuts](), list[pd.DataFrame]()
    for fold, rows in rows_of(evaluation.table, "report"):
        result = call_fold(evaluation, plan, fold, rows)
        fitted.append(result.fitted)
        if result.calls is not None:
            decided.append(rows.assign(call=result.calls))
    called = pd.concat(decided or [evaluation.table.head(0).assign(call=None)])
    return tuple(fitted), called.dropna(subset=["call"]).drop_duplicates("patient").set_index("patient")
