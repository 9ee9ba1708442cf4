"""Intervals of R², correlations and the mean absolute error, which cover with few patients too.

Of 40 patients the percentile interval of the mean absolute error holds the truth in 0.84 of samples, that of the
correlation in 0.87 (`docs/coverage.md`). The jackknife's standard error with Student's t on a scale where the metric is
about symmetric holds it in 0.95: logarithm of the mean absolute error and of 1 - R², Fisher's z of correlations.

No interval of a squared error covers where errors have heavy tails: with Student's t of three degrees of freedom, whose
fourth moment does not exist, those of R² and of correlations cover 0.85 to 0.92 at 40 to 300 patients. Where the
errors' kurtosis shows it, the estimate has the caveat. It shows in 0.36 of such samples of 40 and in 0.58 of 100 only:
with fewer than 300 patients the caveat says so.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy import stats

from mil.endpoints.endpoint import Endpoint
from mil.report.schema import Estimate
from mil.stats.bootstrap import Floats, Fold
from mil.stats.jackknife import FISHER_Z, LOGARITHM, Scale, logarithm_of_rest, with_interval

POOLED_VALUES = "errors pooled over folds"
HEAVY = 6.0
"""Kurtosis of the errors above which intervals are too narrow; 3 is normal, 6 that of Laplace's distribution."""
TAILS = "errors have heavy tails, the interval is too narrow"
FEW = 300
UNSEEN = f"fewer than {FEW} patients do not show heavy tails of the errors, with which the interval would be too narrow"
SCALES: Mapping[str, Scale] = {
    "r2": logarithm_of_rest("R²"),
    "pearson": FISHER_Z,
    "concordance": FISHER_Z,
    "mae": LOGARITHM,
}


def value_estimates(endpoint: Endpoint, folds: Sequence[Fold], metrics: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """Return the metrics of predicted numbers with their jackknife intervals.

    Args:
        endpoint: A regression; for others nothing is returned.
        folds: The reported patients.
        metrics: Those of all folds pooled, with any interval.
    """
    if endpoint.value_column is None:
        return {}
    logits, target = torch.cat([fold.logits for fold in folds]), torch.cat([fold.target for fold in folds])
    names = np.concatenate([np.asarray(fold.patients) for fold in folds])
    patients, person = np.unique(names, return_inverse=True)
    error = (endpoint.decode(logits)[endpoint.value_column] - target.double()).numpy()
    heavy = len(error) > 3 and float(np.ptp(error)) > 0 and float(stats.kurtosis(error, fisher=False)) > HEAVY
    note = f", {POOLED_VALUES}" if len(folds) > 1 else ""
    estimates = {}
    for name in (name for name in metrics if name in SCALES):

        def metric(weight: Floats, name: str = name) -> Floats:
            return np.asarray(endpoint.score(logits, target, weight[:, person])[name])

        estimate = with_interval(metrics[name], metric, len(patients), SCALES[name], note)
        unseen = UNSEEN if len(patients) < FEW and name != "mae" else None
        shown = estimate is not metrics[name]
        estimates[name] = estimate.with_caveat(TAILS if heavy else unseen) if shown else estimate
    return estimates
