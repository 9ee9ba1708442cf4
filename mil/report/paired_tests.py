"""Tests of two models on the same patients: DeLong's on areas, McNemar's on calls."""

from collections.abc import Sequence

import numpy as np
from pydantic import Field
from scipy import stats

from mil.endpoints.question import Question
from mil.report.evaluation import Evaluation
from mil.report.predictions import rows_of
from mil.report.schema import LEVEL, Estimate, Model
from mil.report.sections.calls import Called, called
from mil.report.sections.operating_point import CUT
from mil.stats import delong

PAIRED_PROPORTIONS = "Bonett-Price, McNemar exact"


class AreaTest(Model):
    """The difference of two areas under the ROC curve of one question."""

    name: str
    estimate: Estimate


class CallTest(Model):
    """The difference of two proportions of right calls, among the positives or among the negatives."""

    a: int = Field(title="Right by the first")
    b: int = Field(title="Right by the second")
    gained: int = Field(title="Right by the first only")
    lost: int = Field(title="Right by the second only")
    estimate: Estimate


class DecisionTest(Model):
    """The calls of two models at one frozen cut of each; of two cuts each is compared with its like."""

    name: str
    sensitivity: CallTest
    specificity: CallTest


def area_tests(a: Evaluation, b: Evaluation, shared: Sequence[str]) -> tuple[AreaTest, ...]:
    """Return DeLong's paired test of each question that both answer, on these patients."""
    questions = {question.name: question for question in b.questions}
    pairs = [(question, questions[question.name]) for question in a.questions if question.name in questions]
    return tuple(AreaTest(name=ours.name, estimate=_area_test(a, b, ours, theirs, shared)) for ours, theirs in pairs)


def call_tests(a: Evaluation, b: Evaluation, shared: Sequence[str]) -> tuple[DecisionTest, ...]:
    """Return McNemar's test of each decision that both make about a question, on these patients."""
    others = {decision.name: decision for decision in called(b) if decision.truth is not None}
    pairs = [(each, others[each.name]) for each in called(a) if each.name in others and each.truth is not None]
    return tuple(
        DecisionTest(
            name=ours.name if cut == CUT else f"{ours.name}, {cut}",
            sensitivity=_call_test(ours, theirs, shared, cut, positive=True),
            specificity=_call_test(ours, theirs, shared, cut, positive=False),
        )
        for ours, theirs in pairs
        for cut in max(ours.cuts, theirs.cuts, key=len)
    )


def mcnemar(gained: int, lost: int, n: int) -> Estimate:
    """Return the difference of two paired proportions, with its interval and McNemar's exact test.

    The interval is Wald's with one patient added to either discordant cell; p is that of a fair coin over the
    discordant patients.

    Args:
        gained: Patients whom only the first gets right.
        lost: Patients whom only the second gets right.
        n: All patients.

    References:
        Bonett and Price, Psychological Methods 17, 2012.
    """
    counts = {"n": n}
    if not n:
        return Estimate.missing("nobody whom both decide", counts)
    first, second = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    z = float(stats.norm.ppf((1 + LEVEL) / 2))
    half_width = z * ((first + second - (first - second) ** 2) / (n + 2)) ** 0.5
    return Estimate(
        value=(gained - lost) / n,
        low=max(-1.0, first - second - half_width),
        high=min(1.0, first - second + half_width),
        method=PAIRED_PROPORTIONS,
        p=float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
        counts=counts,
    )


def _area_test(a: Evaluation, b: Evaluation, ours: Question, theirs: Question, shared: Sequence[str]) -> Estimate:
    first, second = _area(a, ours, shared), _area(b, theirs, shared)
    truth = ours.truth(a.reported.loc[list(shared)])
    counts = {"n": int((~np.isnan(truth)).sum()), "positives": int((truth == 1).sum())}
    if len(first.influence) != len(second.influence):
        reason = "a fold lacks positives or negatives, and its patients have no area"
        return Estimate(value=None, method=delong.PAIRED, reason=reason, counts=counts)
    difference = delong.difference(first, second)
    if difference.p is None:
        reason = "a class has too few patients in a fold for a variance"
        return Estimate(value=None, method=delong.PAIRED, reason=reason, counts=counts)
    return difference.with_counts(counts)


def _area(evaluation: Evaluation, question: Question, shared: Sequence[str]) -> delong.Area:
    areas, patients = [], []
    for _, rows in rows_of(evaluation.table, "report"):
        table = rows[rows["patient"].isin(shared)].set_index("patient")
        truth = question.truth(table) if len(table) else np.zeros(0)
        answered = ~np.isnan(truth)
        if answered.any():
            areas.append(delong.area(question.probability(table)[answered], truth[answered] == 1))
            patients.append(table.index[answered].to_numpy(dtype=np.str_))
    return delong.mean(areas, patients)


def _call_test(ours: Called, theirs: Called, shared: Sequence[str], cut: str, *, positive: bool) -> CallTest:
    first, second = ours.right(positive, cut), theirs.right(positive, cut)
    both = [name for name in shared if name in first.index and name in second.index]
    gained = int((first.loc[both] & ~second.loc[both]).sum())
    lost = int((~first.loc[both] & second.loc[both]).sum())
    return CallTest(
        a=int(first.loc[both].sum()),
        b=int(second.loc[both].sum()),
        gained=gained,
        lost=lost,
        estimate=mcnemar(gained, lost, len(both)),
    )
