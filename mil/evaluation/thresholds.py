"""Cuts of a score: chosen on select patients, frozen, counted on report patients."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from mil.errors import ConfigError, PredictionsError

RULES = ("sensitivity", "specificity", "youden")
logger = logging.getLogger(__name__)


def choose(rule: Mapping[str, Any], score: ArrayLike, positive: ArrayLike) -> float:
    """The cut, one of the scores, from which on (`score >= cut`) a patient is called positive.

    `{"rule": "sensitivity", "at_least": s}` takes the highest cut that finds that share of the positives,
    `{"rule": "specificity", "at_least": s}` the lowest that clears that share of the negatives, and
    `{"rule": "youden"}` the lowest of the cuts where sensitivity + specificity is largest. Where even the highest score
    cannot clear enough negatives, it is the cut and a warning says so.

    Args:
        rule: One of the three.
        score: `(p,)` of select patients.
        positive: `(p,)`, true or 1 for positives.

    Raises:
        ConfigError: another rule, or a share that is missing or not in (0, 1].
        PredictionsError: a class is absent among the patients.
    """
    name, share = _checked(rule)
    score, positive = np.asarray(score, dtype=np.float64), np.asarray(positive, dtype=bool)
    if not positive.any() or positive.all():
        mixture = f"{int(positive.sum())} positives among {len(positive)} select patients"
        raise PredictionsError(f"decision {name}: {mixture}, expected both classes")
    cuts = np.unique(score)  # (k,), increasing
    positives, negatives = int(positive.sum()), int((~positive).sum())
    found = positives - np.searchsorted(np.sort(score[positive]), cuts)  # (k,)
    cleared = np.searchsorted(np.sort(score[~positive]), cuts)
    if name == "sensitivity":
        return float(cuts[found / positives >= share].max())
    if name == "youden":
        return float(cuts[np.argmax(found * negatives + cleared * positives)])
    if cleared[-1] / negatives < share:
        logger.warning("decision: no cut has a specificity of %s on %d select patients", share, len(score))
        return float(cuts[-1])
    return float(cuts[cleared / negatives >= share].min())


def wilson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion; NaN for none of none. Wilson, JASA 22, 1927."""
    if n == 0:
        return float("nan"), float("nan")
    z = float(stats.norm.ppf((1 + level) / 2))
    share, shrink = successes / n, 1 + z**2 / n
    middle = (share + z**2 / (2 * n)) / shrink
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / shrink
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def _checked(rule: Mapping[str, Any]) -> tuple[str, float]:
    name, share = rule.get("rule"), rule.get("at_least")
    if name not in RULES:
        raise ConfigError(f"decision: rule {name!r}, expected one of {', '.join(RULES)}")
    if name == "youden":
        return name, 0.0
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ConfigError(f"decision {name}: at_least {share!r}, expected a share above 0 and up to 1")
    return name, float(share)
