"""Patient weights: a bootstrap resample is a row of multiplicities.

Every metric takes `weight (r, p)` and returns `(r,)`; without weights every patient counts once and the result is `()`.
A whole-number weight equals that many copies of the patient, a weight of zero leaves the patient out.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def as_rows(weight: Floats | None, patients: int) -> Floats:
    """Return weights as rows `(r, p)`; a single row of ones where there are none."""
    return np.ones((1, patients)) if weight is None else np.asarray(weight, dtype=np.float64)


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Return the quotient `(r,)`, NaN where the patients do not define it."""
    quotient = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=np.asarray(denominator) > 0)
    return quotient


def as_given(values: Floats, weight: Floats | None) -> Floats:
    """Return one value per row `(r,)`, or `()` where no weights were given."""
    return values if weight is not None else values.reshape(())
