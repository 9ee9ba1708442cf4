"""Whether predicted numbers are right on the whole and along their range, and whether their spread is."""

from typing import Any

import numpy as np
import torch
from scipy.stats import norm, t

from mil.endpoints.endpoint import Scores
from mil.endpoints.regression import Regression
from mil.report.as_dict import as_dict
from mil.report.evaluation import Evaluation
from mil.report.sections.pooled import bins, curve, grid, number, points, resampled
from mil.stats.bootstrap import Floats
from mil.stats.calibration_metrics import least_squares, line
from mil.stats.logistic import knots, spline
from mil.stats.proportions import proportion

LEVELS = (0.5, 0.8, 0.95)
"""Shares that an interval about a value with a standard deviation should hold."""
FEWEST = 20
"""Patients below which no curve is drawn."""
_SAME = "all predicted values are one"


def of_values(evaluation: Evaluation) -> dict[str, Any]:
    """Bias, intercept and slope of the true on the predicted numbers, curve, bins, and coverage of the spread."""
    endpoint, table = evaluation.endpoint, evaluation.reported
    assert isinstance(endpoint, Regression)
    value, true = table["value"].to_numpy(np.float64), endpoint.encode(table).double().numpy()
    drawn = len(value) >= FEWEST and np.ptp(value) > 0
    at = grid(value) if drawn else np.zeros(0)
    scored = resampled(_Line(value, true, at), len(value), evaluation)
    found = {name: number(scored[name], _SAME, n=len(value)) for name in ("bias", "intercept", "slope")}
    return {
        "name": endpoint.column,
        "unit": endpoint.unit,
        "n": len(value),
        **found,
        "curve": curve(scored, at) if drawn else None,
        "curve_reason": None if drawn else f"fewer than {FEWEST} patients, or one value for all",
        "bins": [_bin(value[members], true[members]) for members in bins(value)],
        "coverage": _coverage(evaluation, endpoint, true),
    }


class _Line:
    """The numbers of a resample, whose spline has the knots of the whole sample."""

    def __init__(self, value: Floats, true: Floats, at: Floats) -> None:
        self.value, self.true, self.at = value, true, at
        middle, inner = float(value.mean()), knots(value)
        self.design, self.shown = spline(value - middle, inner - middle), spline(at - middle, inner - middle)

    def __call__(self, weight: Floats | None) -> Scores:
        weighed = np.ones((1, len(self.value))) if weight is None else weight
        intercept, slope = line(self.value, self.true, weighed)
        bias = weighed @ (self.value - self.true) / weighed.sum(1)
        found = {"bias": bias, "intercept": intercept, "slope": slope}
        if not len(self.at):
            return found
        return found | points(least_squares(self.design, self.true, weighed) @ self.shown.T, "curve")


def _bin(value: Floats, true: Floats) -> dict[str, Any]:
    """Mean of each side, with the interval of Student's t."""
    n = len(true)
    half = float(t.ppf(0.975, n - 1) * true.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    middle = float(true.mean())
    bounds = {"low": middle - half, "high": middle + half, "level": 0.95, "method": "Student's t"}
    return {"predicted": float(value.mean()), "observed": middle, **bounds, "n": n}


def _coverage(evaluation: Evaluation, endpoint: Regression, true: Floats) -> list[dict[str, Any]] | None:
    """How many true values lie where the predicted spread or quantiles say, beside the share asked for."""
    table = evaluation.reported
    if endpoint.kind == "gaussian" and "value_sd" in table:
        missed = np.abs(true - table["value"].to_numpy(np.float64)) / table["value_sd"].to_numpy(np.float64)
        return [_share(f"central {level:.0%}", level, missed <= norm.ppf((1 + level) / 2)) for level in LEVELS]
    if endpoint.kind != "quantile":
        return None
    names = dict(zip(endpoint.quantiles, endpoint.decode(torch.zeros(1, endpoint.out_dim)), strict=True))
    bounds = {level: table[name].to_numpy(np.float64) for level, name in names.items() if name in table}
    below = [_share(f"below quantile {level:g}", level, true <= bound) for level, bound in bounds.items()]
    pairs = [(level, 1 - level) for level in bounds if level < 0.5 and _opposite(level, bounds) is not None]
    for low, high in pairs:
        upper = bounds[_opposite(low, bounds) or high]
        below.append(_share(f"central {high - low:.0%}", high - low, (bounds[low] <= true) & (true <= upper)))
    return below


def _opposite(level: float, bounds: dict[float, Floats]) -> float | None:
    return next((other for other in bounds if abs(other + level - 1) < 1e-9), None)


def _share(name: str, asked: float, inside: Any) -> dict[str, Any]:
    return {"name": name, "asked": asked} | as_dict(proportion(int(inside.sum()), len(inside)))
