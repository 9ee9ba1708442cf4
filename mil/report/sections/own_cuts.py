"""The cuts of a tool's own decision as probabilities, and who is above each: where decision curves are judged."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.endpoints.question import Question
from mil.fitted.decision_rules import Plan, group_plan, plans
from mil.report.evaluation import Evaluation
from mil.report.predictions import fold_name, rows_of
from mil.report.sections.applied_cuts import FittedCuts, call_patients
from mil.report.sections.operating_point import CUT, LOWER, UPPER


@dataclass(frozen=True, eq=False)
class OwnCut:
    """One cut of a tool's decision."""

    name: str
    threshold: float
    """probability at the cut, the mean over folds"""
    above: NDArray[np.bool_]
    """who is called above it, `(p,)`"""


def own_cuts(
    evaluation: Evaluation,
    question: Question | None,
    column: str | None,
    shown: tuple[str, ...],
    probability: "pd.Series[float]",
) -> tuple[OwnCut, ...]:
    """Return the cuts of the tool's decision about a question, or about the risk in a column; none without one.

    A cut of uncalibrated scores has the calibrated probability in the middle between its neighbours on either side.

    Args:
        evaluation: With the tool and what was fitted.
        question: A yes-or-no question; None for a risk.
        column: Of a risk at a horizon; None for a question.
        shown: Columns whose sum is the probability that is judged.
        probability: By patient.
    """
    plan = _plan(evaluation, question, column)
    if plan is None:
        return ()
    fitted, decided = call_patients(evaluation, plan)
    decided = decided[decided.index.isin(probability.index)]
    names = (CUT,) if len(plan.calls) == 2 else (LOWER, UPPER)
    cuts = []
    for at, name in enumerate(names):
        lower_calls = plan.calls[: at + 1]
        above = ~decided["call"].isin(lower_calls)
        threshold = _threshold(evaluation, fitted, at, shown, probability, above)
        if threshold is not None and 0 < threshold < 1:
            everybody = above.reindex(probability.index, fill_value=False).to_numpy(dtype=bool)
            cuts.append(OwnCut(name, threshold, everybody))
    return tuple(cuts)


def _plan(evaluation: Evaluation, question: Question | None, column: str | None) -> Plan | None:
    decision, endpoint = evaluation.tool.decision_of_single(), evaluation.endpoint
    if question is not None:
        about = (plan for plan in plans(decision, endpoint) if plan.question is not None and not plan.compares_classes)
        return next((plan for plan in about if plan.question is not None and plan.question.name == question.name), None)
    plan = group_plan(decision, endpoint)
    return plan if plan is not None and plan.columns == (column,) else None


def _threshold(
    evaluation: Evaluation,
    fitted: tuple[FittedCuts, ...],
    at: int,
    shown: tuple[str, ...],
    probability: "pd.Series[float]",
    above: "pd.Series[bool]",
) -> float | None:
    """Return the probability at a cut, the mean over the folds that have one; None where no fold has."""
    by_fold = {each.fold: each for each in fitted if each.cuts}
    thresholds = []
    for fold, rows in rows_of(evaluation.table, "report"):
        cuts = by_fold.get(fold_name(fold))
        if cuts is None or cuts.cuts is None:
            continue
        if cuts.columns == shown:
            thresholds.append(cuts.cuts[min(at, len(cuts.cuts) - 1)])
            continue
        calls = above[above.index.isin(rows["patient"])]
        over, under = (probability[calls.index[calls.to_numpy(dtype=bool) == side]] for side in (True, False))
        if len(over) and len(under):
            thresholds.append((float(over.min()) + float(under.max())) / 2)
    return float(np.mean(thresholds)) if thresholds else None
