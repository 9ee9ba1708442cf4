"""Numbers of an estimate, for assertions that compare them."""

import math

from mil.stats.estimate import Estimate


def triple(estimate: Estimate | None) -> tuple[float, float, float]:
    """Return value and bounds, all of which must exist."""
    assert estimate is not None
    assert estimate.value is not None, estimate.reason
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.value, estimate.low, estimate.high


def value_of(estimate: Estimate | None) -> float:
    """Return the value, which must exist."""
    assert estimate is not None
    assert estimate.value is not None, estimate.reason
    return estimate.value


def ends(estimate: Estimate) -> tuple[float, float]:
    """Return the bounds: an infinite one where the upper does not exist, NaN where neither does."""
    if estimate.low is None:
        return math.nan, math.nan
    return estimate.low, math.inf if estimate.high is None else estimate.high


def holds(estimate: Estimate, truth: float) -> bool:
    """Return whether the interval, which must exist, contains the truth."""
    _, low, high = triple(estimate)
    return low <= truth <= high


def width(estimate: Estimate | None) -> float:
    """Return the width of the interval, which must exist."""
    _, low, high = triple(estimate)
    return high - low
