"""How far apart shares of subgroups lie: sensitivity, specificity, and both at once."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mil.stats.proportions import wilson

LEVEL = 0.95


def proportion_gap(rows: Mapping[str, Mapping[str, Any]], key: str, least: int) -> dict[str, Any] | None:
    """The largest share of any level minus the smallest, with Newcombe's interval; none below two levels.

    Newcombe, Statistics in Medicine 17, 1998, method 10. The two levels are chosen by the data: the gap is too large on
    average.

    Args:
        rows: By level; `key` of each is a share with `successes` and `n`.
        key: `sensitivity` or `specificity`.
        least: Of `n`; smaller levels have no part.
    """
    shares = _shares(rows, key, least)
    if len(shares) < 2:
        return None
    best, worst = (choose(shares, key=lambda name: shares[name][0] / shares[name][1]) for choose in (max, min))
    value, low, high = newcombe(*shares[best], *shares[worst])
    method = "Newcombe, of the best level minus the worst, both chosen by the data: too large on average"
    return {"best": best, "worst": worst, "value": value, "low": low, "high": high, "level": LEVEL, "method": method}


def newcombe(first: int, of_first: int, second: int, of_second: int) -> tuple[float, float, float]:
    """Difference of two independent shares with its 95% hybrid score interval. Newcombe 1998, method 10."""
    one, other = first / of_first, second / of_second
    (low, high), (under, over) = wilson(first, of_first, LEVEL), wilson(second, of_second, LEVEL)
    difference = one - other
    below, above = np.hypot(one - low, over - other), np.hypot(high - one, other - under)
    return difference, float(difference - below), float(difference + above)


def equalised_odds(
    rows: Mapping[str, Mapping[str, Any]], least: int, resamples: int, seed: int
) -> dict[str, Any] | None:
    """The larger of the gaps in sensitivity and in specificity; none where either is not known of two levels.

    Hardt, Price and Srebro, NeurIPS 2016. The interval is a bootstrap's over all levels: counts are drawn anew within
    each level and class. It stands above zero for groups that do not differ, as any largest gap does.
    """
    sides = [_shares(rows, key, least) for key in ("sensitivity", "specificity")]
    if min(map(len, sides)) < 2:
        return None
    generator = np.random.default_rng(seed)
    value = max(float(np.ptp([k / n for k, n in side.values()])) for side in sides)
    drawn = [_spread(generator, side, resamples) for side in sides]
    low, high = np.quantile(np.maximum(*drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    method = "percentile, calls resampled within levels and classes: never below zero"
    return {"value": value, "low": float(low), "high": float(high), "level": LEVEL, "method": method}


def _spread(generator: np.random.Generator, side: Mapping[str, tuple[int, int]], resamples: int) -> NDArray[np.float64]:
    counts = np.array(list(side.values()))  # (levels, 2)
    shares = generator.binomial(counts[:, 1], counts[:, 0] / counts[:, 1], (resamples, len(counts))) / counts[:, 1]
    return np.asarray(np.ptp(shares, axis=1), dtype=np.float64)


def _shares(rows: Mapping[str, Mapping[str, Any]], key: str, least: int) -> dict[str, tuple[int, int]]:
    found = {name: row[key] for name, row in rows.items() if row[key]}
    return {name: (one["successes"], one["n"]) for name, one in found.items() if one["n"] >= least}
