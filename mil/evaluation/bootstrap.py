"""Intervals by resampling patients.

Scores of different folds come from different models and are never pooled raw: a metric is computed within each fold
and averaged over the folds that define it. A resample draws patients with replacement within each fold, computes each
fold's metric and averages; the interval is the percentile interval of these averages. Classifiers are drawn within each
class, so that a resample keeps them all. Survival is drawn without strata: holding times fixed takes away a part of
what moves Harrell's C (simulated, 200 patients: coverage 0.92 with strata of event and time, 0.95 without). A patient
whom several folds report (repeated cross-validation) is drawn once a resample, for all of them: repeats do not make
patients.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
Score = Callable[[Tensor, Tensor, Floats | None], Mapping[str, Floats]]

METHOD = "percentile, patients resampled within folds"
STRATIFIED = f"{METHOD} and classes"
_CELLS = 2**20
"""Multiplicities held at once, 8 MiB."""


class Fold(NamedTuple):
    """The reported patients of one fold."""

    logits: Tensor
    """`(p, c)`"""
    target: Tensor
    """`(p,)` or `(p, k)`"""
    strata: NDArray[np.int64] | None = None
    """`(p,)`; one stratum where there are none."""
    patients: NDArray[np.str_] | None = None
    """Names `(p,)` that tell a patient again in another fold; none: all are different."""


@dataclass(frozen=True)
class Interval:
    """A metric's value over the folds, and what resampling the patients says of it; NaN where nobody defines it."""

    value: float
    low: float
    high: float
    resamples: int
    folds: tuple[float, ...] = ()
    level: float = 0.95
    method: str = METHOD


def intervals(
    score: Score, folds: Sequence[Fold], resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> dict[str, Interval]:
    """Every metric that `score` gives, with its interval.

    Args:
        score: `Endpoint.score` or any function like it.
        folds: The reported patients of each fold.
        resamples: How often the patients are drawn anew.
        seed: Of the draws.
        level: Of the interval.
    """

    def statistic(weights: Sequence[Floats | None]) -> dict[str, Floats]:
        return _by_fold(score, folds, weights)

    return _bootstrap(statistic, folds, resamples, seed, level)


def difference(
    score: Score,
    folds: Sequence[Fold],
    others: Sequence[Fold],
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Every metric of `folds` minus the same of `others`, paired: both are scored on the same resamples.

    Args:
        score: `Endpoint.score` or any function like it.
        folds: The reported patients of each fold.
        others: The same patients in the same order with another model's logits.
        resamples: How often the patients are drawn anew.
        seed: Of the draws; the same seed gives `intervals` the same resamples.
        level: Of the interval.
    """

    def statistic(weights: Sequence[Floats | None]) -> dict[str, Floats]:
        ours, theirs = _by_fold(score, folds, weights), _by_fold(score, others, weights)
        return {name: ours[name] - theirs[name] for name in ours}

    return _bootstrap(statistic, folds, resamples, seed, level)


def draws(folds: Sequence[Fold], resamples: int, seed: int) -> Iterator[list[Floats]]:
    """Multiplicities of each fold's patients, `(r, p)` a fold, in chunks of resamples that bound the memory."""
    strata, places = _population(folds)
    rows = max(1, _CELLS // max(1, len(np.concatenate(strata))))
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, rows):
        drawn = _multiplicities(generator, strata, min(rows, resamples - start))
        yield [drawn[:, place] for place in places]


def _population(folds: Sequence[Fold]) -> tuple[list[Places], list[Places]]:
    """The members of each stratum among all patients, and each fold's patients among them."""
    owner = np.concatenate([np.full(len(fold.target), at) for at, fold in enumerate(folds)])
    kind = np.concatenate([np.zeros(len(f.target), np.int64) if f.strata is None else f.strata for f in folds])
    ends = np.cumsum([len(fold.target) for fold in folds])
    if any(fold.patients is None for fold in folds):
        names: NDArray[np.generic] = np.arange(len(owner))
    else:
        names = np.concatenate([np.asarray(fold.patients) for fold in folds])
    _, first, person = np.unique(names, return_index=True, return_inverse=True)
    _, stratum = np.unique(np.stack([owner[first], kind[first]]), axis=1, return_inverse=True)
    members = [np.flatnonzero(stratum == at) for at in range(stratum.max() + 1)]
    return members, np.split(person, ends[:-1])


def _multiplicities(generator: np.random.Generator, strata: Sequence[Places], rows: int) -> Floats:
    drawn = np.zeros((rows, sum(map(len, strata))))  # (r, p)
    for members in strata:
        size = len(members)
        picked = generator.integers(0, size, (rows, size)) + size * np.arange(rows)[:, None]
        drawn[:, members] = np.bincount(picked.ravel(), minlength=rows * size).reshape(rows, size)
    return drawn


def _by_fold(score: Score, folds: Sequence[Fold], weights: Sequence[Floats | None]) -> dict[str, Floats]:
    """Each metric, a row a resample and a column a fold, `(r, f)`."""
    scores = [score(fold.logits, fold.target, weight) for fold, weight in zip(folds, weights, strict=True)]
    return {name: np.stack([np.atleast_1d(each[name]) for each in scores], axis=1) for name in scores[0]}


def _bootstrap(
    statistic: Callable[[Sequence[Floats | None]], dict[str, Floats]],
    folds: Sequence[Fold],
    resamples: int,
    seed: int,
    level: float,
) -> dict[str, Interval]:
    point = statistic([None] * len(folds))
    chunks = [statistic(weights) for weights in draws(folds, resamples, seed)]
    method = METHOD if any(fold.strata is None for fold in folds) else STRATIFIED
    found = {}
    for name, values in point.items():
        sampled = _mean_defined(np.concatenate([chunk[name] for chunk in chunks]))
        low, high = _percentiles(sampled, level)
        value = float(_mean_defined(values)[0])
        found[name] = Interval(value, low, high, resamples, tuple(values[0].tolist()), level, method)
    return found


def _mean_defined(values: Floats) -> Floats:
    """Mean over the folds that define the metric, `(r, f)` to `(r,)`; NaN where none does."""
    defined = np.isfinite(values)
    count = defined.sum(axis=1)
    mean = np.full(len(values), np.nan)
    np.divide(np.where(defined, values, 0).sum(axis=1), count, out=mean, where=count > 0)
    return mean


def _percentiles(sampled: Floats, level: float) -> tuple[float, float]:
    defined = sampled[np.isfinite(sampled)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
