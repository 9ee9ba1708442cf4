"""What frozen decisions called each reported patient, and whether that is right."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from mil.endpoints.question import Question
from mil.fitted.decision_rules import Plan, plans
from mil.report.evaluation import Evaluation
from mil.report.schema import Estimate
from mil.report.sections.applied_cuts import call_patients
from mil.report.sections.operating_point import CUT, LOWER, UPPER
from mil.stats.proportions import proportion

UNDECIDED = "not decided"
"""The call of patients in folds that could not set a cut."""


@dataclass(frozen=True)
class CallRates:
    """How often each call was made among some patients, and how often it was right; empty without a decision."""

    calls: dict[str, int] | None = None
    undecided: Estimate | None = None
    sensitivity: Estimate | None = None
    """at the only cut, or the lower; None for groups, which are neither right nor wrong"""
    specificity: Estimate | None = None
    """at the same cut"""
    upper_sensitivity: Estimate | None = None
    """at the upper of two cuts"""
    upper_specificity: Estimate | None = None
    """at the upper of two cuts"""


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
    between: str | None = None
    """the call between two cuts, or for abstaining"""
    compares_classes: bool = False
    """whether the likeliest of several classes is called, so that who abstains is on no side"""
    truth: "pd.Series[float] | None" = None
    """1, 0, or NaN where unknown, by patient; None for groups"""

    @property
    def cuts(self) -> tuple[str, ...]:
        """Names of the cuts, from the lowest."""
        return (CUT,) if self.between is None or self.compares_classes else (LOWER, UPPER)

    @property
    def decided(self) -> "pd.Series[bool]":
        """Which patients are on one side of each cut: all with a call, except those without a likeliest class."""
        return ~self.calls.isin([UNDECIDED, *([self.between] if self.compares_classes else [])])

    def right(self, positive: bool, cut: str = CUT) -> "pd.Series[bool]":
        """Return, for positives (or negatives) with a call, whether they are on the right side of a cut.

        Args:
            positive: Whether positives or negatives are returned.
            cut: Its name; every name is good for a decision with one cut.
        """
        if self.truth is None:
            raise ValueError(f"decision {self.name}: groups are neither right nor wrong")
        among = self.calls[self.decided & (self.truth == float(positive))]
        above = among.isin(list(self.yes)) if cut == UPPER else ~among.isin(list(self.no))
        return above if positive else ~above

    def rates(self, patients: pd.Index) -> CallRates:
        """Return how often each call was made among these patients, and how often it was right at each cut."""
        calls = self.calls.loc[patients]
        counts = {str(name): int(count) for name, count in calls.value_counts().sort_index().items()}
        undecided = proportion(int(calls.isin([UNDECIDED, str(self.between)]).sum()), len(calls))
        if self.truth is None:
            return CallRates(counts, undecided)
        rates = [self._share_right(patients, positive, cut) for cut in self.cuts for positive in (True, False)]
        return CallRates(counts, undecided, *rates)

    @cached_property
    def _right(self) -> "dict[tuple[bool, str], pd.Series[bool]]":
        """What `right` returns for each cut; a table of subgroups asks for it in each row."""
        return {(positive, cut): self.right(positive, cut) for cut in self.cuts for positive in (True, False)}

    def _share_right(self, patients: pd.Index, positive: bool, cut: str) -> Estimate:
        right = self._right[positive, cut]
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
        yield _answered(evaluation, plan, plan.question, calls, {no}, {yes})
        return
    if not plan.compares_classes:
        yield Called(plan.name, calls)
        return
    column_of = dict(zip(plan.calls, plan.columns, strict=False))  # the call for abstaining has no column
    for question in evaluation.questions:
        chosen = {call for call, column in column_of.items() if column in question.columns}
        yield _answered(evaluation, plan, question, calls, set(column_of) - chosen, chosen)


def _answered(
    evaluation: Evaluation, plan: Plan, question: Question, calls: "pd.Series[str]", no: set[str], yes: set[str]
) -> Called:
    patients = evaluation.reported
    return Called(
        name=question.name,
        calls=calls,
        question=question,
        no=frozenset(no),
        yes=frozenset(yes),
        between=plan.between,
        compares_classes=plan.question is None,
        truth=pd.Series(question.truth(patients), index=patients.index),
    )
