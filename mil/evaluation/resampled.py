"""Metrics of several sets of patients on the same resamples: what subgroups, runs and their differences are made of."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mil.evaluation.bootstrap import Floats, Fold, Score, draws

LEVEL = 0.95


class Sampled(NamedTuple):
    """A metric averaged over folds, and the same in each resample."""

    value: float
    """NaN where no fold defines it."""
    samples: Floats
    """`(r,)`"""

    def minus(self, other: "Sampled") -> "Sampled":
        """The difference, resample by resample."""
        return Sampled(self.value - other.value, self.samples - other.samples)

    @property
    def error(self) -> float:
        """Standard error; NaN where fewer than two resamples define the metric."""
        defined = self.samples[np.isfinite(self.samples)]
        return float(defined.std(ddof=1)) if len(defined) > 1 else float("nan")

    @property
    def p(self) -> float:
        """Of no difference, two-sided: twice the smaller share of resamples on either side of zero."""
        defined = self.samples[np.isfinite(self.samples)]
        fewer = min((defined <= 0).sum(), (defined >= 0).sum())
        return float(min(1.0, 2 * (fewer + 1) / (len(defined) + 1)))

    def interval(self, method: str) -> dict[str, Any]:
        """`value`, `low`, `high`, `level`, `method`; the bounds are None where no resample defines the metric."""
        defined = self.samples[np.isfinite(self.samples)]
        found: dict[str, Any] = {"value": None, "low": None, "high": None, "level": LEVEL, "method": method}
        if np.isfinite(self.value):
            found["value"] = self.value
        if np.isfinite(self.value) and len(defined):
            low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            found |= {"low": float(low), "high": float(high)}
        return found


def sampled(parts: Sequence[tuple[Score, Sequence[Fold]]], resamples: int, seed: int) -> list[dict[str, Sampled]]:
    """Every metric of each part, all on the same draws of patients.

    A patient is drawn once a resample for all folds of all parts that name it, whichever partition they are from, so
    that a difference of two parts is paired. One part alone gives what `bootstrap.intervals` gives.

    Args:
        parts: A score with the folds that it is averaged over.
        resamples: How often the patients are drawn anew.
        seed: Of the draws.
    """
    every = [fold for _, folds in parts for fold in folds]
    point = _means(parts, [None] * len(every))
    chunks = [_means(parts, weights) for weights in draws(every, resamples, seed)]
    return [
        {
            name: Sampled(float(values[0]), np.concatenate([chunk[at][name] for chunk in chunks]))
            for name, values in found.items()
        }
        for at, found in enumerate(point)
    ]


def _means(parts: Sequence[tuple[Score, Sequence[Fold]]], weights: Sequence[Floats | None]) -> list[dict[str, Floats]]:
    found, start = [], 0
    for score, folds in parts:
        own = weights[start : start + len(folds)]
        scores = [score(fold.logits, fold.target, weight) for fold, weight in zip(folds, own, strict=True)]
        found.append(_averaged(scores))
        start += len(folds)
    return found


def _averaged(scores: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    """Each metric over the folds that define it, `(r,)`; NaN where none does."""
    means = {}
    for name in scores[0]:
        values = np.stack([np.atleast_1d(each[name]) for each in scores])  # (f, r)
        defined = np.isfinite(values)
        count = defined.sum(0)
        means[name] = np.where(defined, values, 0).sum(0) / np.where(count, count, np.nan)
    return means
