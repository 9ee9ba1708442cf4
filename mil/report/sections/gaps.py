"""How far apart the levels of a subgroup variable lie: in the metric, sensitivity, specificity, and in the last two."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mil.report.schema import LEVEL, Estimate, Model
from mil.stats.bootstrap_intervals import Sampled
from mil.stats.proportions import wilson

Estimates = Mapping[str, Estimate | None]
"""A proportion by level; None where it is not defined"""
METRIC_GAP = "percentile, of the best level minus the worst, both chosen by the data: too large on average"
PROPORTION_GAP = "Newcombe, of the best level minus the worst, both chosen by the data: too large on average"


class Gap(Model):
    """The difference between the best and the worst level."""

    variable: str | None = None
    best: str
    worst: str
    estimate: Estimate


def metric_gap(samples: Mapping[str, Sampled]) -> Gap | None:
    """Return the largest value of any level minus the smallest; None below two levels."""
    if len(samples) < 2:
        return None
    best, worst = (choose(samples, key=lambda level: samples[level].value) for choose in (max, min))
    return Gap(best=best, worst=worst, estimate=samples[best].minus(samples[worst]).interval(METRIC_GAP))


def proportion_gap(estimates: Estimates, least: int) -> Gap | None:
    """Return the largest proportion of any level minus the smallest, with Newcombe's interval; None below two levels.

    The two levels are chosen by the data: the gap is too large on average.

    Args:
        estimates: With counts `successes` and `n`.
        least: Smallest `n` of a level that takes part.

    References:
        Newcombe, Statistics in Medicine 17, 1998, method 10.
    """
    counts = _counts(estimates, least)
    if len(counts) < 2:
        return None
    best, worst = (choose(counts, key=lambda level: counts[level][0] / counts[level][1]) for choose in (max, min))
    value, low, high = newcombe(*counts[best], *counts[worst])
    return Gap(best=best, worst=worst, estimate=Estimate(value=value, low=low, high=high, method=PROPORTION_GAP))


def newcombe(first: int, n_first: int, second: int, n_second: int) -> tuple[float, float, float]:
    """Return the difference of two independent proportions with its 95% hybrid score interval.

    References:
        Newcombe, Statistics in Medicine 17, 1998, method 10.
    """
    larger, smaller = first / n_first, second / n_second
    (low, high), (under, over) = wilson(first, n_first, LEVEL), wilson(second, n_second, LEVEL)
    difference = larger - smaller
    below, above = np.hypot(larger - low, over - smaller), np.hypot(high - larger, smaller - under)
    return difference, float(difference - below), float(difference + above)


def equalised_odds(
    sensitivities: Estimates, specificities: Estimates, least: int, resamples: int, seed: int
) -> Estimate | None:
    """Return the larger of the gaps in sensitivity and in specificity; None where either has fewer than two levels.

    The interval is from a bootstrap over all levels, with counts drawn anew within each level and class. It lies above
    zero even for groups that do not differ, as for any largest gap.

    References:
        Hardt, Price and Srebro, NeurIPS 2016.
    """
    sides = [_counts(estimates, least) for estimates in (sensitivities, specificities)]
    if min(map(len, sides)) < 2:
        return None
    generator = np.random.default_rng(seed)
    value = max(float(np.ptp([k / n for k, n in side.values()])) for side in sides)
    resampled = [_resampled_gaps(generator, side, resamples) for side in sides]
    low, high = np.quantile(np.maximum(*resampled), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    method = "percentile, calls resampled within levels and classes: never below zero"
    return Estimate(value=value, low=min(value, float(low)), high=max(value, float(high)), method=method)


def _resampled_gaps(
    generator: np.random.Generator, side: Mapping[str, tuple[int, int]], resamples: int
) -> NDArray[np.float64]:
    counts = np.array(list(side.values()))  # (levels, 2)
    rates = generator.binomial(counts[:, 1], counts[:, 0] / counts[:, 1], (resamples, len(counts))) / counts[:, 1]
    return np.asarray(np.ptp(rates, axis=1), dtype=np.float64)


def _counts(estimates: Estimates, least: int) -> dict[str, tuple[int, int]]:
    """Return successes and n of each level that is large enough."""
    counts = {level: each.counts for level, each in estimates.items() if each is not None}
    return {level: (count["successes"], count["n"]) for level, count in counts.items() if count["n"] >= least}
