"""Intervals from counts: proportions, likelihood ratios, and predictive values at a stated prevalence."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from mil.stats.estimate import LEVEL, Bounds, Estimate

MEAN = "Wilson of each class, combined (MOVER)"
RATIO, BAYES = "logarithm, Simel 1991", "Bayes' rule, logit, Mercaldo 2007"
"""Methods of the intervals of likelihood ratios and of predictive values."""
UNDEFINED = "a class is absent or nobody has the call"
"""Why a ratio or a predictive value does not exist."""
_Triple = tuple[float, float, float]
"""value, low, high; NaN or infinite where they do not exist"""


def wilson(successes: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion, which holds it; NaN where n is 0. Wilson, JASA 22, 1927."""
    if n == 0:
        return float("nan"), float("nan")
    z = _z(level)
    share, shrink = successes / n, 1 + z**2 / n
    middle = (share + z**2 / (2 * n)) / shrink
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / shrink
    low, high = max(0.0, float(middle - half)), min(1.0, float(middle + half))
    return min(low, share), max(high, share)  # at 0 and 1 they are equal but for rounding


def clopper_pearson(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the exact interval of a proportion, which is never too short; NaN where n is 0. Biometrika 26, 1934."""
    if n == 0:
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    low = stats.beta.ppf(tail, successes, n - successes + 1) if successes else 0.0
    high = stats.beta.ppf(1 - tail, successes + 1, n - successes) if successes < n else 1.0
    return float(low), float(high)


def proportion(successes: int, n: int, level: float = LEVEL) -> Estimate:
    """Return a proportion with Wilson's interval, and the exact one as its second; without a value where n is 0."""
    counts = {"n": n, "successes": successes}
    if n == 0:
        return Estimate.missing("nobody to take the share of", counts)
    low, high = wilson(successes, n, level)
    exact_low, exact_high = clopper_pearson(successes, n, level)
    return Estimate(
        value=successes / n,
        low=low,
        high=high,
        level=level,
        method="Wilson",
        counts=counts,
        second=Bounds(low=exact_low, high=exact_high, method="Clopper-Pearson"),
    )


def mean_proportion(value: float, successes: Sequence[int], sizes: Sequence[int], level: float = LEVEL) -> Bounds:
    """Return the interval of a mean of independent proportions, such as balanced accuracy, from Wilson's of each.

    Args:
        value: The mean.
        successes: Of each proportion.
        sizes: Patients of each.
        level: Of the interval.

    References:
        Zou and Donner, Statistics in Medicine 27, 2008 (method of variance estimates recovery).
    """
    below = above = 0.0
    for count, n in zip(successes, sizes, strict=True):
        low, high = wilson(count, n, level)
        below, above = below + (count / n - low) ** 2, above + (high - count / n) ** 2
    low, high = value - below**0.5 / len(sizes), value + above**0.5 / len(sizes)
    return Bounds(low=max(0.0, low), high=min(1.0, high), method=MEAN)


def likelihood_ratio(first: int, positives: int, second: int, negatives: int, level: float = LEVEL) -> Estimate:
    """Return how many times as often positives get a call as negatives do, with the interval of its logarithm.

    Simel, Samsa and Matchar, Journal of Clinical Epidemiology 44, 1991. Where a count is zero, or everyone has the
    call, the bounds come from counts with one half added. An infinite value or bound is None.

    Args:
        first: Positives with the call.
        positives: All positives.
        second: Negatives with the call.
        negatives: All negatives.
        level: Of the interval.
    """
    triple = _likelihood_ratio(first, positives, second, negatives, level)
    reason = UNDEFINED if np.isnan(triple[0]) else "no negative has the call"
    return _estimate(triple, RATIO, positives + negatives, level).explained(reason)


def predictive_value(
    first: int, right: int, second: int, wrong: int, prevalence: float, level: float = LEVEL
) -> Estimate:
    """Return the share of patients with a call for whom it is right, at a stated prevalence.

    Bayes' rule on the likelihood ratio and its bounds, which is the logit interval for samples in which the prevalence
    is another, as in case-control studies: Mercaldo, Lau and Zhou, Statistics in Medicine 26, 2007. Their adjusted
    interval, which adds z^2 / 2 to every count, is not used: simulated with 30 positives of whom 2% are missed, it
    covers the NPV in 54% of samples and not in 95%.

    Args:
        first: Patients with the call for whom it is right: positives called positive, for the PPV.
        right: All patients for whom the call would be right.
        second: Patients with the call for whom it is wrong.
        wrong: All patients for whom the call would be wrong.
        prevalence: Share of patients for whom the call is right; for the NPV one minus the prevalence of positives.
        level: Of the interval.
    """
    odds = prevalence / (1 - prevalence)
    value, low, high = (_share(odds * ratio) for ratio in _likelihood_ratio(first, right, second, wrong, level))
    return _estimate((value, low, high), BAYES, right + wrong, level).explained(UNDEFINED)


def _likelihood_ratio(first: int, positives: int, second: int, negatives: int, level: float) -> _Triple:
    """Return value, low and high; NaN where nobody has the call or a class is absent."""
    if min(positives, negatives) == 0 or first + second == 0:
        return (float("nan"),) * 3
    value = first / positives / (second / negatives) if second else float("inf")
    plain = min(first, second) > 0 and (first < positives or second < negatives)
    low, high = _ratio_bounds(first, positives, second, negatives, 0.0 if plain else 0.5, level)
    return value, low if first else 0.0, high if second else float("inf")


def _estimate(triple: _Triple, method: str, n: int, level: float) -> Estimate:
    value, low, high = triple
    return Estimate(value=value, low=low, high=high, level=level, method=method, counts={"n": n})


def _share(odds: float) -> float:
    return 1.0 if odds == float("inf") else odds / (1 + odds)


def _ratio_bounds(
    first: int, of_first: int, second: int, of_second: int, added: float, level: float
) -> tuple[float, float]:
    """Return bounds of a ratio of two shares, symmetric in its logarithm; `added` goes to successes and failures."""
    shares = [(count + added) / (total + 2 * added) for count, total in ((first, of_first), (second, of_second))]
    spread = sum((1 - share) / (n + added) for share, n in zip(shares, (first, second), strict=True)) ** 0.5
    ratio = shares[0] / shares[1]
    return ratio * float(np.exp(-_z(level) * spread)), ratio * float(np.exp(_z(level) * spread))


def _z(level: float) -> float:
    return float(stats.norm.ppf((1 + level) / 2))
