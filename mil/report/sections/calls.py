"""What frozen decisions called each reported patient, and whether that is right."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from mil.endpoints.question import Question
from mil.fitted.decision import ABSTAINED, BETWEEN
from mil.fitted.decision_rules import Plan, plans
from mil.report.evaluation import Evaluation
from mil.report.schema import Estimate
from mil.report.sections.applied_cuts import call_patients
from mil.stats.proportions import proportion

UNDECIDED = "not decided"
"""The call of patients in folds that could not set a cut."""


@dataclass(frozen=True)
class CallRates:
    """How often each call was made among some patients, and how often it was right; empty without a decision."""

    calls: dict[str, int] | None = None
    undecided: Estimate | None = None
    sensitivity: Estimate | None = None
    """None for groups, which are neither right nor wrong"""
    specificity: Estimate | None = None


@dataclass(frozen=True, eq=False)
class Called:
    """One decision about the reported patients; each patient as in the first fold that can decide."""

    name: str
    calls: "pd.Series[str]"
    """by patient"""
    question: Question | None = None
    no: frozenset[str] = frozenset()
    """calls that rule the question out"""
    yes: frozenset[str] = frozenset()
    """calls that rule it in"""
    truth: "pd.Series[float] | None" = None
    """1, 0, or NaN where unknown, by patient; None for groups"""

    @property
    def decided(self) -> "pd.Series[bool]":
        """Which patients got a call, `indeterminate` included."""
        return ~self.calls.isin([ABSTAINED, UNDECIDED])

    def right(self, positive: bool) -> "pd.Series[bool]":
        """Return, for positives (or negatives) with a call, whether they were not ruled out (or in)."""
        if self.truth is None:
            raise ValueError(f"decision {self.name}: groups are neither right nor wrong")
        among = self.calls[self.decided & (self.truth == float(positive))]
        return ~among.isin(list(self.no if positive else self.yes))

    def rates(self, patients: pd.Index) -> CallRates:
        """Return how often each call was made among these patients, and how often it was right."""
        calls = self.calls.loc[patients]
        counts = {str(name): int(count) for name, count in calls.value_counts().sort_index().items()}
        undecided = proportion(int(calls.isin([BETWEEN, ABSTAINED, UNDECIDED]).sum()), len(calls))
        if self.truth is None:
            return CallRates(counts, undecided)
        sensitivity, specificity = (self._share_right(patients, positive) for positive in (True, False))
        return CallRates(counts, undecided, sensitivity, specificity)

    def _share_right(self, patients: pd.Index, positive: bool) -> Estimate:
        right = self.right(positive)
        among = right[right.index.isin(patients)]
        return proportion(int(among.sum()), len(among))


def called(evaluation: Evaluation) -> list[Called]:
    """Return every decision of the tool with the calls of all reported patients; none without a rule.

    Raises:
        ConfigError: a rule that does not exist.
    """
    requested = plans(evaluation.tool.decision_of_single(), evaluation.endpoint)
    return [each for plan in requested for each in _by_question(evaluation, plan, _calls(evaluation, plan))]


def _calls(evaluation: Evaluation, plan: Plan) -> "pd.Series[str]":
    _, decided = call_patients(evaluation, plan)
    return decided["call"].reindex(evaluation.reported.index).fillna(UNDECIDED).astype(str)


def _by_question(evaluation: Evaluation, plan: Plan, calls: "pd.Series[str]") -> Iterator[Called]:
    """Yield the decision itself; of the likeliest class one for each class."""
    if plan.question is not None:
        no, yes = plan.outer
        yield _answered(evaluation, plan.question, calls, {no}, {yes})
        return
    if not plan.compares_classes:
        yield Called(plan.name, calls)
        return
    classes = [name for name in plan.calls if name != ABSTAINED]
    for question in evaluation.questions:
        chosen = {name for name in classes if f"p_{name}" in question.columns}
        yield _answered(evaluation, question, calls, set(classes) - chosen, chosen)


def _answered(
    evaluation: Evaluation, question: Question, calls: "pd.Series[str]", no: set[str], yes: set[str]
) -> Called:
    patients = evaluation.reported
    truth = pd.Series(question.truth(patients), index=patients.index)
    return Called(question.name, calls, question, frozenset(no), frozenset(yes), truth)
