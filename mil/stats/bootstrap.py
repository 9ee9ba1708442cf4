"""Intervals by resampling patients.

Scores of different folds come from different models and are never pooled raw: a metric is computed within each fold
and averaged over the folds that define it. Values in a unit are comparable: a metric of them is computed over the
patients of all folds together, see `Fold.pooled`. A resample draws patients with replacement within each fold, computes
each fold's metric and averages; the interval is the percentile interval of these averages. Classifiers are drawn within
each class, so that a resample keeps them all. Survival is drawn without strata: holding times fixed takes away a part
of what moves Harrell's C (simulated, 200 patients: coverage 0.92 with strata of event and time, 0.95 without). A
patient whom several folds report (repeated cross-validation) is drawn once a resample, for all of them: repeats do not
make patients.

Simulated, R² of 100 patients in five folds: the interval of pooled errors holds the truth in 0.94 of cohorts, with
errors of Student's t with 3 degrees of freedom in 0.85; of means over folds in 0.77 and 0.37.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mil.progress import advance

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
Score = Callable[[Tensor, Tensor, Floats | None], Mapping[str, Floats]]

METHOD = "percentile, patients resampled within folds"
STRATIFIED = f"{METHOD} and classes"
POOLED = f"{METHOD}, errors pooled over them"
_CELLS = 2**20
"""Multiplicities in memory at a time, 8 MiB."""


class Fold(NamedTuple):
    """The reported patients of one fold."""

    logits: Tensor
    """`(p, c)`"""
    target: Tensor
    """`(p,)` or `(p, k)`"""
    strata: NDArray[np.int64] | None = None
    """`(p,)`; None: one stratum"""
    patients: NDArray[np.str_] | None = None
    """names `(p,)`, by which a patient is recognised in another fold; None: all patients are different"""
    pooled: frozenset[str] = frozenset()
    """metrics of the score that are computed over the patients of all folds together, not averaged over folds"""


def draws(folds: Sequence[Fold], resamples: int, seed: int) -> Iterator[list[Floats]]:
    """Yield multiplicities of each fold's patients, `(r, p)` per fold, in chunks of resamples that bound the memory."""
    strata, places = _population(folds)
    rows = max(1, _CELLS // max(1, len(np.concatenate(strata))))
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, rows):
        drawn = _multiplicities(generator, strata, min(rows, resamples - start))
        yield [drawn[:, place] for place in places]
        advance("resampling", min(start + rows, resamples), resamples)


def _population(folds: Sequence[Fold]) -> tuple[list[Places], list[Places]]:
    """Return the members of each stratum among all patients, and each fold's patients among them."""
    fold_of = np.concatenate([np.full(len(fold.target), number) for number, fold in enumerate(folds)])
    stratum_of = np.concatenate([np.zeros(len(f.target), np.int64) if f.strata is None else f.strata for f in folds])
    ends = np.cumsum([len(fold.target) for fold in folds])
    if any(fold.patients is None for fold in folds):
        names: NDArray[np.generic] = np.arange(len(fold_of))
    else:
        names = np.concatenate([np.asarray(fold.patients) for fold in folds])
    _, first, person = np.unique(names, return_index=True, return_inverse=True)
    _, stratum = np.unique(np.stack([fold_of[first], stratum_of[first]]), axis=1, return_inverse=True)
    members = [np.flatnonzero(stratum == number) for number in range(stratum.max() + 1)]
    return members, np.split(person, ends[:-1])


def _multiplicities(generator: np.random.Generator, strata: Sequence[Places], rows: int) -> Floats:
    drawn = np.zeros((rows, sum(map(len, strata))))  # (r, p)
    for members in strata:
        size = len(members)
        picked = generator.integers(0, size, (rows, size)) + size * np.arange(rows)[:, None]
        drawn[:, members] = np.bincount(picked.ravel(), minlength=rows * size).reshape(rows, size)
    return drawn
