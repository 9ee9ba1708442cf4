"""Two models on the same patients: the difference, how certain it is, and a sentence about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mil.errors import PredictionsError
from mil.report.evaluation import Evaluation
from mil.report.metric_intervals import areas, span
from mil.report.paired_difference import CORRECTED, FOR_MODELS, exact_difference, for_the_method, judged, shown_sign
from mil.report.paired_tests import AreaTest, DecisionTest, area_tests, call_tests
from mil.report.schema import Estimate, Model, Number
from mil.report.verdict_minimum import shortage
from mil.stats import delong
from mil.stats.bootstrap import Fold
from mil.stats.bootstrap_intervals import Sampled, sampled
from mil.stats.corrected_resampled import FOR_METHOD, fold_mean, unpaired
from mil.stats.estimate import format_p

BOOTSTRAP = "percentile, paired: the same patients drawn for both, within folds"
NAMES = {"auroc": "AUROC", "macro_auroc": "macro AUROC", "c_index": "C-index", "qwk": "quadratic kappa", "r2": "R²"}
"""What a sentence calls a metric."""


class MetricDifference(Model):
    """A metric of two models, and the first minus the second."""

    a: Number
    b: Number
    estimate: Estimate


class Comparison(Model):
    """Model A minus model B on the patients that both report."""

    names: tuple[str, str]
    metric: str
    """of the endpoint, which `verdict` is about"""
    n: int
    counts: dict[str, int]
    left_out: dict[str, int]
    """patients whom only one model reports, by its name"""
    same_folds: bool
    metrics: dict[str, MetricDifference]
    delong: tuple[AreaTest, ...]
    """for these trained models, whatever the folds"""
    mcnemar: tuple[DecisionTest, ...]
    p: Number = None
    """of the metric: its estimate's method says of which test"""
    p_adjusted: Number = None
    """where the best of several models is compared with each of the others"""
    adjusted_by: str | None = None
    """for what, in words"""
    verdict: str = ""


@dataclass(frozen=True, eq=False)
class ScoredModel:
    """One metric of one model, and what differences to other models are made from."""

    sampled: Sampled
    area: delong.Area | None
    """where the metric is a mean of areas"""
    ratio: float | None
    """`Evaluation.fold_ratio`"""
    partition: tuple[tuple[str, ...], ...]
    """the patients of each fold, in order of the folds"""
    shortage: str | None
    """why there are too few patients for a verdict"""
    largest: float
    """the largest difference that there can be"""

    def minus(self, subtrahend: "ScoredModel", counts: Mapping[str, int]) -> Estimate:
        """Return the difference, with the interval and the test that answer its question."""
        trained = self.sampled.minus(subtrahend.sampled).with_p(BOOTSTRAP, counts)
        if self.area is not None and subtrahend.area is not None:
            trained = exact_difference(self.area, subtrahend.area, trained)
        reason = self.shortage or subtrahend.shortage
        if reason or self.ratio is None or subtrahend.ratio is None:
            return judged(trained, None, reason)
        if self.partition == subtrahend.partition:
            return judged(trained, self.ratio, largest=self.largest)
        means = (fold_mean(self.sampled.folds, self.ratio), fold_mean(subtrahend.sampled.folds, subtrahend.ratio))
        return for_the_method(unpaired(*means), trained, self.largest)


def scored_models(
    evaluations: Sequence[Evaluation], patients: Sequence[str] | None = None, resamples: int | None = None
) -> list[dict[str, ScoredModel]]:
    """Return every metric of models that report the same patients, on the same resamples.

    Args:
        evaluations: Resamples and seed are the first one's.
        patients: Who counts; None: all whom they report.
        resamples: In place of those of the first evaluation.
    """
    folds = [each.folds if patients is None else _folds_of(each, patients) for each in evaluations]
    first = evaluations[0]
    pairs = [(each.endpoint.score, of_model) for each, of_model in zip(evaluations, folds, strict=True)]
    samples = sampled(pairs, first.resamples if resamples is None else resamples, first.seed)
    models = []
    for evaluation, of_model, metrics in zip(evaluations, folds, samples, strict=True):
        endpoint, area_of, partition = evaluation.endpoint, areas(evaluation.endpoint, of_model), _partition(of_model)
        models.append(
            {
                name: ScoredModel(
                    metric,
                    area_of.get(name),
                    evaluation.fold_ratio,
                    partition,
                    shortage(endpoint, of_model, name),
                    span(name),
                )
                for name, metric in metrics.items()
            }
        )
    return models


def compare(a: Evaluation, b: Evaluation, names: tuple[str, str] = ("A", "B")) -> Comparison:
    """Return A minus B on the patients that both report, whatever folds each was trained in.

    Resamples and their seed are A's. The verdict calls A better, or worse, only where the interval excludes zero and
    the test's p is below 0.05. Which question is answered depends on the folds, see `mil.report.paired_difference`.

    Args:
        a: The evaluation of one model.
        b: That of another model of the same endpoint.
        names: What they are called.

    Raises:
        PredictionsError: the targets differ, or no patient is reported by both.
    """
    shared = _shared(a, b, names)
    first, second = scored_models([a, b], shared)
    counts = a.endpoint.counts(a.endpoint.encode(a.reported.loc[shared]))
    metrics = {
        name: MetricDifference(
            a=first[name].sampled.value, b=second[name].sampled.value, estimate=first[name].minus(second[name], counts)
        )
        for name in first
        if name in second
    }
    main = metrics.get(a.endpoint.metric)
    comparison = Comparison(
        names=names,
        metric=a.endpoint.metric,
        n=len(shared),
        counts=counts,
        left_out={name: len(each.reported) - len(shared) for name, each in zip(names, (a, b), strict=True)},
        same_folds=set(first[a.endpoint.metric].partition) == set(second[a.endpoint.metric].partition),
        metrics=metrics,
        delong=area_tests(a, b, shared),
        mcnemar=call_tests(a, b, shared),
        p=None if main is None else main.estimate.p,
    )
    return _judged(comparison)


def adjusted(comparison: Comparison, p: float | None, adjusted_by: str) -> Comparison:
    """Return the comparison with a p value adjusted for several comparisons, never below its own, and its verdict.

    Args:
        comparison: Of two models of several.
        p: The adjusted p value; None or NaN where there is none.
        adjusted_by: For what, in words.
    """
    if comparison.p is None or p is None or not np.isfinite(p):
        return comparison
    return _judged(
        comparison.model_copy(update={"p_adjusted": max(float(p), comparison.p), "adjusted_by": adjusted_by})
    )


def verdict(comparison: Comparison) -> str:
    """Return a sentence on the endpoint's metric, with its interval, patients and p."""
    (a, b), title = comparison.names, NAMES.get(comparison.metric, comparison.metric)
    gain = _main_difference(comparison)
    if gain is None or gain.value is None or gain.low is None or gain.high is None:
        reason = (gain.reason if gain is not None else None) or "it is not estimable"
        return f"{a} and {b} cannot be compared by {title} on {comparison.n} shared patients: {reason}."
    better, worse, sign = (a, b, 1) if gain.value >= 0 else (b, a, -1)
    low, high = sorted((sign * gain.low, sign * gain.high))
    size = f"{abs(gain.value):.3f} {title} ({low:.3f} to {high:.3f})"
    patients = ", ".join(
        [", ".join(f"{name} {count}" for name, count in comparison.counts.items()), *_test(comparison, gain)]
    )
    if not gain.value:
        return f"No difference is shown: {a} and {b} are level, {size}, {patients}."
    if shown_sign(gain, comparison.p_adjusted):
        return f"{better} is better than {worse} by {size}, {patients}."
    return f"No difference is shown: {better} is ahead of {worse} by {size}, {patients}."


def targets(evaluation: Evaluation, patients: Sequence[str]) -> Tensor:
    """Return the targets of reported patients, `(p, k)`, without the strata that training may add to times."""
    endpoint = evaluation.endpoint
    target = endpoint.encode(evaluation.reported.loc[list(patients)])
    if endpoint.survival is None:
        return target.double().reshape(len(patients), -1)
    return endpoint.survival.event_times(target)


def _judged(comparison: Comparison) -> Comparison:
    return comparison.model_copy(update={"verdict": verdict(comparison)})


def _main_difference(comparison: Comparison) -> Estimate | None:
    metric = comparison.metrics.get(comparison.metric)
    return None if metric is None else metric.estimate


def _test(comparison: Comparison, gain: Estimate) -> list[str]:
    """Return the test, its p, and the question that it answers, in words; nothing where there is none."""
    if comparison.p is None:
        return []
    method = gain.method or ""
    of_method = method == CORRECTED
    test = "corrected t" if of_method else "DeLong" if method.startswith(delong.PAIRED) else "bootstrap"
    corrected = (
        f", {comparison.adjusted_by} {_short_p(comparison.p_adjusted)}" if comparison.p_adjusted is not None else ""
    )
    return [f"{test} p {_short_p(comparison.p)}{corrected}", FOR_METHOD if of_method else FOR_MODELS]


def _short_p(p: float) -> str:
    return format_p(p) if p < 0.1 else f"{p:.2f}"


def _shared(a: Evaluation, b: Evaluation, names: Sequence[str]) -> list[str]:
    """Return the patients that both report, sorted; check that their targets agree."""
    pair = " and ".join(names)
    if a.endpoint.metric != b.endpoint.metric:
        metrics = f"{a.endpoint.metric} and {b.endpoint.metric}"
        raise PredictionsError(f"{pair}: are scored by {metrics}, expected runs of one endpoint")
    shared = sorted(set(a.reported.index) & set(b.reported.index))
    if not shared:
        sizes = f"{len(a.reported)} and {len(b.reported)}"
        raise PredictionsError(f"{pair}: report {sizes} patients, none in common, expected the same cohort")
    ours, theirs = (targets(evaluation, shared) for evaluation in (a, b))
    if ours.shape != theirs.shape:
        raise PredictionsError(f"{pair}: have targets of {ours.shape[1]} and {theirs.shape[1]} numbers, expected alike")
    differ = ~((ours == theirs) | (ours.isnan() & theirs.isnan())).all(1)
    if differ.any():
        first = shared[int(differ.nonzero()[0])]
        raise PredictionsError(
            f"{pair}: targets differ in {int(differ.sum())} of {len(shared)} shared patients, first {first}, "
            "expected the same"
        )
    return shared


def _folds_of(evaluation: Evaluation, shared: Sequence[str]) -> list[Fold]:
    """Return the folds with their shared patients only."""
    members = [np.flatnonzero(np.isin(np.asarray(fold.patients), list(shared))) for fold in evaluation.folds]
    return [
        fold._replace(
            logits=fold.logits[rows],
            target=fold.target[rows],
            strata=None if fold.strata is None else fold.strata[rows],
            patients=np.asarray(fold.patients)[rows],
        )
        for fold, rows in zip(evaluation.folds, members, strict=True)
        if len(rows)
    ]


def _partition(folds: Sequence[Fold]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(np.asarray(fold.patients).tolist()) for fold in folds)
