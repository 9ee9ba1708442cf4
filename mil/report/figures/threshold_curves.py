"""Curves of a question over its thresholds: each fold's, their mean, and its bootstrap band."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mil.endpoints.question import Question
from mil.report.evaluation import Evaluation
from mil.report.predictions import rows_of
from mil.stats.bootstrap import Floats, Fold, draws
from mil.stats.classification_metrics import auroc, average_precision

GRID = np.linspace(0, 1, 201)
RESAMPLES = 500
"""Bootstrap resamples of the band: enough for a line that is drawn."""


class Kind(NamedTuple):
    """A kind of curve."""

    rates: Callable[[Floats, Floats], Floats]
    """from true and false positives at each cut, `(r, cuts)` both and last those of everybody, to heights `(r, g)`"""
    area: Callable[[Floats, NDArray[np.bool_]], Floats]
    """of scores and answers, `(p,)` both, exact, `()`"""


@dataclass(frozen=True)
class Curves:
    """Heights of one question's curves at the grid, `g` points."""

    folds: Floats
    """`(f, g)`, of the folds that have both answers"""
    low: Floats
    """`(g,)`, the 95% bootstrap band of the mean curve, point by point"""
    high: Floats
    area: float
    """mean of the folds'"""
    positives: int
    n: int

    @property
    def mean(self) -> Floats:
        """Over the folds, `(g,)`."""
        return np.asarray(self.folds.mean(axis=0))


def answered(evaluation: Evaluation, question: Question) -> list[Fold]:
    """Return each fold's reported patients whose answer is known: probability `(p, 1)` and answer `(p,)`."""
    folds = []
    for _, rows in rows_of(evaluation.table, "report"):
        table = rows.set_index("patient")
        truth, score = question.truth(table), question.probability(table)
        has_answer = ~np.isnan(truth)
        answer = torch.from_numpy(truth[has_answer])
        patients = rows["patient"].to_numpy(dtype=np.str_)[has_answer]
        folds.append(Fold(torch.from_numpy(score[has_answer])[:, None], answer, answer.long().numpy(), patients))
    return folds


def curves(folds: Sequence[Fold], kind: Kind, seed: int = 0) -> Curves | None:
    """Return the curves of one question; None where no fold has both answers."""
    solvable = [fold for fold in folds if len(np.unique(fold.target.numpy())) == 2]
    if not solvable:
        return None
    drawn = [
        np.mean([_curve(fold, kind, weight) for fold, weight in zip(solvable, weights, strict=True)], axis=0)
        for weights in draws(solvable, RESAMPLES, seed)
    ]
    low, high = np.nanquantile(np.concatenate(drawn), [0.025, 0.975], axis=0)
    answers = {name: yes for fold in solvable for name, yes in _answers(fold)}
    area = float(np.mean([kind.area(*_read(fold)) for fold in solvable]))
    heights = np.concatenate([_curve(fold, kind) for fold in solvable])
    return Curves(heights, low, high, area, int(sum(answers.values())), len(answers))


def _read(fold: Fold) -> tuple[Floats, NDArray[np.bool_]]:
    return fold.logits[:, 0].double().numpy(), fold.target.numpy() == 1


def true_positive_rate(true: Floats, false: Floats) -> Floats:
    """Return the sensitivity at the false positive rates of the grid: straight between thresholds."""
    return np.stack([np.interp(GRID, *pair) for pair in zip(_share(false), _share(true), strict=True)])


def precision(true: Floats, false: Floats) -> Floats:
    """Return the precision at the recalls of the grid: that of the first threshold that reaches a recall.

    Precision is not straight between cuts; steps are what average precision adds up. Davis and Goadrich, ICML 2006.
    """
    called = true + false
    values = np.divide(true, called, out=np.ones_like(called), where=called > 0)  # (r, cuts + 1)
    first = [np.searchsorted(recall, np.maximum(GRID, 1e-9) - 1e-9) for recall in _share(true)]
    return np.stack([row[np.minimum(cuts, len(row) - 1)] for row, cuts in zip(values, first, strict=True)])


def _answers(fold: Fold) -> list[tuple[object, float]]:
    assert fold.patients is not None
    return list(zip(fold.patients.tolist(), fold.target.tolist(), strict=True))


def _curve(fold: Fold, kind: Kind, weight: Floats | None = None) -> Floats:
    score, positive = _read(fold)
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]), 1))  # patients of one score are called together
    weight = (np.ones((1, len(score))) if weight is None else weight)[:, order]
    true, false = (_called(weight * side[order], ends) for side in (positive, ~positive))
    return kind.rates(true, false)


def _called(weight: Floats, ends: NDArray[np.intp]) -> Floats:
    """Return how many are called at each threshold, from none to all, `(r, cuts + 1)`."""
    return np.pad(weight.cumsum(1)[:, ends], ((0, 0), (1, 0)))


def _share(called: Floats) -> Floats:
    total = called[:, -1:]
    return called / np.where(total > 0, total, np.nan)


ROC = Kind(true_positive_rate, auroc)
PRECISION_RECALL = Kind(precision, average_precision)
