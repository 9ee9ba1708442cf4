"""What frozen decisions called each reported patient, beside what is true."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mil.endpoints.question import Question
from mil.fitted.decision import ABSTAINED, BETWEEN
from mil.fitted.decision_rules import Plan, plans
from mil.report.as_dict import as_dict
from mil.report.evaluation import Evaluation
from mil.report.sections.operating_points import pooled
from mil.stats.proportions import proportion

NOBODY = "not decided"
"""The call where the fold's own patients could not set the cut."""


@dataclass(frozen=True, eq=False)
class Called:
    """One decision about the reported patients, each as the first fold that can decide has it."""

    name: str
    calls: "pd.Series[str]"
    """by patient"""
    question: Question | None = None
    no: frozenset[str] = frozenset()
    """calls that rule the question out"""
    yes: frozenset[str] = frozenset()
    """calls that rule it in"""
    truth: "pd.Series[float] | None" = None
    """1, 0, or NaN where not known, by patient; none for groups"""

    @property
    def decided(self) -> "pd.Series[bool]":
        """Who got a call, an indeterminate one too."""
        return ~self.calls.isin([ABSTAINED, NOBODY])

    def right(self, positive: bool) -> "pd.Series[bool]":
        """Of the patients with a call who are positive (or negative): whether they were not ruled out (or in)."""
        if self.truth is None:
            raise ValueError(f"decision {self.name}: groups are neither right nor wrong")
        among = self.calls[self.decided & (self.truth == float(positive))]
        return ~among.isin(list(self.no if positive else self.yes))

    def counted(self, patients: pd.Index) -> dict[str, Any]:
        """How often each call was made among these patients, the share without one, sensitivity and specificity."""
        calls = self.calls.loc[patients]
        undecided = int(calls.isin([BETWEEN, ABSTAINED, NOBODY]).sum())
        found: dict[str, Any] = {"calls": calls.value_counts().sort_index().to_dict()}
        found["undecided"] = as_dict(proportion(undecided, len(calls)))
        if self.truth is not None:
            for key, positive in (("sensitivity", True), ("specificity", False)):
                right = self.right(positive)
                own = right[right.index.isin(patients)]
                found[key] = as_dict(proportion(int(own.sum()), len(own)))
        return found


def called(evaluation: Evaluation) -> list[Called]:
    """Every decision of the tool, fitted to each fold's own train and select patients; none without a rule.

    Raises:
        ConfigError: a rule that does not exist.
    """
    found = []
    for plan in plans(evaluation.tool.get("decision"), evaluation.endpoint):
        calls = _calls(evaluation, plan)
        found += list(_by_question(evaluation, plan, calls))
    return found


def _calls(evaluation: Evaluation, plan: Plan) -> "pd.Series[str]":
    """The call of every reported patient; `NOBODY` where no fold could decide."""
    _, decided = pooled(evaluation, plan)
    return decided["call"].reindex(evaluation.reported.index).fillna(NOBODY).astype(str)


def _by_question(evaluation: Evaluation, plan: Plan, calls: "pd.Series[str]") -> Iterator[Called]:
    """The decision itself; of a likeliest class one for each class."""
    if plan.question is not None:
        no, yes = plan.outer
        yield _answered(evaluation, plan.question, calls, {no}, {yes})
        return
    if plan.rule["rule"] != "argmax":
        yield Called(plan.name, calls)
        return
    classes = [name for name in plan.calls if name != ABSTAINED]
    for question in evaluation.questions:
        chosen = {name for name in classes if f"p_{name}" in question.columns}
        yield _answered(evaluation, question, calls, set(classes) - chosen, chosen)


def _answered(
    evaluation: Evaluation, question: Question, calls: "pd.Series[str]", no: set[str], yes: set[str]
) -> Called:
    people = evaluation.reported
    truth = pd.Series(question.truth(people), index=people.index)
    return Called(question.name, calls, question, frozenset(no), frozenset(yes), truth)
