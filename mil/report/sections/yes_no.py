"""Sensitivity, specificity and predictive values of a yes-or-no question at its frozen cuts.

A patient who is neither ruled out nor ruled in counts as no error: sensitivity is the share of positives who were not
ruled out, specificity the share of negatives who were not ruled in. With two cuts they are the sensitivity of the lower
and the specificity of the upper cut.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mil.fitted.decision_rules import Plan
from mil.report.schema import Confusion, Estimate
from mil.report.sections.operating_point import AtPrevalence, CallRate, DecisionFacts, OperatingPoint
from mil.stats.proportions import UNDEFINED, likelihood_ratio, predictive_value, proportion, wilson


@dataclass(frozen=True)
class Counts:
    """Patients by truth and call."""

    outer: tuple[str, str]
    """what is called ruled out, and in"""
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
        return cls(plan.outer, plan.calls, negatives, positives)

    def with_call(self, name: str) -> tuple[int, int, int, int]:
        """Positives with a call, all positives, negatives with it, all negatives."""
        return self.positives[name], sum(self.positives.values()), self.negatives[name], sum(self.negatives.values())


def yes_no(facts: DecisionFacts, counts: Counts, prevalences: Sequence[float] = ()) -> OperatingPoint:
    """Return everything that is reported about a yes-or-no question at its frozen cuts."""
    out, into = counts.outer
    false_negatives, positives, true_negatives, negatives = counts.with_call(out)
    true_positives, _, false_positives, _ = counts.with_call(into)
    n = positives + negatives
    decided = false_negatives + true_negatives + true_positives + false_positives
    has_zone_between = len(counts.calls) > 2
    matrix = (tuple(side[name] for name in counts.calls) for side in (counts.negatives, counts.positives))
    return OperatingPoint(
        **dict(facts),
        n=n,
        positives=positives,
        negatives=negatives,
        primary_interval="Wilson",
        confusion=Confusion(classes=(out, into), calls=counts.calls, rows=tuple(matrix)),
        prevalence=proportion(positives, n),
        sensitivity=proportion(positives - false_negatives, positives),
        specificity=proportion(negatives - false_positives, negatives),
        ppv=proportion(true_positives, true_positives + false_positives),
        npv=proportion(true_negatives, true_negatives + false_negatives),
        lr_positive=likelihood_ratio(true_positives, positives, false_positives, negatives),
        lr_negative=likelihood_ratio(false_negatives, positives, true_negatives, negatives),
        ruled_out=proportion(false_negatives + true_negatives, n),
        ruled_in=proportion(true_positives + false_positives, n),
        indeterminate=proportion(n - decided, n) if has_zone_between else None,
        coverage=proportion(decided, n) if has_zone_between else None,
        per_1000=_of_a_thousand(counts),
        at_prevalence=tuple(_at_prevalence(counts, prevalence) for prevalence in prevalences),
    )


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
