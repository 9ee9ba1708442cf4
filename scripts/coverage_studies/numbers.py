"""Predicted numbers, and means over patients."""

from collections.abc import Mapping

import numpy as np
from scipy.stats import norm

from coverage_studies.simulated import Truths, estimates, evaluated, holds, predictions
from mil.endpoints.regression import Regression
from mil.report.sections.calibration import Calibration
from mil.report.sections.discrimination import Discrimination
from mil.stats.means import mean_of_patients

LIMIT = float(norm.ppf(0.975))
AREAS: Mapping[str, tuple[str, float]] = {
    "metrics.r2": ("R²", 0.5),
    "metrics.pearson": ("correlation", 0.5**0.5),
    "metrics.concordance": ("concordance correlation", 2 / 3),
    "metrics.mae": ("mean absolute error", (2 / np.pi) ** 0.5),
    "bland_altman.lower": ("lower limit of agreement", -LIMIT),
    "bland_altman.upper": ("upper limit of agreement", LIMIT),
}
"""Names and true values of a true number that is the predicted one plus a standard normal error."""
LINE: Mapping[str, tuple[str, float]] = {
    "predicted_value.bias": ("bias", 0.0),
    "predicted_value.intercept": ("calibration intercept", 0.0),
    "predicted_value.slope": ("calibration slope", 1.0),
}


def values(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Error, correlation, agreement and calibration of a predicted number, and the mean of a skewed one."""
    value = rng.normal(size=n)
    table = predictions(rng, folds, {"score": value + rng.normal(size=n), "value": value}, np.zeros(n, np.int64))
    evaluation = evaluated(table, Regression("score"))
    rows: Truths = {}
    for section, truths in ((Discrimination, AREAS), (Calibration, LINE)):
        of = estimates(section.compute(evaluation))
        rows |= {f"number: {name}": holds(of.get(key), truth) for key, (name, truth) in truths.items()}
    rows["maps: mean over patients, exponential"] = holds(mean_of_patients(rng.exponential(size=n)), 1.0)
    rows["maps: mean over patients, shares"] = holds(mean_of_patients(rng.beta(1, 4, n), (0, 1)), 0.2)
    return rows
