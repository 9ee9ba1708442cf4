"""Whether predicted numbers are right on average and along their range, and whether their spread is right."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import norm, t

from mil.endpoints.endpoint import Scores
from mil.report.evaluation import Evaluation
from mil.report.schema import LEVEL, PAGE_ONLY, Curve, Estimate, Model
from mil.report.sections.pooled import CalibrationBin, bins, curve, percentile_grid, points, resampled
from mil.stats.bootstrap import Floats
from mil.stats.calibration_metrics import least_squares, line_with_errors
from mil.stats.logistic import knots, spline
from mil.stats.means import mean_of_patients
from mil.stats.proportions import proportion

LEVELS = (0.5, 0.8, 0.95)
"""Expected coverage of the central intervals that a predicted standard deviation gives."""
LINE = "least squares, HC3 standard errors, Student's t"
FEWEST = 20
"""Patients below which no curve is drawn."""


class SpreadCoverage(Model):
    """How many true values are where a predicted standard deviation or quantile expects them."""

    name: str
    expected: float
    estimate: Estimate


class ValueCalibration(Model):
    """Bias, intercept and slope of the true values on the predicted ones, their curve, and coverage of the spread."""

    name: str
    unit: str | None
    n: int
    bias: Estimate
    intercept: Estimate
    slope: Estimate
    curve: Curve | None = None
    curve_reason: str | None = None
    """why there is no curve"""
    bins: Annotated[tuple[CalibrationBin, ...], PAGE_ONLY] = ()
    coverage: tuple[SpreadCoverage, ...] = Field(default=(), title="Coverage of the predicted spread")


def value_calibration(evaluation: Evaluation, value_column: str) -> ValueCalibration:
    """Return the calibration of predicted numbers, of all reported patients."""
    endpoint, table = evaluation.endpoint, evaluation.reported
    value, true = table[value_column].to_numpy(np.float64), endpoint.encode(table).double().numpy()
    has_curve = len(value) >= FEWEST and np.ptp(value) > 0
    intercept, slope = _line(value, true)
    return ValueCalibration(
        name=endpoint.columns[0],
        unit=endpoint.unit,
        n=len(value),
        bias=mean_of_patients(value - true),
        intercept=intercept,
        slope=slope,
        curve=_curve(value, true, evaluation) if has_curve else None,
        curve_reason=None if has_curve else f"fewer than {FEWEST} patients, or one value for all",
        bins=tuple(_bin(value[members], true[members]) for members in bins(value)),
        coverage=tuple(_coverage(evaluation, value_column, true)),
    )


def _line(value: Floats, true: Floats) -> tuple[Estimate, Estimate]:
    """Return intercept and slope of the true values on the predicted ones, with intervals that allow unequal spread."""
    counts, few = {"n": len(value)}, len(value) < 3
    if few or np.ptp(value) == 0:
        missing = Estimate.missing(
            "all predicted values are equal" if len(value) > 2 else "fewer than 3 patients", counts
        )
        return missing, missing
    line, error = line_with_errors(value, true)
    half = t.ppf((1 + LEVEL) / 2, len(value) - 2) * error
    intercept, slope = (
        Estimate(value=middle, low=middle - each, high=middle + each, method=LINE, counts=counts)
        for middle, each in zip(line.tolist(), half.tolist(), strict=True)
    )
    return intercept, slope


def _curve(value: Floats, true: Floats, evaluation: Evaluation) -> Curve:
    """Return the smooth curve; in each resample it keeps the knots of the whole sample."""
    middle, inner, grid = float(value.mean()), knots(value), percentile_grid(value)
    design, grid_design = spline(value - middle, inner - middle), spline(grid - middle, inner - middle)

    def score(weight: Floats | None) -> Scores:
        weight = np.ones((1, len(value))) if weight is None else weight
        return points(least_squares(design, true, weight) @ grid_design.T, "curve")

    return curve(resampled(score, len(value), evaluation), grid)


def _bin(value: Floats, true: Floats) -> CalibrationBin:
    """Return the mean of both sides, with the interval of Student's t for the true values."""
    n, mean = len(true), float(true.mean())
    half = float(t.ppf(0.975, n - 1) * true.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    observed = Estimate(value=mean, low=mean - half, high=mean + half, method="Student's t", counts={"n": n})
    return CalibrationBin(n=n, predicted=float(value.mean()), observed=observed)


def _coverage(evaluation: Evaluation, value_column: str, true: Floats) -> list[SpreadCoverage]:
    """Return how many true values are where the predicted spread or quantiles expect them; empty without either."""
    endpoint, table = evaluation.endpoint, evaluation.reported
    if endpoint.spread_column is not None and endpoint.spread_column in table:
        spread = table[endpoint.spread_column].to_numpy(np.float64)
        deviations = np.abs(true - table[value_column].to_numpy(np.float64)) / spread
        return [_share(f"central {level:.0%}", level, deviations <= norm.ppf((1 + level) / 2)) for level in LEVELS]
    bounds = {
        level: table[column].to_numpy(np.float64)
        for level, column in endpoint.quantile_columns.items()
        if column in table
    }
    shares = [_share(f"below quantile {level:g}", level, true <= bound) for level, bound in bounds.items()]
    for low in (level for level in bounds if level < 0.5):
        upper = next((level for level in bounds if abs(level + low - 1) < 1e-9), None)
        if upper is not None:
            width, inside = (1 - low) - low, (bounds[low] <= true) & (true <= bounds[upper])
            shares.append(_share(f"central {width:.0%}", width, inside))
    return shares


def _share(name: str, expected: float, inside: NDArray[np.bool_]) -> SpreadCoverage:
    return SpreadCoverage(name=name, expected=expected, estimate=proportion(int(inside.sum()), len(inside)))
