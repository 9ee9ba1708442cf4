"""Patient weights: a bootstrap resample is a row of multiplicities.

Every metric takes `weight (r, p)` and gives `(r,)`; without weights every patient counts once and the result is `()`.
A whole-number weight is the same as that many copies of the patient, a weight of zero the same as leaving it out.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def as_rows(weight: Floats | None, patients: int) -> Floats:
    """Weights as rows `(r, p)`; a single row of ones where there are none."""
    return np.ones((1, patients)) if weight is None else np.asarray(weight, dtype=np.float64)


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """The quotient `(r,)`, NaN where the patients do not define it."""
    undefined = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=undefined, where=np.asarray(denominator) > 0)
    return undefined


def as_given(values: Floats, weight: Floats | None) -> Floats:
    """One value a row `(r,)`, or `()` where no weights were given."""
    return values if weight is not None else values.reshape(())
