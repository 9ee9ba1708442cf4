"""What was found at each frozen cut of a yes-or-no question.

Each cut is described on its own: patients at or above it count as positive, patients below it as negative. Two cuts
leave patients between them; their share is the first number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mil.fitted.decision_rules import Plan
from mil.report.schema import Confusion, Estimate
from mil.report.sections.operating_point import (
    CUT,
    LOWER,
    UPPER,
    AtCut,
    AtPrevalence,
    CallRate,
    DecisionFacts,
    OperatingPoint,
)
from mil.stats.proportions import UNDEFINED, likelihood_ratio, predictive_value, proportion, wilson


@dataclass(frozen=True)
class Counts:
    """Patients by truth and call."""

    truth: tuple[str, str]
    """names of negatives and positives"""
    outer: tuple[str, str]
    """the calls below the lowest cut and from the highest on"""
    between: str | None
    """the call between two cuts"""
    calls: tuple[str, ...]
    negatives: Mapping[str, int]
    """with each call"""
    positives: Mapping[str, int]

    @classmethod
    def of(cls, plan: Plan, call: NDArray[np.object_], positive: NDArray[np.bool_]) -> "Counts":
        """Of patients whose truth is known, `(p,)` each."""
        negatives, positives = (
            {name: int(((call == name) & (positive == side)).sum()) for name in plan.calls} for side in (False, True)
        )
        return cls(plan.truth, plan.outer, plan.between, plan.calls, negatives, positives)

    def with_call(self, name: str) -> tuple[int, int, int, int]:
        """Positives with a call, all positives, negatives with it, all negatives."""
        return self.positives[name], sum(self.positives.values()), self.negatives[name], sum(self.negatives.values())


def yes_no(facts: DecisionFacts, counts: Counts, prevalences: Sequence[float] = ()) -> OperatingPoint:
    """Return everything that is reported about a yes-or-no question at its frozen cuts."""
    positives, negatives = sum(counts.positives.values()), sum(counts.negatives.values())
    n = positives + negatives
    between = 0 if counts.between is None else counts.positives[counts.between] + counts.negatives[counts.between]
    matrix = (tuple(side[name] for name in counts.calls) for side in (counts.negatives, counts.positives))
    return OperatingPoint(
        **dict(facts),
        undecided=None if counts.between is None else proportion(between, n),
        at_cuts=_at_cuts(facts, counts),
        n=n,
        positives=positives,
        negatives=negatives,
        primary_interval="Wilson",
        confusion=Confusion(classes=counts.truth, calls=counts.calls, rows=tuple(matrix)),
        prevalence=proportion(positives, n),
        coverage=None if counts.between is None else proportion(n - between, n),
        per_1000=_of_a_thousand(counts),
        at_prevalence=tuple(_at_prevalence(counts, prevalence) for prevalence in prevalences),
    )


def _at_cuts(facts: DecisionFacts, counts: Counts) -> tuple[AtCut, ...]:
    """Return each cut with the measures of what it is for."""
    if counts.between is not None:
        out, into = _side_out(counts), _side_in(counts)
        return (
            AtCut(name=LOWER, cut=_common_cut(facts, 0), **_rates_below(counts), **out),
            AtCut(name=UPPER, cut=_common_cut(facts, 1), **_rates_above(counts), **into),
        )
    both = _side_out(counts) | _side_in(counts)
    unused = {"sensitivity": "ruled_in", "specificity": "ruled_out"}.get(str(facts.rule.get("rule")), "")
    both.pop(unused, None)
    return (AtCut(name=CUT, cut=_common_cut(facts, 0), **_rates_below(counts), **both),)


def _rates_below(counts: Counts) -> dict[str, Estimate]:
    """Return sensitivity and specificity of the lowest cut."""
    missed, positives, cleared, negatives = counts.with_call(counts.outer[0])
    return {
        "sensitivity": proportion(positives - missed, positives),
        "specificity": proportion(cleared, negatives),
    }


def _rates_above(counts: Counts) -> dict[str, Estimate]:
    """Return sensitivity and specificity of the highest cut."""
    detected, positives, false_alarms, negatives = counts.with_call(counts.outer[1])
    return {
        "sensitivity": proportion(detected, positives),
        "specificity": proportion(negatives - false_alarms, negatives),
    }


def _side_out(counts: Counts) -> dict[str, Estimate]:
    """Return what patients below the lowest cut have in common."""
    missed, positives, cleared, negatives = counts.with_call(counts.outer[0])
    return {
        "npv": proportion(cleared, missed + cleared),
        "lr_negative": likelihood_ratio(missed, positives, cleared, negatives),
        "ruled_out": proportion(missed + cleared, positives + negatives),
    }


def _side_in(counts: Counts) -> dict[str, Estimate]:
    """Return what patients at or above the highest cut have in common."""
    detected, positives, false_alarms, negatives = counts.with_call(counts.outer[1])
    return {
        "ppv": proportion(detected, detected + false_alarms),
        "lr_positive": likelihood_ratio(detected, positives, false_alarms, negatives),
        "ruled_in": proportion(detected + false_alarms, positives + negatives),
    }


def _common_cut(facts: DecisionFacts, at: int) -> float | None:
    """Return a cut by its position if it is the same in all folds that decide; of the likeliest class by its share."""
    by_fold = [cuts for cuts in facts.cuts if cuts is not None]
    if facts.rule.get("rule") == "argmax":
        by_fold = [(1 - cuts[0], cuts[0]) if cuts else (0.5,) for cuts in by_fold]
    values = {cuts[min(at, len(cuts) - 1)] for cuts in by_fold}
    return values.pop() if len(values) == 1 else None


def _at_prevalence(counts: Counts, prevalence: float) -> AtPrevalence:
    out, into = counts.outer
    true_positives, positives, false_positives, negatives = counts.with_call(into)
    false_negatives, _, true_negatives, _ = counts.with_call(out)
    return AtPrevalence(
        prevalence=prevalence,
        ppv=predictive_value(true_positives, positives, false_positives, negatives, prevalence),
        npv=predictive_value(true_negatives, negatives, false_negatives, positives, 1 - prevalence),
        per_1000=_of_a_thousand(counts, prevalence),
    )


def _of_a_thousand(counts: Counts, prevalence: float | None = None) -> tuple[CallRate, ...]:
    """Return how many of 1,000 patients are positive or negative with each call, as observed or at a prevalence."""
    rates = []
    total = sum(counts.positives.values()) + sum(counts.negatives.values())
    for positive, side in ((True, counts.positives), (False, counts.negatives)):
        weight = 1.0 if prevalence is None else prevalence if positive else 1 - prevalence
        n = total if prevalence is None else sum(side.values())
        for name in counts.calls:
            low, high = (1000 * weight * bound for bound in wilson(side[name], n))
            rate = 1000 * weight * side[name] / n if n else float("nan")
            estimate = Estimate(value=rate, low=low, high=high, method="Wilson", counts={"n": n}).explained(UNDEFINED)
            rates.append(CallRate(call=name, positive=positive, estimate=estimate))
    return tuple(rates)
