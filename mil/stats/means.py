"""The mean of one number a patient, with Student's interval."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from mil.stats.estimate import LEVEL, Estimate

METHOD = "Student's t over patients"


def mean_of_patients(values: ArrayLike, bounds: tuple[float, float] = (-np.inf, np.inf)) -> Estimate:
    """Return the mean of the values that are numbers, with its interval, cut to `bounds`; `counts` has their number.

    Args:
        values: One number a patient, NaN where a patient does not define it.
        bounds: Range of the values, such as (0, 1) for shares.
    """
    numbers = np.asarray(values, dtype=np.float64).ravel()
    numbers = numbers[np.isfinite(numbers)]
    n = len(numbers)
    if not n:
        return Estimate(value=None, counts={"n": 0}, reason="no patient defines it")
    mean = float(numbers.mean())
    if n < 2:
        return Estimate(value=mean, counts={"n": n}, reason="a single patient has no interval")
    half = float(student.ppf((1 + LEVEL) / 2, n - 1) * numbers.std(ddof=1) / np.sqrt(n))
    if half == 0:
        return Estimate(value=mean, counts={"n": n}, reason="all patients have the same value")
    low, high = np.clip([mean - half, mean + half], *bounds).tolist()
    return Estimate(value=mean, low=low, high=high, method=METHOD, counts={"n": n})
