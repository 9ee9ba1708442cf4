"""Statements about several numbers at once, by the distribution of the largest deviation among resamples.

A band that holds all of a curve at once is `value ± q s` with the standard errors s of the resamples and q the 95%
quantile of the largest studentised deviation over the curve (sup-t: Montiel Olea and Plagborg-Møller, Journal of
Applied Econometrics 34, 2019). Of several differences, the p value of each is the share of resamples whose largest
studentised deviation reaches it (max-t: Westfall and Young, Resampling-Based Multiple Testing, 1993).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mil.stats.estimate import LEVEL

Floats = NDArray[np.float64]
_NO_SPREAD = 1e-12


class Simultaneous(NamedTuple):
    """A band that holds all values at once."""

    low: Floats
    """`(t,)`"""
    high: Floats
    critical: float
    """standard errors on either side; NaN where no value varies"""


def simultaneous_band(value: Floats, samples: Floats, level: float = LEVEL) -> Simultaneous:
    """Return the sup-t band of a curve.

    Args:
        value: `(t,)`.
        samples: The curve in each resample, `(r, t)`; resamples that are not defined everywhere are left out.
        level: Share of samples in which the band holds the whole curve.

    Returns:
        Bounds that equal the value where it does not vary.
    """
    defined = samples[np.isfinite(samples).all(axis=1)]
    if len(defined) < 2:
        nothing = np.full(len(value), np.nan)
        return Simultaneous(nothing, nothing, float("nan"))
    largest, error = _largest(value, defined)
    critical = float(np.quantile(largest, level)) if (error > _NO_SPREAD).any() else float("nan")
    half = np.where(error > _NO_SPREAD, np.nan_to_num(critical) * error, 0.0)
    return Simultaneous(value - half, value + half, critical)


def max_type_p(value: Floats, samples: Floats) -> Floats:
    """Return p values of several differences being zero, two-sided, adjusted for there being so many, `(t,)`.

    Args:
        value: `(t,)`.
        samples: The differences in each resample, `(r, t)`.

    Returns:
        NaN where a difference does not vary, unless it is zero: then 1.
    """
    defined = samples[np.isfinite(samples).all(axis=1)]
    if len(defined) < 2:
        return np.full(len(value), np.nan)
    largest, error = _largest(value, defined)
    varies = error > _NO_SPREAD
    observed = np.divide(np.abs(value), error, out=np.zeros_like(value), where=varies)
    reached = (largest[:, None] >= observed - 1e-9).sum(axis=0)
    p = (reached + 1) / (len(defined) + 1)
    return np.where(varies, p, np.where(value == 0, 1.0, np.nan))


def _largest(value: Floats, samples: Floats) -> tuple[Floats, Floats]:
    """Return each resample's largest studentised deviation `(r,)`, and the standard errors `(t,)`."""
    error = samples.std(axis=0, ddof=1)
    deviation = np.abs(samples - value)
    studentised = np.divide(deviation, error, out=np.zeros_like(deviation), where=error > _NO_SPREAD)
    return studentised.max(axis=1, initial=0.0), error  # of no numbers at all, as of a run that has no pair, zero
