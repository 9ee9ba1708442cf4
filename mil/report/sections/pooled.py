"""Numbers of patients pooled over folds: probabilities, values and decisions, never scores that only order patients.

Patients are drawn over all folds and without regard to class. How many are positive is half of what calibration and
net benefit are about: holding it fixed, as for ranks, makes their intervals too narrow (simulated, 200 patients: the
intercept's hold the truth in 0.80 of samples, without classes in 0.93).
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from mil.endpoints.endpoint import Scores
from mil.report.evaluation import Evaluation
from mil.report.schema import Curve, Estimate, Model, Number
from mil.stats.bootstrap import Floats, Fold
from mil.stats.bootstrap_intervals import Sampled, sampled
from mil.stats.max_type import simultaneous_band

METHOD = "percentile, patients resampled over all folds"
NARROW_BANDS = "bands hold the true curve at a point in 0.91 to 0.95 of samples of fewer than 300 patients"
"""What the captions of calibration curves say: `docs/coverage.md`."""
_POINTS, _BINS, _IN_A_BIN = 50, 10, 10

Metrics = Callable[[Floats | None], Scores]
"""From multiplicities `(r, p)`, or none, to numbers `(r,)` or `()`"""


class Band(Model):
    """Values over a grid that stands elsewhere, with a pointwise band."""

    value: tuple[Number, ...]
    low: tuple[Number, ...]
    high: tuple[Number, ...]


class CalibrationBin(Model):
    """Patients with similar predictions."""

    n: int
    predicted: float
    """mean of their predictions"""
    observed: Estimate


def resampled(metrics: Metrics, patients: int, evaluation: Evaluation) -> dict[str, Sampled]:
    """Return each metric of these patients, all on the same resamples."""

    def score(logits: Tensor, target: Tensor, weight: Floats | None) -> Scores:
        return metrics(weight)

    nobody = torch.zeros(patients)  # the metrics hold the data of their patients; the fold gives their number only
    [samples] = sampled([(score, [Fold(nobody[:, None], nobody)])], evaluation.resamples, evaluation.seed)
    return {name: metric._replace(folds=()) for name, metric in samples.items()}


def estimate(metric: Sampled, counts: Mapping[str, int], reason: str) -> Estimate:
    """Return a metric with its percentile interval; `reason` says why there is none."""
    return metric.interval(METHOD, counts).explained(reason)


def points(values: Floats, name: str) -> Scores:
    """Return the columns of `(r, k)` as metrics of their own, which `band` puts together again."""
    return {f"{name} {index}": column for index, column in enumerate(values.T)}


def band(samples: Mapping[str, Sampled], name: str) -> Band:
    """Return value and bounds of every point; None where one is not defined."""
    metrics = [samples[f"{name} {index}"] for index in range(sum(key.startswith(f"{name} ") for key in samples))]
    low, high = zip(*(metric.bounds() for metric in metrics), strict=True)
    return Band(value=tuple(metric.value for metric in metrics), low=low, high=high)


def simultaneous(samples: Mapping[str, Sampled], name: str) -> Band:
    """Return value and sup-t bounds of every point: the band holds all of them at once in 95% of samples."""
    metrics = [samples[f"{name} {index}"] for index in range(sum(key.startswith(f"{name} ") for key in samples))]
    values = np.array([metric.value for metric in metrics])
    bounds = simultaneous_band(values, np.stack([metric.samples for metric in metrics], axis=1))
    return Band(value=tuple(values.tolist()), low=tuple(bounds.low.tolist()), high=tuple(bounds.high.tolist()))


def curve(samples: Mapping[str, Sampled], grid: Floats) -> Curve:
    """Return a smooth calibration curve, observed (y) over predicted (x), with its pointwise band."""
    observed = band(samples, "curve")
    return Curve(
        x=tuple(grid.tolist()),
        y=observed.value,
        low=observed.low,
        high=observed.high,
        method=f"restricted cubic spline; band: {METHOD}",
    )


def percentile_grid(values: Floats) -> Floats:
    """Return where a curve is drawn: from the first to the ninety-ninth percentile."""
    low, high = np.quantile(values, [0.01, 0.99])
    return np.asarray(np.linspace(float(low), float(high), _POINTS))


def bins(values: Floats) -> list[NDArray[np.intp]]:
    """Return the members of ten parts of equal size by rising value; ties stay together.

    Fewer than 100 patients have one part for every ten.
    """
    count = min(_BINS, max(1, len(values) // _IN_A_BIN))
    number = ((rankdata(values) - 0.5) * count // max(1, len(values))).astype(np.intp)
    return [np.flatnonzero(number == each) for each in np.unique(number)]
