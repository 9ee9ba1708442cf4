"""How well scores separate classes, for every resample of the patients at once."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mil.stats.weights import Floats, as_given, as_rows, ratio

_LEAST, _MOST, _ROUNDING = 1e-300, 1e300, 1e-11


def auroc(score: ArrayLike, positive: ArrayLike, weight: Floats | None = None) -> Floats:
    """Return the area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    Each class is sorted once, then sums over the negatives are looked up for each positive: O(n log n + r n).

    Args:
        score: `(p,)`, higher for positives.
        positive: `(p,)`, true or 1 for positives.
        weight: Multiplicities `(r, p)`.

    Returns:
        `()` or `(r,)`; NaN where a class is absent or a score is NaN.
    """
    score, positive = np.asarray(score, dtype=np.float64), np.asarray(positive, dtype=bool)
    rows = as_rows(weight, len(score))  # (r, p)
    if np.isnan(score).any():
        return as_given(np.full(len(rows), np.nan), weight)
    (high, positives), (low, negatives) = (_sorted(score, rows, which) for which in (positive, ~positive))
    below = _total(negatives)  # (n + 1, r)
    less, most = (np.searchsorted(low, high, side) for side in ("left", "right"))
    area = np.einsum("pr,pr->r", positives, below[less])
    if (tied := less < most).any():
        area += np.einsum("pr,pr->r", positives[tied], below[most[tied]] - below[less[tied]]) / 2
    return as_given(ratio(area, positives.sum(0) * below[-1]), weight)


def average_precision(score: ArrayLike, positive: ArrayLike, weight: Floats | None = None) -> Floats:
    """Return the area under the precision-recall curve as a sum of steps; a random score reaches the prevalence.

    The mean over the positives of the precision where all scores down to theirs are called positive, tied ones
    together. This is what scikit-learn computes; nothing is interpolated, which would flatter (Davis and Goadrich, ICML
    2006).

    Args:
        score: `(p,)`, higher for positives.
        positive: `(p,)`, true or 1 for positives.
        weight: Multiplicities `(r, p)`.

    Returns:
        `()` or `(r,)`; NaN without positives or where a score is NaN.
    """
    score, positive = np.asarray(score, dtype=np.float64), np.asarray(positive, dtype=bool)
    rows = as_rows(weight, len(score))  # (r, p)
    if np.isnan(score).any():
        return as_given(np.full(len(rows), np.nan), weight)
    (high, positives), (low, negatives) = (_sorted(-score, rows, which) for which in (positive, ~positive))
    hits = _total(positives)[np.searchsorted(high, high, "right")]  # (n, r): positives called with each one
    called = hits + _total(negatives)[np.searchsorted(low, high, "right")]
    precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
    return as_given(ratio(np.einsum("pr,pr->r", positives, precision), positives.sum(0)), weight)


def macro_auroc(scores: ArrayLike, label: ArrayLike, weight: Floats | None = None) -> Floats:
    """Return the mean over the classes of the AUROC of one class against the rest.

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


def against_rest(log_share: Floats) -> Floats:
    """Return each class's log odds from the logarithms of its probability, `(p, c)` both, exact near 0 and near 1."""
    rest = np.log(-np.expm1(np.minimum(log_share, -_LEAST)))
    return log_share - rest


def levelled(scores: Floats) -> Floats:
    """Return ranks within each column, `(p, c)`, in which scores that are equal up to rounding are tied.

    Logarithms and their inverses change the last digits of equal scores, which would break their tie by chance: of
    probabilities with one decimal that moved an AUROC by 0.008.
    """
    finite = np.clip(scores, -_MOST, _MOST)
    order = np.argsort(finite, axis=0)
    rising = np.take_along_axis(finite, order, axis=0)
    differs = np.diff(rising, axis=0) > _ROUNDING * (1 + np.abs(rising[1:]))
    places = np.zeros_like(scores)
    np.put_along_axis(places, order[1:], np.cumsum(differs, axis=0, dtype=np.float64), axis=0)
    return np.where(np.isnan(scores), np.nan, places)


def balanced_accuracy(predicted: ArrayLike, label: ArrayLike, classes: int, weight: Floats | None = None) -> Floats:
    """Return the mean over the classes of their recall.

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
    """Return the share of the positives that are called positive, `()` or `(r,)`; NaN without positives.

    Args:
        called: `(p,)`, true where the decision is positive.
        positive: `(p,)`, true where the patient is.
        weight: Multiplicities `(r, p)`.
    """
    return _share(np.asarray(called, dtype=bool), np.asarray(positive, dtype=bool), weight)


def specificity(called: ArrayLike, positive: ArrayLike, weight: Floats | None = None) -> Floats:
    """Return the share of the negatives that are called negative, `()` or `(r,)`; NaN without negatives.

    Args:
        called: `(p,)`, true where the decision is positive.
        positive: `(p,)`, true where the patient is.
        weight: Multiplicities `(r, p)`.
    """
    return _share(~np.asarray(called, dtype=bool), ~np.asarray(positive, dtype=bool), weight)


def _share(hit: NDArray[np.bool_], among: NDArray[np.bool_], weight: Floats | None) -> Floats:
    rows = as_rows(weight, len(hit))
    return as_given(ratio(rows @ (hit & among), rows @ among), weight)


def _sorted(score: Floats, rows: Floats, which: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return rising scores of some of the patients, `(n,)`, and their weights with resamples last, `(n, r)`."""
    places = np.flatnonzero(which)
    places = places[np.argsort(score[places], kind="stable")]
    return score[places], rows.T[places]


def _total(weights: Floats) -> Floats:
    """Return sums over none, the first, the first two, ... of the patients, `(n, r)` to `(n + 1, r)`."""
    total = np.zeros((len(weights) + 1, weights.shape[1]))
    np.cumsum(weights, axis=0, out=total[1:])
    return total
