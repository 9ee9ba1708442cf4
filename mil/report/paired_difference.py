"""Is a model better than another? One answer for every place that asks, with the question that it answers.

Of one hold-out set the question is about these trained models on further patients: DeLong's paired test for areas, the
paired bootstrap for other metrics. Of several folds it is about the method, trained anew on other patients: Nadeau and
Bengio's corrected test over folds, with the interval for the trained models as the second. Two equal learners are told
apart in 10 to 16% of data sets where the models of five folds are taken as fixed, see `docs/coverage.md`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mil.report.evaluation import Evaluation
from mil.report.metric_intervals import areas, span
from mil.report.schema import Bounds, Estimate
from mil.report.verdict_minimum import shortage
from mil.stats import delong
from mil.stats.bootstrap import Fold
from mil.stats.bootstrap_intervals import difference
from mil.stats.corrected_resampled import FOR_METHOD, FoldMean, fold_mean

FOR_MODELS = "for these trained models"
CORRECTED = f"corrected resampled t test over folds, {FOR_METHOD}"
ALPHA = 0.05


def paired_differences(
    evaluation: Evaluation, others: Sequence[Fold], counts: Mapping[str, int] | None = None
) -> dict[str, Estimate]:
    """Return every metric of the evaluated model minus that of another on the same patients in the same folds.

    Args:
        evaluation: Of the model.
        others: The same patients in the same order with the other model's logits.
        counts: Of every estimate; None: those of the evaluation.
    """
    endpoint, folds = evaluation.endpoint, evaluation.folds
    resamples, seed = evaluation.resamples, evaluation.seed
    counts = evaluation.counts if counts is None else counts
    differences = difference(endpoint.score, folds, others, resamples, seed, counts=counts)
    ours, theirs = areas(endpoint, folds), areas(endpoint, others)
    exact = {name: exact_difference(area, theirs[name], differences[name]) for name, area in ours.items()}
    return {
        name: judged(exact.get(name, estimate), evaluation.fold_ratio, shortage(endpoint, folds, name), span(name))
        for name, estimate in differences.items()
    }


def exact_difference(ours: delong.Area, theirs: delong.Area, bootstrap: Estimate) -> Estimate:
    """Return DeLong's paired difference, with counts and folds of the bootstrap's; that where DeLong's has no error."""
    if len(ours.influence) != len(theirs.influence):
        return bootstrap
    exact = delong.difference(ours, theirs, bootstrap.level)
    if exact.p is None:
        return bootstrap
    return exact.model_copy(update={"counts": bootstrap.counts, "folds": bootstrap.folds})


def judged(trained: Estimate, ratio: float | None, reason: str | None = None, largest: float = math.inf) -> Estimate:
    """Return a difference with the interval and p value that answer its question.

    Args:
        trained: The difference with interval and p for the trained models, and its value in each fold.
        ratio: Patients that a fold reports over those its model was fitted to; None where the question is about the
            trained models.
        reason: Why there are too few patients for a verdict.
        largest: The largest difference that there can be; with two folds Student's t has one degree of freedom, and its
            interval would go far beyond.
    """
    if trained.value is None:
        return trained
    if reason is not None:
        return without_verdict(trained, reason)
    if ratio is None:
        return trained.model_copy(update={"method": f"{trained.method}; {FOR_MODELS}"})
    values = [np.nan if value is None else value for value in trained.folds]
    return for_the_method(fold_mean(values, ratio), trained, largest)


def for_the_method(mean: FoldMean, trained: Estimate, largest: float = math.inf) -> Estimate:
    """Return the difference with the corrected interval over folds, that for the trained models as its second.

    Metrics that pool folds keep their value; the interval lies about it.
    """
    mean = replace(mean, value=mean.value if trained.value is None else trained.value)
    low, high = mean.bounds(trained.level)
    if not np.isfinite(low):
        return without_verdict(trained, "fewer than two folds define it, or they do not vary")
    low, high = max(low, -largest), min(high, largest)
    second = None
    if trained.low is not None and trained.high is not None:
        second = Bounds(low=trained.low, high=trained.high, method=f"{trained.method}; {FOR_MODELS}")
    return trained.model_copy(
        update={"low": low, "high": high, "p": mean.p, "method": CORRECTED, "second": second, "resamples": None}
    )


def without_verdict(estimate: Estimate, reason: str) -> Estimate:
    """Return the value alone, with the reason why there is neither interval nor p value."""
    return estimate.model_copy(update={"low": None, "high": None, "p": None, "reason": reason, "second": None})


def shown_sign(gain: Estimate, p: float | None = None) -> int:
    """Return 1 where a difference is shown to be above zero, -1 where below, 0 where neither is shown.

    Args:
        gain: Its interval and p value must both exclude zero.
        p: The p value adjusted for several tests, in place of the difference's own.
    """
    p = gain.p if p is None else p
    if gain.low is None or gain.high is None or (p is not None and p >= ALPHA):
        return 0
    return 1 if gain.low > 0 else -1 if gain.high < 0 else 0
