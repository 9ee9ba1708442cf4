"""Intervals from counts: proportions, likelihood ratios, and predictive values at a stated prevalence."""

from typing import Any

import numpy as np
from scipy import stats

Estimate = tuple[float, float, float]
"""value, low, high"""
UNKNOWN = (float("nan"),) * 3


def wilson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion; NaN for none of none. Wilson, JASA 22, 1927."""
    if n == 0:
        return float("nan"), float("nan")
    z = _z(level)
    share, shrink = successes / n, 1 + z**2 / n
    middle = (share + z**2 / (2 * n)) / shrink
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / shrink
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a proportion, never too short; NaN for none of none. Biometrika 26, 1934."""
    if n == 0:
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    low = stats.beta.ppf(tail, successes, n - successes + 1) if successes else 0.0
    high = stats.beta.ppf(1 - tail, successes + 1, n - successes) if successes < n else 1.0
    return float(low), float(high)


def proportion(successes: int, n: int, level: float = 0.95) -> dict[str, Any]:
    """A share as a report has it: Wilson's interval, the exact one beside it; value None for none of none."""
    if n == 0:
        return {"value": None, "successes": 0, "n": 0, "reason": "nobody to take the share of"}
    low, high = wilson(successes, n, level)
    least, most = clopper_pearson(successes, n, level)
    return {
        "value": successes / n,
        "low": low,
        "high": high,
        "level": level,
        "method": "Wilson",
        "successes": successes,
        "n": n,
        "exact": {"low": least, "high": most, "method": "Clopper-Pearson"},
    }


def likelihood_ratio(first: int, positives: int, second: int, negatives: int, level: float = 0.95) -> Estimate:
    """How many times as often positives get a call as negatives do, with the interval of its logarithm.

    Simel, Samsa and Matchar, Journal of Clinical Epidemiology 44, 1991. Where a count is zero, or everyone has the
    call, the bounds come from counts with one half added; a bound that does not exist is 0 or infinite.

    Args:
        first: Positives with the call.
        positives: All of them.
        second: Negatives with the call.
        negatives: All of them.
        level: Of the interval.

    Returns:
        Value, low, high: NaN where nobody has the call or a class is absent, infinite where no negative has it.
    """
    if min(positives, negatives) == 0 or first + second == 0:
        return UNKNOWN
    value = first / positives / (second / negatives) if second else float("inf")
    plain = min(first, second) > 0 and (first < positives or second < negatives)
    low, high = _ratio_bounds(first, positives, second, negatives, 0.0 if plain else 0.5, level)
    return value, low if first else 0.0, high if second else float("inf")


def predictive_value(
    first: int, right: int, second: int, wrong: int, prevalence: float, level: float = 0.95
) -> Estimate:
    """The share of those with a call for whom it is right, were `prevalence` the share of patients it is right for.

    Bayes' rule on the likelihood ratio and its bounds, which is the logit interval for samples in which the prevalence
    is another, as in case-control studies: Mercaldo, Lau and Zhou, Statistics in Medicine 26, 2007. Their adjusted
    interval, which adds z^2 / 2 to every count, is not used: simulated with 30 positives of whom 2% are missed, it
    covers the NPV in 54% of samples and not in 95%.

    Args:
        first: Those with the call among whom it is right for: positives called positive, for the PPV.
        right: All whom it is right for.
        second: Those with the call among the others.
        wrong: All the others.
        prevalence: Share of patients whom the call is right for; for the NPV one minus the prevalence of positives.
        level: Of the interval.

    Returns:
        Value, low, high: NaN where nobody has the call or a class is absent.
    """
    odds = prevalence / (1 - prevalence)
    value, low, high = (odds * ratio for ratio in likelihood_ratio(first, right, second, wrong, level))
    return _share(value), _share(low), _share(high)


def _share(odds: float) -> float:
    return 1.0 if odds == float("inf") else odds / (1 + odds)


def _ratio_bounds(
    first: int, of_first: int, second: int, of_second: int, added: float, level: float
) -> tuple[float, float]:
    """Bounds of a ratio of two shares, symmetric in its logarithm; `added` goes to successes and to failures."""
    shares = [(count + added) / (all_ + 2 * added) for count, all_ in ((first, of_first), (second, of_second))]
    spread = sum((1 - share) / (n + added) for share, n in zip(shares, (first, second), strict=True)) ** 0.5
    ratio = shares[0] / shares[1]
    return ratio * float(np.exp(-_z(level) * spread)), ratio * float(np.exp(_z(level) * spread))


def _z(level: float) -> float:
    return float(stats.norm.ppf((1 + level) / 2))
