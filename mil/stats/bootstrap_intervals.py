"""Metrics of one or several sets of patients on the same resamples: intervals, and differences that are paired."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mil.stats.bootstrap import METHOD, STRATIFIED, Floats, Fold, Score, draws
from mil.stats.estimate import LEVEL, Estimate

Part = tuple[Score, Sequence[Fold]]
"""A score with the folds that it is averaged over."""


class Sampled(NamedTuple):
    """A metric averaged over folds, and the same in each resample."""

    value: float
    """NaN where no fold defines it."""
    samples: Floats
    """`(r,)`"""
    folds: tuple[float, ...] = ()
    """The metric of each fold; empty where the folds are not kept apart."""

    def minus(self, other: "Sampled") -> "Sampled":
        """The difference, resample by resample; fold by fold too where both have the same number."""
        same = len(self.folds) == len(other.folds)
        apart = tuple(ours - theirs for ours, theirs in zip(self.folds, other.folds, strict=True)) if same else ()
        return Sampled(self.value - other.value, self.samples - other.samples, apart)

    @property
    def defined(self) -> Floats:
        """The resamples that define the metric."""
        return self.samples[np.isfinite(self.samples)]

    @property
    def error(self) -> float:
        """Standard error; NaN where fewer than two resamples define the metric."""
        return float(self.defined.std(ddof=1)) if len(self.defined) > 1 else float("nan")

    @property
    def p(self) -> float:
        """Of no difference, two-sided: twice the smaller share of resamples on either side of zero."""
        defined = self.defined
        fewer = min((defined <= 0).sum(), (defined >= 0).sum())
        return float(min(1.0, 2 * (fewer + 1) / (len(defined) + 1)))

    def bounds(self, level: float = LEVEL) -> tuple[float, float]:
        """Of the percentile interval; NaN where no resample defines the metric."""
        if not len(self.defined):
            return float("nan"), float("nan")
        low, high = np.quantile(self.defined, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def interval(self, method: str, counts: Mapping[str, int] | None = None, level: float = LEVEL) -> Estimate:
        """Return the value with its percentile interval; both None where no resample defines the metric."""
        low, high = self.bounds(level) if np.isfinite(self.value) else (None, None)
        return Estimate(
            value=self.value,
            low=low,
            high=high,
            level=level,
            method=method,
            counts=dict(counts or {}),
            folds=self.folds,
            resamples=len(self.samples),
        )


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
        score: `Endpoint.score` or any function like it.
        folds: The reported patients of each fold.
        resamples: How often the patients are drawn anew.
        seed: Of the draws.
        level: Of the interval.
        counts: Of every estimate.
    """
    [metrics] = sampled([(score, folds)], resamples, seed)
    return {name: metric.interval(_method(folds), counts, level) for name, metric in metrics.items()}


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
        score: `Endpoint.score` or any function like it.
        folds: The reported patients of each fold.
        others: The same patients in the same order with another model's logits.
        resamples: How often the patients are drawn anew.
        seed: Of the draws; the same seed gives `intervals` the same resamples.
        level: Of the interval.
        counts: Of every estimate.
    """
    ours, theirs = sampled([(score, folds), (score, others)], resamples, seed, drawn=folds)
    return {name: one.minus(theirs[name]).interval(_method(folds), counts, level) for name, one in ours.items()}


def sampled(
    parts: Sequence[Part], resamples: int, seed: int, drawn: Sequence[Fold] | None = None
) -> list[dict[str, Sampled]]:
    """Every metric of each part, all on the same draws of patients.

    A patient is drawn once a resample for all folds of all parts that name it, whichever partition they are from, so
    that a difference of two parts is paired.

    Args:
        parts: Scores with their folds.
        resamples: How often the patients are drawn anew.
        seed: Of the draws.
        drawn: The folds whose patients are drawn, where every part has these same patients in the same order; none:
            the patients of all parts by their names.
    """
    every = drawn or [fold for _, folds in parts for fold in folds]
    amount = sum(len(folds) for _, folds in parts)
    point = _by_fold(parts, [None] * amount)
    chunks = [_by_fold(parts, (weights * amount)[:amount]) for weights in draws(every, resamples, seed)]
    return [
        {
            name: Sampled(
                float(_mean_defined(values)[0]),
                _mean_defined(np.concatenate([chunk[at][name] for chunk in chunks])),
                tuple(values[0].tolist()),
            )
            for name, values in found.items()
        }
        for at, found in enumerate(point)
    ]


def _by_fold(parts: Sequence[Part], weights: Sequence[Floats | None]) -> list[dict[str, Floats]]:
    """Each metric of each part, a row a resample and a column a fold, `(r, f)`."""
    found, start = [], 0
    for score, folds in parts:
        own = weights[start : start + len(folds)]
        scores = [score(fold.logits, fold.target, weight) for fold, weight in zip(folds, own, strict=True)]
        found.append({name: np.stack([np.atleast_1d(one[name]) for one in scores], axis=1) for name in scores[0]})
        start += len(folds)
    return found


def _mean_defined(values: Floats) -> Floats:
    """Mean over the folds that define the metric, `(r, f)` to `(r,)`; NaN where none does."""
    defined = np.isfinite(values)
    count = defined.sum(axis=1)
    mean = np.full(len(values), np.nan)
    np.divide(np.where(defined, values, 0).sum(axis=1), count, out=mean, where=count > 0)
    return mean


def _method(folds: Sequence[Fold]) -> str:
    return METHOD if any(fold.strata is None for fold in folds) else STRATIFIED
