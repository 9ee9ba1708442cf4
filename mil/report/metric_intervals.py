"""Intervals of an endpoint's metrics, by the method that covers the truth for each.

Areas under the ROC curve, and means of them, have DeLong's interval on the logit scale, metrics of predicted numbers
the jackknife's (`mil.report.value_intervals`), other metrics that of resampled patients. Over folds the metric is
averaged. The interval is about these trained models on further patients; `second` is about the method, trained anew on
other patients, and takes in how much the folds' models differ.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from mil.endpoints.endpoint import Endpoint, Ranking
from mil.report.evaluation import Evaluation
from mil.report.schema import Bounds, Estimate
from mil.report.value_intervals import value_estimates
from mil.stats import delong, jackknife, quadratic_kappa
from mil.stats.bootstrap import Fold
from mil.stats.bootstrap_intervals import intervals
from mil.stats.corrected_resampled import FOR_METHOD, fold_mean
from mil.stats.jackknife import bounds, jackknife_error
from mil.stats.proportions import mean_proportion

_SHARE = (0.0, 1.0)
RANGES = {
    **dict.fromkeys(("qwk", "quadratic_kappa", "pearson", "concordance"), (-1.0, 1.0)),
    "r2": (-math.inf, 1.0),
    "mae": (0.0, math.inf),
    "mean": (-math.inf, math.inf),
}
"""Least and greatest value of the metrics that are no shares from 0 to 1."""
CALL_METRICS: Mapping[str, Literal["accuracy", "kappa"]] = {"balanced_accuracy": "accuracy", "qwk": "kappa"}
"""Metrics of called classes, by their names in `Endpoint.score`."""
SMALL_FOLD = 20
"""Patients of a fold below which the kappa of four grades is lower by more than 0.016 than that of many patients."""
LOW_KAPPA = f"a mean over folds of fewer than {SMALL_FOLD} patients, which make kappa too low"
NO_ERROR = "every call is right, or every patient counts alike: these patients do not show how certain it is"


def metric_intervals(
    evaluation: Evaluation, folds: Sequence[Fold] | None = None, counts: Mapping[str, int] | None = None
) -> dict[str, Estimate]:
    """Return every metric of the endpoint with its interval.

    Args:
        evaluation: Endpoint, resamples, seed, and how folds were made.
        folds: Another model's logits of the same patients; None: the evaluated model's.
        counts: Of every estimate; None: those of the evaluation.
    """
    folds, counts = evaluation.folds if folds is None else folds, counts or evaluation.counts
    endpoint, ratio = evaluation.endpoint, evaluation.fold_ratio
    metrics = intervals(endpoint.score, folds, evaluation.resamples, evaluation.seed, counts=counts)
    exact = {name: area_estimate(area, metrics[name]) for name, area in areas(endpoint, folds).items()}
    exact |= value_estimates(endpoint, folds, metrics)
    calls = [each for each in CALL_METRICS if each in metrics]
    if endpoint.classes and calls:
        called = pooled_calls(endpoint, folds)
        exact |= {name: call_estimate(metrics[name], CALL_METRICS[name], *called) for name in calls}
    return {name: for_method(exact.get(name, metric), ratio, name) for name, metric in metrics.items()}


def pooled_calls(endpoint: Endpoint, folds: Sequence[Fold]) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return the called and the true class of each patient, as in the first fold, and the number of classes."""
    calls, labels = [], []
    for fold in folds:
        table = pd.DataFrame({name: column.numpy() for name, column in endpoint.decode(fold.logits).items()})
        calls.append(endpoint.call_classes(endpoint.class_probabilities(table)))
        labels.append(fold.target.long().numpy())
    names = np.concatenate([np.asarray(fold.patients) for fold in folds])
    first = np.unique(names, return_index=True)[1]
    return np.concatenate(calls)[first], np.concatenate(labels)[first], len(endpoint.classes)


def call_estimate(
    metric: Estimate,
    kind: Literal["accuracy", "kappa"],
    calls: NDArray[np.int64],
    label: NDArray[np.int64],
    classes: int,
) -> Estimate:
    """Return a metric of called classes with the interval that calls pooled over folds give.

    Balanced accuracy has Wilson's interval of each class, combined; kappa the jackknife's on Fisher's scale.

    Args:
        metric: With the mean over folds as its value.
        kind: What it is.
        calls: `(p,)`.
        label: `(p,)`.
        classes: Number of classes.
    """
    if metric.value is None:
        return metric
    pooled = ", calls pooled over folds" if len(metric.folds) > 1 else ""
    if kind == "accuracy":
        members = [label == each for each in range(classes)]
        right = [int((calls[rows] == each).sum()) for each, rows in enumerate(members)]
        combined = mean_proportion(metric.value, right, [int(rows.sum()) for rows in members], metric.level)
        low, high, method = combined.low, combined.high, combined.method
    else:
        error = jackknife_error(lambda weight: quadratic_kappa(calls, label, classes, weight), len(label))
        low, high = bounds(metric.value, error, "atanh", len(label) - 1, metric.level)
        method = f"{jackknife.METHOD}, Fisher's z"
    reason = None if low is not None and np.isfinite(low) else NO_ERROR
    small = kind == "kappa" and len(label) < SMALL_FOLD * len(metric.folds) and len(metric.folds) > 1
    estimate = metric.with_caveat(LOW_KAPPA if small else None)
    return estimate.model_copy(
        update={
            "low": None if reason else low,
            "high": None if reason else high,
            "method": method + pooled,
            "reason": reason,
            "resamples": None,
        }
    )


def area_metrics(evaluation: Evaluation) -> dict[str, Estimate]:
    """Return the metrics of the endpoint that are means of areas, without resampling."""
    folds, metrics = evaluation.folds, dict[str, Estimate]()
    values = [evaluation.endpoint.score(fold.logits, fold.target) for fold in folds]
    for name, area in areas(evaluation.endpoint, folds).items():
        metric = Estimate(value=area.value, counts=evaluation.counts, folds=tuple(float(each[name]) for each in values))
        metrics[name] = for_method(area_estimate(area, metric), evaluation.fold_ratio, name)
    return metrics


def area_estimate(area: delong.Area, metric: Estimate) -> Estimate:
    """Return a metric that is a mean of areas, with DeLong's interval in place of the bootstrap's."""
    estimate = area.estimate(metric.counts, metric.level)
    return estimate.model_copy(update={"folds": metric.folds})


def span(name: str) -> float:
    """Return the largest difference that two values of a metric can have; infinite where it has no ends."""
    least, most = RANGES.get(name, _SHARE)
    return most - least


def for_method(metric: Estimate, ratio: float | None, name: str) -> Estimate:
    """Return a metric of several folds with the interval for the method as its second.

    Args:
        metric: With its value in each fold.
        ratio: Patients that a fold reports over those its model was fitted to; None where folds are not training anew.
        name: Of the metric; the interval ends where its range does.
    """
    if ratio is None or metric.value is None:
        return metric
    mean = fold_mean([np.nan if value is None else value for value in metric.folds], ratio)
    low, high = replace(mean, value=metric.value).bounds(metric.level)
    if not np.isfinite(low):
        return metric
    least, most = RANGES.get(name, _SHARE)
    low, high = max(low, least), min(high, most)
    method = f"{FOR_METHOD}: corrected resampled t over {len(metric.folds)} folds"
    return metric.model_copy(update={"second": Bounds(low=low, high=high, method=method)})


def areas(endpoint: Endpoint, folds: Sequence[Fold]) -> dict[str, delong.Area]:
    """Return the area of each metric that is a mean of areas, averaged over its rankings and the folds that have all.

    Where a fold has one patient of a class, DeLong's variance does not exist within it: influences are then those of
    the ranks within folds, pooled.
    """
    by_fold = [endpoint.rankings(fold.logits, fold.target) for fold in folds]
    names = [np.arange(len(fold.target)) if fold.patients is None else np.asarray(fold.patients) for fold in folds]
    metrics = list(by_fold[0]) if by_fold else []
    return {metric: mean_area([rankings[metric] for rankings in by_fold], names) for metric in metrics}


def mean_area(by_fold: Sequence[Sequence[Ranking]], names: Sequence[NDArray[np.generic]]) -> delong.Area:
    """Return the mean area over rankings and the folds that have both answers to all of them.

    Args:
        by_fold: The rankings of each fold.
        names: Of the patients of each fold, `(p,)`.
    """
    within, people = [], []
    for rankings, patients in zip(by_fold, names, strict=True):
        each, answered = _areas_within(rankings, patients)
        if all(np.isfinite(area.value) for area in each):
            within.append(delong.mean(each, answered))
            people.append(np.unique(np.concatenate(answered)))
    if not within:
        return delong.Area(float("nan"), np.full(1, np.nan))
    area = delong.mean(within, people)
    if len(within) < 2 or np.isfinite(area.variance):
        return area
    pooled = _pooled(by_fold, names)
    return delong.Area(area.value, pooled.influence, area.pairs, area.folds)


def _areas_within(
    rankings: Sequence[Ranking], patients: NDArray[np.generic]
) -> tuple[list[delong.Area], list[NDArray[np.generic]]]:
    answered = [~np.isnan(ranking.truth) for ranking in rankings]
    areas_of = [
        delong.area(ranking.score[rows], ranking.truth[rows] == 1)
        for ranking, rows in zip(rankings, answered, strict=True)
    ]
    return areas_of, [patients[rows] for rows in answered]


def _pooled(by_fold: Sequence[Sequence[Ranking]], names: Sequence[NDArray[np.generic]]) -> delong.Area:
    """Return the area of percentile ranks within folds, each patient as in the first fold."""
    patients = np.concatenate(names)
    first = np.sort(np.unique(patients, return_index=True)[1])
    rankings = []
    for same in zip(*by_fold, strict=True):
        score = np.concatenate([rankdata(each.score) / max(1, len(each.score)) for each in same])
        rankings.append(Ranking(score[first], np.concatenate([each.truth for each in same])[first]))
    each, answered = _areas_within(rankings, patients[first])
    return delong.mean(each, answered)
