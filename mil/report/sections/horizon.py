"""Whether predicted risks at a horizon come true: observed against predicted, slope, smooth curve and its errors.

Risks are probabilities, so that patients of all folds are taken together, one row a patient.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from scipy.optimize import least_squares
from torch import Tensor

from mil.endpoints.competing_risks import CompetingRisks
from mil.endpoints.survival import Survival
from mil.errors import PredictionsError
from mil.report.as_dict import as_dict
from mil.report.evaluation import Evaluation
from mil.report.sections.recalibration import Recalibrated, recalibrated
from mil.stats import cox_regression
from mil.stats.bootstrap import Fold
from mil.stats.bootstrap_intervals import intervals
from mil.stats.calibration_metrics import log_log
from mil.stats.cox_regression import NotEstimableError
from mil.stats.estimate import LEVEL, Estimate
from mil.stats.logistic import spline
from mil.stats.observed_risk import pseudo_values, reaches, risk_at
from mil.stats.weights import Floats, as_rows

KNOTS = (0.1, 0.5, 0.9)
FEWEST = 10
"""Events and patients without one, below which no curve is drawn."""
_BINS, _POINTS = 5, 25
_SMOOTH = "pseudo-values on a cubic spline of three knots, percentile, patients resampled"


def columns(evaluation: Evaluation, cause: int = 1) -> dict[str, str]:
    """The predictions' column of the risk of a cause, the first one is 1, at each horizon, where there is one.

    Raises:
        PredictionsError: a risk that is none from 0 to 1.
    """
    endpoint = evaluation.endpoint
    assert isinstance(endpoint, Survival)
    of_cause = f"{endpoint.causes[cause - 1]}_" if isinstance(endpoint, CompetingRisks) else ""
    named = {name: f"risk_{of_cause}{name}" for name in endpoint.horizons}
    found = {name: column for name, column in named.items() if column in evaluation.table}
    for column in found.values():
        wrong = ~evaluation.table[column].between(0, 1)
        if wrong.any():
            value = evaluation.table.loc[wrong, column].iloc[0]
            raise PredictionsError(f"predictions: {column} is {value} in {wrong.sum()} rows, expected 0 to 1")
    return found


def calibration(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Of each `risk_<horizon>`, in order of time, and of what recalibration made of it; empty where there is none."""
    endpoint, after = evaluation.endpoint, recalibrated(evaluation)
    assert isinstance(endpoint, Survival)
    found = []
    for name, column in sorted(columns(evaluation).items(), key=lambda item: endpoint.horizons[item[0]]):
        head = {"horizon": name, "time": endpoint.horizons[name], "column": column}
        found.append(head | _numbers(evaluation, endpoint, name, evaluation.reported, column))
        if after is not None:
            found[-1]["calibrated"] = {"method": after.method} | _after(evaluation, endpoint, name, after, column)
    return found


def _after(
    evaluation: Evaluation, endpoint: Survival, horizon: str, after: Recalibrated, column: str
) -> dict[str, Any]:
    better, rows = after.answered(column)
    if rows.empty:
        return {"n": 0, "reason": "no fold could be calibrated"}
    return {"column": better} | _numbers(evaluation, endpoint, horizon, rows, better)


def _numbers(
    evaluation: Evaluation, endpoint: Survival, horizon: str, rows: pd.DataFrame, column: str
) -> dict[str, Any]:
    time, code = endpoint.encode(rows)[:, :2].double().numpy().T
    risk, at = rows[column].to_numpy(np.float64), endpoint.horizons[horizon]
    found = at_horizon(risk, time, code, at, evaluation.resamples, evaluation.seed)
    return {"predicted": float(risk.mean())} | found


def at_horizon(
    risk: Floats, time: Floats, code: Floats, at: float, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Risks of an event by `at` against what happened.

    Observed over expected takes the predicted mean as given. The slope is that of log(-log(1 - risk)) in Cox's model
    with follow-up cut at the horizon, or where causes compete in one of pseudo-values: below 1 the risks are too
    extreme. The curve and its mean (ICI), median (E50) and 90th percentile (E90) distance from the diagonal are those
    of Austin, Harrell and van Klaveren, Stat Med 39, 2020, with pseudo-values (Gerds, Andersen and Kattan, Stat Med 33,
    2014), which serve competing risks as well.

    Args:
        risk: `(p,)`, 0 to 1.
        time: `(p,)`.
        code: `(p,)`, 0 censored, 1 the event, more for competing ones.
        at: the horizon.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    observed = as_dict(risk_at(time, code, at))
    return {
        "n": len(risk),
        "events": observed["events"],
        "observed": observed,
        "observed_expected": _divided(observed, float(risk.mean())),
        "slope": _slope(risk, time, code, at),
        **_smooth(risk, time, code, at, resamples, seed),
        "quintiles": quintiles(risk, time, code, at),
    }


def quintiles(risk: Floats, time: Floats, code: Floats, at: float) -> list[dict[str, Any]]:
    """Predicted and observed risk in fifths of the patients by predicted risk; equal risks stay together."""
    cuts = np.quantile(risk, np.arange(1, _BINS) / _BINS)
    place = np.searchsorted(cuts, risk, side="left")
    return [
        {
            "n": int(own.sum()),
            "predicted": float(risk[own].mean()),
            "observed": as_dict(risk_at(time[own], code[own], at)),
        }
        for own in (place == fifth for fifth in np.unique(place))
    ]


def _divided(observed: dict[str, Any], expected: float) -> dict[str, Any]:
    if observed["value"] is None or not expected:
        return {"value": None, "reason": observed.get("reason", "the predicted risks are all zero"), "n": observed["n"]}
    bounds = {key: None if observed[key] is None else observed[key] / expected for key in ("value", "low", "high")}
    return observed | bounds


def _slope(risk: Floats, time: Floats, code: Floats, at: float) -> dict[str, Any]:
    if (code > 1).any():
        return _competing_slope(risk, time, code, at)
    covariate = pd.DataFrame({"score": log_log(risk)})
    try:
        fit = cox_regression.fit(covariate, np.minimum(time, at), (code == 1) & (time <= at))
    except NotEstimableError as reason:
        return {"value": None, "reason": str(reason), "n": len(risk)}
    return as_dict(fit.coefficient("score"))


def _competing_slope(risk: Floats, time: Floats, code: Floats, at: float) -> dict[str, Any]:
    """Of log(-log(1 - risk)) in a regression of pseudo-values with that link, and the sandwich's interval.

    van Geloven et al., BMJ 377, 2022, e069249.
    """
    counts = {"n": len(risk), "events": int(((code == 1) & (time <= at)).sum())}
    reason = _unsmoothed(risk, time, code, at)
    if reason:
        return {"value": None, "reason": reason} | counts
    design, pseudo = np.column_stack([np.ones(len(risk)), log_log(risk)]), pseudo_values(time, code, at)
    fit = least_squares(lambda weights: -np.expm1(-np.exp(design @ weights)) - pseudo, [0.0, 1.0], xtol=1e-12)
    bread = np.linalg.inv(fit.jac.T @ fit.jac)
    error = float(np.sqrt((bread @ (fit.jac.T * fit.fun**2) @ fit.jac @ bread)[1, 1]))
    middle, half = float(fit.x[1]), float(stats.norm.ppf((1 + LEVEL) / 2)) * error
    method = "pseudo-values, log-log link, sandwich"
    return {"value": middle, "low": middle - half, "high": middle + half, "level": LEVEL, "method": method} | counts


def _smooth(risk: Floats, time: Floats, code: Floats, at: float, resamples: int, seed: int) -> dict[str, Any]:
    """ICI, E50, E90 and the curve with its band."""
    reason = _unsmoothed(risk, time, code, at)
    if reason:
        none = {"value": None, "reason": reason, "n": len(risk)}
        return {"ici": none, "e50": none, "e90": none, "curve": None}
    # in the risk itself, so that a model without error is among the curves and no smoothing pulls it off the diagonal
    knots, grid = np.quantile(risk, KNOTS), np.quantile(risk, np.linspace(0.01, 0.99, _POINTS))
    target = np.stack([pseudo_values(time, code, at), risk], axis=1)
    patients = Fold(torch.from_numpy(spline(risk, knots)), torch.from_numpy(target))
    found = intervals(_fitted(spline(grid, knots)), [patients], resamples, seed)
    counts = {"n": len(risk), "events": int(((code == 1) & (time <= at)).sum())}
    points = [found[f"{point}"] for point in range(_POINTS)]
    return {key: _number(found[key]) | counts for key in ("ici", "e50", "e90")} | {
        "curve": {
            "predicted": grid.tolist(),
            "observed": [point.value for point in points],
            "low": [point.low for point in points],
            "high": [point.high for point in points],
            "level": points[0].level,
            "method": _SMOOTH,
        }
        | counts
    }


def _unsmoothed(risk: Floats, time: Floats, code: Floats, at: float) -> str | None:
    """Why there is no curve."""
    if not reaches(time, code, at):
        return f"nobody is followed for {at:g}"
    events, without = int(((code == 1) & (time <= at)).sum()), int((time >= at).sum())
    if min(events, without) < FEWEST:
        return f"{events} events and {without} patients without one at {at:g}, a curve needs {FEWEST} of each"
    if len(np.unique(np.quantile(risk, KNOTS))) < len(KNOTS):
        return "the predicted risks take too few different values"
    return None


def _fitted(grid: Floats) -> Callable[[Tensor, Tensor, Floats | None], dict[str, Floats]]:
    """A score for `intervals`: its logits are spline terms `(p, k)`, its targets pseudo-values and risks `(p, 2)`."""

    def score(logits: Tensor, target: Tensor, weight: Floats | None) -> dict[str, Floats]:
        terms, (pseudo, risk) = logits.numpy(), target.numpy().T
        rows = as_rows(weight, len(risk))  # (r, p)
        squares = np.einsum("rp,pk,pl->rkl", rows, terms, terms, optimize=True)
        weights = np.einsum("rkl,rl->rk", np.linalg.pinv(squares, hermitian=True), (rows * pseudo) @ terms)
        error = np.abs(np.clip(weights @ terms.T, 0, 1) - risk)  # (r, p)
        curve = np.clip(weights @ grid.T, 0, 1)
        found = {"ici": (error * rows).sum(1) / rows.sum(1)}
        found |= {f"e{share}": _quantile(error, rows, share / 100) for share in (50, 90)}
        return found | {f"{point}": curve[:, point] for point in range(len(grid))}

    return score


def _quantile(values: Floats, rows: Floats, share: float) -> Floats:
    """The least value that a share of the weight does not exceed, `(r,)`."""
    order = np.argsort(values, axis=1)
    reached = np.cumsum(np.take_along_axis(rows, order, 1), axis=1)
    first = (reached < share * reached[:, -1:] * (1 - 1e-12)).sum(axis=1)
    return np.asarray(np.take_along_axis(np.take_along_axis(values, order, 1), first[:, None], 1)[:, 0])


def _number(found: Estimate) -> dict[str, Any]:
    return {"value": found.value, "low": found.low, "high": found.high, "level": found.level, "method": _SMOOTH}
