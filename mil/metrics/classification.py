"""How well scores tell classes apart, for every resample of the patients at once."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mil.metrics.resamples import Floats, as_given, as_rows, ratio


def auroc(score: ArrayLike, positive: ArrayLike, weight: Floats | None = None) -> Floats:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    Sorted once, then sums over groups of tied scores: O(n log n + r n).

    Args:
        score: `(p,)`, higher for positives.
        positive: `(p,)`, true or 1 for positives.
        weight: Multiplicities `(r, p)`.

    Returns:
        `()` or `(r,)`; NaN where a class is absent or a score is NaN.
    """
    score, positive = np.asarray(score, dtype=np.float64), np.asarray(positive, dtype=bool)
    rows = as_rows(weight, len(score))  # (r, p)
    if not len(score) or np.isnan(score).any():
        return as_given(np.full(len(rows), np.nan), weight)
    order = np.argsort(score, kind="stable")
    score, positive, rows = score[order], positive[order], rows[:, order]
    group = np.flatnonzero(np.append(True, score[1:] != score[:-1]))  # the first of each run of ties
    positives = np.add.reduceat(rows * positive, group, axis=1)  # (r, g)
    negatives = np.add.reduceat(rows * ~positive, group, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    area = np.einsum("rg,rg->r", positives, below)
    return as_given(ratio(area, positives.sum(1) * negatives.sum(1)), weight)


def macro_auroc(scores: ArrayLike, label: ArrayLike, weight: Floats | None = None) -> Floats:
    """Mean over the classes of the AUROC of one class against the rest.

    Args:
        scores: `(p, c)`, column k higher for class k.
        label: `(p,)`, 0 to c - 1.
        weight: Multiplicities `(r, p)`.

    Returns:
        `()` or `(r,)`; NaN where a class is absent: a mean over fewer classes is another quantity.
    """
    scores, label = np.asarray(scores, dtype=np.float64), np.asarray(label)
    areas = [auroc(scores[:, k], label == k, weight) for k in range(scores.shape[1])]
    return np.asarray(np.mean(areas, axis=0))


def balanced_accuracy(predicted: ArrayLike, label: ArrayLike, classes: int, weight: Floats | None = None) -> Floats:
    """Mean over the classes of the share of their patients that are called so.

    Args:
        predicted: `(p,)`, the class called, 0 to c - 1.
        label: `(p,)`, the true class.
        classes: c.
        weight: Multiplicities `(r, p)`.

    Returns:
        `()` or `(r,)`; NaN where a class is absent.
    """
    predicted, label = np.asarray(predicted), np.asarray(label)
    recalls = [_share(predicted == k, label == k, weight) for k in range(classes)]
    return np.asarray(np.mean(recalls, axis=0))


def sensitivity(called: ArrayLike, positive: ArrayLike, weight: Floats | None = None) -> Floats:
    """The share of the positives that are called positive, `()` or `(r,)`; NaN without positives.

    Args:
        called: `(p,)`, true where the decision is positive.
        positive: `(p,)`, true where the patient is.
        weight: Multiplicities `(r, p)`.
    """
    return _share(np.asarray(called, dtype=bool), np.asarray(positive, dtype=bool), weight)


def specificity(called: ArrayLike, positive: ArrayLike, weight: Floats | None = None) -> Floats:
    """The share of the negatives that are called negative, `()` or `(r,)`; NaN without negatives.

    Args:
        called: `(p,)`, true where the decision is positive.
        positive: `(p,)`, true where the patient is.
        weight: Multiplicities `(r, p)`.
    """
    return _share(~np.asarray(called, dtype=bool), ~np.asarray(positive, dtype=bool), weight)


def _share(hit: NDArray[np.bool_], among: NDArray[np.bool_], weight: Floats | None) -> Floats:
    rows = as_rows(weight, len(hit))
    return as_given(ratio(rows @ (hit & among), rows @ among), weight)
