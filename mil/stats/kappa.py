"""How well grades agree, for every resample of the patients at once."""

import numpy as np
from numpy.typing import ArrayLike

from mil.stats.weights import Floats, as_given, as_rows, ratio


def quadratic_kappa(predicted: ArrayLike, label: ArrayLike, classes: int, weight: Floats | None = None) -> Floats:
    """Return Cohen's kappa with disagreement weighted by the squared distance between grades.

    Cohen, Psychological Bulletin 70, 1968. One is agreement, zero the expectation of two independent graders with these
    frequencies.

    Args:
        predicted: `(p,)`, the grade called, 0 to c - 1.
        label: `(p,)`, the true grade.
        classes: c.
        weight: Multiplicities `(r, p)`.

    Returns:
        `()` or `(r,)`; NaN where all grades, called and true, are the same one.
    """
    called, true = (np.eye(classes)[np.asarray(grades, dtype=np.int64)] for grades in (predicted, label))  # (p, c)
    rows = as_rows(weight, len(true))
    distance = np.subtract.outer(np.arange(classes), np.arange(classes)) ** 2
    observed = rows @ np.einsum("pi,ij,pj->p", called, distance, true)
    expected = np.einsum("ri,ij,rj->r", rows @ called, distance, rows @ true)
    return as_given(1 - ratio(observed * rows.sum(1), expected), weight)
