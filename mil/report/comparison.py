"""Two models on the same patients: the difference, how certain it is, and a sentence about it."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from mil.errors import PredictionsError
from mil.report.evaluation import Evaluation
from mil.report.paired_tests import AreaTest, DecisionTest, area_tests, call_tests
from mil.report.schema import Estimate, Model, Number
from mil.stats.bootstrap import Fold
from mil.stats.bootstrap_intervals import sampled
from mil.stats.estimate import format_p
from mil.stats.multiple_tests import holm

BOOTSTRAP = "percentile, paired: the same patients drawn for both, within folds"
ALPHA = 0.05
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
    mcnemar: tuple[DecisionTest, ...]
    p: Number = None
    """DeLong's where one question is all that the metric is about, else that of the bootstrap"""
    p_holm: Number = None
    """corrected for the number of comparisons"""
    verdict: str = ""


def compare(a: Evaluation, b: Evaluation, names: tuple[str, str] = ("A", "B")) -> Comparison:
    """Return A minus B on the patients that both report, whatever folds each was trained in.

    Resamples and their seed are A's. The verdict calls A better, or worse, only where the bootstrap interval excludes
    zero and the test's p is below 0.05.

    Args:
        a: The evaluation of one model.
        b: That of another model of the same endpoint.
        names: What they are called.

    Raises:
        PredictionsError: the targets differ, or no patient is reported by both.
    """
    shared = _shared(a, b, names)
    folds = [_folds_of(evaluation, shared) for evaluation in (a, b)]
    first, second = sampled([(a.endpoint.score, folds[0]), (b.endpoint.score, folds[1])], a.resamples, a.seed)
    counts = a.endpoint.counts(a.endpoint.encode(a.reported.loc[shared]))
    metrics = {}
    for name in (name for name in first if name in second):
        difference = first[name].minus(second[name])
        metrics[name] = MetricDifference(
            a=first[name].value,
            b=second[name].value,
            estimate=difference.interval(BOOTSTRAP, counts).model_copy(update={"p": difference.p}),
        )
    comparison = Comparison(
        names=names,
        metric=a.endpoint.metric,
        n=len(shared),
        counts=counts,
        left_out={name: len(each.reported) - len(shared) for name, each in zip(names, (a, b), strict=True)},
        same_folds=_partition(folds[0]) == _partition(folds[1]),
        metrics=metrics,
        delong=area_tests(a, b, shared),
        mcnemar=call_tests(a, b, shared),
    )
    return _judged(comparison.model_copy(update={"p": _p(comparison)}))


def adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons with Holm's p and verdicts based on it; a single one stays as it is."""
    if len(comparisons) < 2:
        return list(comparisons)
    raised = holm([comparison.p for comparison in comparisons])
    return [
        _judged(comparison.model_copy(update={"p_holm": p})) for comparison, p in zip(comparisons, raised, strict=True)
    ]


def verdict(comparison: Comparison) -> str:
    """Return a sentence on the endpoint's metric, with its interval, patients and p."""
    (a, b), title = comparison.names, NAMES.get(comparison.metric, comparison.metric)
    gain = _main_difference(comparison)
    if gain is None or gain.value is None or gain.low is None or gain.high is None:
        return f"{a} and {b} cannot be compared by {title}: it is not estimable on {comparison.n} shared patients."
    better, worse, sign = (a, b, 1) if gain.value >= 0 else (b, a, -1)
    low, high = sorted((sign * gain.low, sign * gain.high))
    size = f"{abs(gain.value):.3f} {title} ({low:.3f} to {high:.3f})"
    patients = ", ".join(
        [", ".join(f"{name} {count}" for name, count in comparison.counts.items()), *_test(comparison)]
    )
    if not gain.value:
        return f"No difference is shown: {a} and {b} are level, {size}, {patients}."
    p = comparison.p if comparison.p_holm is None else comparison.p_holm
    if (gain.low > 0 or gain.high < 0) and p is not None and p < ALPHA:
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


def _test(comparison: Comparison) -> list[str]:
    """Return the test and its p in words; nothing where there is none."""
    if comparison.p is None:
        return []
    test = "bootstrap" if _exact_p(comparison) is None else "DeLong"
    corrected = "" if comparison.p_holm is None else f", Holm {_short_p(comparison.p_holm)}"
    return [f"{test} p {_short_p(comparison.p)}{corrected}"]


def _short_p(p: float) -> str:
    return format_p(p) if p < 0.1 else f"{p:.2f}"


def _p(comparison: Comparison) -> float | None:
    gain, exact = _main_difference(comparison), _exact_p(comparison)
    return exact if exact is not None or gain is None or gain.low is None else gain.p


def _exact_p(comparison: Comparison) -> float | None:
    """Return DeLong's p, where one question is all that the metric is about and its variance is defined."""
    only_question = comparison.metric == "auroc" and len(comparison.delong) == 1
    return comparison.delong[0].estimate.p if only_question else None


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


def _partition(folds: Sequence[Fold]) -> set[tuple[str, ...]]:
    return {tuple(np.asarray(fold.patients).tolist()) for fold in folds}
