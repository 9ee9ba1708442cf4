"""Numbers of patients pooled over folds: probabilities, values and decisions, never scores that only order patients.

Patients are drawn over all folds and without regard to class. How many are positive is half of what calibration and
net benefit are about: holding it fixed, as for ranks, makes their intervals too narrow (simulated, 200 patients: the
intercept's hold the truth in 0.80 of samples, without classes in 0.93).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from mil.endpoints.endpoint import Scores
from mil.report.evaluation import Evaluation
from mil.stats.bootstrap import Floats, Fold
from mil.stats.bootstrap_intervals import intervals
from mil.stats.estimate import Estimate

METHOD = "percentile, patients resampled over all folds"
_POINTS, _BINS, _IN_A_BIN = 50, 10, 10

Metrics = Callable[[Floats | None], Scores]
"""From multiplicities `(r, p)`, or none, to numbers `(r,)` or `()`"""


def resampled(metrics: Metrics, patients: int, evaluation: Evaluation) -> dict[str, Estimate]:
    """Each metric of these patients with its interval, all on the same resamples."""

    def score(logits: Tensor, target: Tensor, weight: Floats | None) -> Scores:
        return metrics(weight)

    nobody = torch.zeros(patients)  # the metrics know their patients; the fold says how many to draw
    return intervals(score, [Fold(nobody[:, None], nobody)], evaluation.resamples, evaluation.seed)


def number(interval: Estimate, reason: str, **counts: int) -> dict[str, Any]:
    """A number as a report has it; `reason` stands beside one that could not be estimated."""
    found = {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "level": interval.level,
        "method": METHOD,
    } | counts
    return found if interval.value is not None else found | {"reason": reason}


def points(values: Floats, name: str) -> Scores:
    """Columns of `(r, k)` as metrics of their own, which `band` puts together again."""
    return {f"{name} {at}": column for at, column in enumerate(values.T)}


def band(found: Mapping[str, Estimate], name: str) -> dict[str, list[float | None]]:
    """`value`, `low` and `high` of every point, a list each; null where it is not known."""
    own = [found[f"{name} {at}"] for at in range(sum(key.startswith(f"{name} ") for key in found))]
    return {side: [getattr(one, side) for one in own] for side in ("value", "low", "high")}


def curve(found: Mapping[str, Estimate], at: Floats) -> dict[str, Any]:
    """The points of a smooth calibration curve, with its pointwise band."""
    sides = band(found, "curve")
    shape = {"predicted": at.tolist(), "observed": sides["value"], "low": sides["low"], "high": sides["high"]}
    return shape | {"level": 0.95, "method": f"restricted cubic spline; band: {METHOD}"}


def grid(values: Floats) -> Floats:
    """Where a curve is drawn: from the first to the ninety-ninth percentile."""
    low, high = np.quantile(values, [0.01, 0.99])
    return np.asarray(np.linspace(float(low), float(high), _POINTS))


def bins(values: Floats) -> list[NDArray[np.intp]]:
    """Members of ten parts of equal size by rising value, of fewer than 100 patients one for ten; ties together."""
    parts = min(_BINS, max(1, len(values) // _IN_A_BIN))
    place = ((rankdata(values) - 0.5) * parts // max(1, len(values))).astype(np.intp)
    return [np.flatnonzero(place == part) for part in np.unique(place)]
