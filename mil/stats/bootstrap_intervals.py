"""Metrics of one or several sets of patients on the same resamples: intervals, and paired differences."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from mil.stats.bootstrap import METHOD, POOLED, STRATIFIED, Floats, Fold, Score, draws
from mil.stats.estimate import LEVEL, Estimate

DEGENERATE = "every resample gives this value: these patients do not show how certain it is"
_NO_SPREAD = 1e-12
Scored = tuple[Score, Sequence[Fold]]
"""A score with the folds that it is averaged over, or whose patients it pools: see `Fold.pooled`."""


class Sampled(NamedTuple):
    """A metric averaged over folds or pooled over them, and the same in each resample."""

    value: float
    """NaN where no fold defines it"""
    samples: Floats
    """`(r,)`"""
    folds: tuple[float, ...] = ()
    """the metric of each fold; empty where no fold has one"""

    def minus(self, subtrahend: "Sampled") -> "Sampled":
        """Return the difference by resample, and by fold where both have the same number of folds."""
        folds: tuple[float, ...] = ()
        if len(self.folds) == len(subtrahend.folds):
            folds = tuple(ours - theirs for ours, theirs in zip(self.folds, subtrahend.folds, strict=True))
        return Sampled(self.value - subtrahend.value, self.samples - subtrahend.samples, folds)

    @property
    def defined(self) -> Floats:
        """The metric in the resamples that define it."""
        return self.samples[np.isfinite(self.samples)]

    @property
    def error(self) -> float:
        """Standard error; NaN where fewer than two resamples define the metric."""
        return float(self.defined.std(ddof=1)) if len(self.defined) > 1 else float("nan")

    @property
    def p(self) -> float:
        """P value of no difference, two-sided: twice the smaller share of resamples on either side of zero."""
        defined = self.defined
        fewer = min((defined <= 0).sum(), (defined >= 0).sum())
        return float(min(1.0, 2 * (fewer + 1) / (len(defined) + 1)))

    def bounds(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the bounds of the percentile interval; NaN where no resample defines the metric.

        Where almost all resamples lie on one side of the value, the interval is extended to it.
        """
        if not len(self.defined):
            return float("nan"), float("nan")
        low, high = np.quantile(self.defined, [(1 - level) / 2, (1 + level) / 2]).tolist()
        return (low, high) if np.isnan(self.value) else (min(low, self.value), max(high, self.value))

    @property
    def is_degenerate(self) -> bool:
        """Whether all resamples have one value: the patients do not show how certain it is, unless it is no change."""
        return len(self.defined) > 1 and float(np.ptp(self.defined)) <= _NO_SPREAD and self.value != 0

    def interval(self, method: str, counts: Mapping[str, int] | None = None, level: float = LEVEL) -> Estimate:
        """Return the value with its percentile interval; both None where no resample defines the metric.

        Where all resamples give the same value there is no interval: a model that makes no mistake among few patients
        is not a model that makes none.
        """
        degenerate = self.is_degenerate
        low, high = self.bounds(level) if np.isfinite(self.value) and not degenerate else (None, None)
        return Estimate(
            value=self.value,
            low=low,
            high=high,
            level=level,
            method=method,
            counts=dict(counts or {}),
            folds=self.folds,
            resamples=len(self.samples),
            reason=DEGENERATE if degenerate and np.isfinite(self.value) else None,
        )

    def with_p(self, method: str, counts: Mapping[str, int] | None = None, level: float = LEVEL) -> Estimate:
        """Return a difference with its percentile interval, and p of no difference where there is an interval."""
        estimate = self.interval(method, counts, level)
        return estimate if estimate.low is None else estimate.model_copy(update={"p": self.p})


def intervals(
    score: Score,
    folds: Sequence[Fold],
    resamples: int = 2000,
    seed: int = 0,
    level: float = LEVEL,
    counts: Mapping[str, int] | None = None,
) -> dict[str, Estimate]:
    """Return every metric that `score` gives, with its interval.

    Args:
        score: `Endpoint.score` or a function like it.
        folds: The reported patients of each fold.
        resamples: Number of bootstrap resamples.
        seed: Of the draws.
        level: Of the interval.
        counts: Of every estimate.
    """
    [metrics] = sampled([(score, folds)], resamples, seed)
    return {name: metric.interval(_method(folds, name), counts, level) for name, metric in metrics.items()}


def difference(
    score: Score,
    folds: Sequence[Fold],
    others: Sequence[Fold],
    resamples: int = 2000,
    seed: int = 0,
    level: float = LEVEL,
    counts: Mapping[str, int] | None = None,
) -> dict[str, Estimate]:
    """Return every metric of `folds` minus the same of `others`, paired: both are scored on the same resamples.

    Args:
        score: `Endpoint.score` or a function like it.
        folds: The reported patients of each fold.
        others: The same patients in the same order with another model's logits.
        resamples: Number of bootstrap resamples.
        seed: Of the draws; the same seed gives `intervals` the same resamples.
        level: Of the interval.
        counts: Of every estimate.
    """
    ours, theirs = sampled([(score, folds), (score, others)], resamples, seed, drawn=folds)
    differences = {name: metric.minus(theirs[name]) for name, metric in ours.items()}
    return {name: each.with_p(_method(folds, name), counts, level) for name, each in differences.items()}


def sampled(
    scored: Sequence[Scored], resamples: int, seed: int, drawn: Sequence[Fold] | None = None
) -> list[dict[str, Sampled]]:
    """Return every metric of each set of patients, all on the same resamples.

    A patient is drawn once a resample for all folds of all sets that name it, so that a difference is paired.

    Args:
        scored: Scores, each with the folds that it is averaged over.
        resamples: Number of bootstrap resamples.
        seed: Of the draws.
        drawn: The folds whose patients are drawn, where every set has these same patients in the same order; None:
            the patients of all sets by their names.
    """
    drawn = drawn or [fold for _, folds in scored for fold in folds]
    count = sum(len(folds) for _, folds in scored)
    metrics = _scored(scored, [None] * count)
    chunks = [_scored(scored, (weights * count)[:count]) for weights in draws(drawn, resamples, seed)]
    return [
        {
            name: Sampled(
                float(metric.overall[0]),
                np.concatenate([chunk[number][name].overall for chunk in chunks]),
                tuple(metric.by_fold[0].tolist()),
            )
            for name, metric in by_name.items()
        }
        for number, by_name in enumerate(metrics)
    ]


class _Scored(NamedTuple):
    """One metric of one set of patients."""

    overall: Floats
    """over all folds, `(r,)`"""
    by_fold: Floats
    """`(r, f)`"""


def _scored(scored: Sequence[Scored], weights: Sequence[Floats | None]) -> list[dict[str, _Scored]]:
    """Return each metric of each set, with a row for each resample."""
    metrics, remaining = [], iter(weights)
    for score, folds in scored:
        rows = [next(remaining) for _ in folds]
        by_fold = [score(fold.logits, fold.target, weight) for fold, weight in zip(folds, rows, strict=True)]
        pooled = _of_all_patients(score, folds, rows)
        of_set = dict[str, _Scored]()
        for name in by_fold[0]:
            values = np.stack([np.atleast_1d(each[name]) for each in by_fold], axis=1)
            overall = np.atleast_1d(pooled[name]) if name in pooled else _mean_defined(values)
            of_set[name] = _Scored(overall, values)
        metrics.append(of_set)
    return metrics


def _of_all_patients(score: Score, folds: Sequence[Fold], weights: Sequence[Floats | None]) -> dict[str, Floats]:
    """Return the metrics that are computed over the patients of all folds together."""
    if not folds[0].pooled:
        return {}
    given = [weight for weight in weights if weight is not None]
    metrics = score(
        torch.cat([fold.logits for fold in folds]),
        torch.cat([fold.target for fold in folds]),
        np.concatenate(given, axis=1) if given else None,
    )
    return {name: metric for name, metric in metrics.items() if name in folds[0].pooled}


def _mean_defined(values: Floats) -> Floats:
    """Return the mean over the folds that define the metric, `(r, f)` to `(r,)`; NaN where none does."""
    defined = np.isfinite(values)
    count = defined.sum(axis=1)
    mean = np.full(len(values), np.nan)
    np.divide(np.where(defined, values, 0).sum(axis=1), count, out=mean, where=count > 0)
    return mean


def _method(folds: Sequence[Fold], metric: str) -> str:
    if metric in folds[0].pooled:
        return POOLED
    return METHOD if any(fold.strata is None for fold in folds) else STRATIFIED
