"""Whether predicted risks at a horizon are right: observed against predicted, slope, smooth curve and its errors.

Risks are probabilities, so that patients of all folds are taken together, one row a patient.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Annotated

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from scipy import stats
from scipy.optimize import least_squares
from torch import Tensor

from mil.endpoints.survival_view import SurvivalView
from mil.errors import PredictionsError
from mil.report.evaluation import Evaluation
from mil.report.schema import PAGE_ONLY, Curve, Estimate, Model, Sentence
from mil.report.sections.pooled import CalibrationBin, resampled
from mil.report.sections.recalibration import NOT_CALIBRATED, CalibrationEffect, Recalibrated, recalibrated
from mil.stats import cox_regression
from mil.stats.bootstrap import Fold
from mil.stats.bootstrap_intervals import intervals
from mil.stats.calibration_metrics import log_log
from mil.stats.censoring import Censoring
from mil.stats.cox_regression import NotEstimableError
from mil.stats.estimate import LEVEL
from mil.stats.logistic import spline
from mil.stats.observed_risk import pseudo_values, reaches, risk_at
from mil.stats.survival_metrics import brier_at
from mil.stats.weights import Floats, as_rows

KNOTS = (0.1, 0.5, 0.9)
FEWEST = 10
"""Events and patients without one, below which no curve is drawn."""
_BINS, _POINTS = 5, 25
_SPLINE = "pseudo-values on a cubic spline of three knots"
_SMOOTH = f"{_SPLINE}, percentile, patients resampled"
BY_CHANCE = "right risks have a lower bound above zero in up to a fifth of samples"
_ERROR = f"{_SPLINE}, percentile above and basic bootstrap below, patients resampled"


class RiskCalibration(Model):
    """The calibration of risks at a horizon; no numbers where `reason` says why."""

    n: int
    events: int | None = None
    """until the horizon"""
    predicted: float | None = Field(default=None, title="Mean predicted risk")
    reason: str | None = None
    observed: Estimate | None = None
    observed_expected: Estimate | None = None
    slope: Estimate | None = None
    ici: Estimate | None = None
    e50: Estimate | None = None
    e90: Estimate | None = None
    curve: Curve | None = None
    quintiles: Annotated[tuple[CalibrationBin, ...], PAGE_ONLY] = Field(
        default=(), title="Fifths of the patients by predicted risk"
    )


class _Horizon(Model):
    horizon: str
    time: float
    column: str
    """of the predictions"""


class _Method(Model):
    method: str
    column: str | None = None
    """of the recalibrated risks"""


class RecalibratedRisk(RiskCalibration, _Method):  # the fields of the last base come first
    """The same risk after the tool's calibration, of the patients whose fold has one."""


class HorizonCalibration(RiskCalibration, _Horizon):
    """The calibration of the risk at one horizon."""

    calibrated: RecalibratedRisk | None = Field(default=None, title="After recalibration")


class MissingRisk(Model):
    """A horizon at which no risk is stated."""

    horizon: str
    time: float
    column: str
    """of the predictions"""
    reason: Sentence


def risk_columns(evaluation: Evaluation, view: SurvivalView, cause: str | None = None) -> dict[str, str]:
    """Return the predictions' columns of the risk by horizon, in order of time, as far as all patients have one.

    Args:
        evaluation: Its table holds the predictions.
        view: Of the endpoint.
        cause: Of competing ones; without it, the event of interest.

    Raises:
        PredictionsError: a risk is not between 0 and 1.
    """
    present = {name: column for name, column in view.risk_columns(cause).items() if column in evaluation.table}
    columns = {name: column for name, column in present.items() if evaluation.reported[column].notna().all()}
    for column in columns.values():
        values = evaluation.table[column]
        wrong = values.notna() & ~values.between(0, 1)
        if wrong.any():
            value = evaluation.table.loc[wrong, column].iloc[0]
            raise PredictionsError(f"predictions: {column} is {value} in {wrong.sum()} rows, expected 0 to 1")
    return columns


def missing_risks(evaluation: Evaluation, view: SurvivalView) -> tuple[MissingRisk, ...]:
    """Return the horizons at which reported patients have no risk, with the reason."""
    missing = []
    for name, column in view.risk_columns().items():
        if column in evaluation.table and (absent := int(evaluation.reported[column].isna().sum())):
            reason = view.beyond(name) or "the training patients of their fold were not followed as long"
            n = len(evaluation.reported)
            sentence = f"{column} is missing for {absent} of {n} patients: {reason}"
            missing.append(MissingRisk(horizon=name, time=view.horizons[name], column=column, reason=sentence))
    return tuple(missing)


def calibration(evaluation: Evaluation, view: SurvivalView) -> tuple[HorizonCalibration, ...]:
    """Return the calibration of each predicted risk, in order of time, before and after recalibration."""
    after = recalibrated(evaluation)
    return tuple(
        HorizonCalibration(
            horizon=name,
            time=view.horizons[name],
            column=column,
            **dict(_of_patients(evaluation, view, name, evaluation.reported, column)),
            calibrated=None if after is None else _recalibrated(evaluation, view, name, after, column),
        )
        for name, column in risk_columns(evaluation, view).items()
    )


def effects(evaluation: Evaluation, view: SurvivalView, after: Recalibrated) -> Iterator[CalibrationEffect]:
    """Yield what the calibration does to the risks of report patients: their Brier score and slope."""
    for name, column in risk_columns(evaluation, view).items():
        better, patients = after.risks(column)
        at = view.horizons[name]
        if patients.empty:
            continue
        time, code = view.event_times(evaluation.endpoint.encode(patients)).numpy().T
        sides = {side: patients[risk].to_numpy(np.float64) for side, risk in (("before", column), ("after", better))}
        censoring = Censoring.fit(time, code)

        score = partial(_brier_scores, sides, time, code, at, censoring)
        samples = resampled(score, len(patients), evaluation)
        slopes = (slope_at(sides["before"], time, code, at), slope_at(sides["after"], time, code, at))
        yield CalibrationEffect.of(name, "Brier score", samples, _counts(time, time, code, at), slopes)


def _brier_scores(
    sides: Mapping[str, Floats], time: Floats, code: Floats, at: float, censoring: Censoring, weight: Floats | None
) -> dict[str, Floats]:
    return {side: brier_at(1 - risk, time, code, at, censoring, weight) for side, risk in sides.items()}


def _recalibrated(
    evaluation: Evaluation, view: SurvivalView, horizon: str, after: Recalibrated, column: str
) -> RecalibratedRisk:
    better, patients = after.risks(column)
    if patients.empty:
        return RecalibratedRisk(method=after.method, n=0, reason=NOT_CALIBRATED)
    numbers = _of_patients(evaluation, view, horizon, patients, better)
    return RecalibratedRisk(method=after.method, column=better, **dict(numbers))


def _of_patients(
    evaluation: Evaluation, view: SurvivalView, horizon: str, patients: pd.DataFrame, column: str
) -> RiskCalibration:
    time, code = view.event_times(evaluation.endpoint.encode(patients)).numpy().T
    risk = patients[column].to_numpy(np.float64)
    return at_horizon(risk, time, code, view.horizons[horizon], evaluation.resamples, evaluation.seed)


def at_horizon(
    risk: Floats, time: Floats, code: Floats, at: float, resamples: int = 2000, seed: int = 0
) -> RiskCalibration:
    """Return the calibration of risks of an event by `at`.

    Observed over expected takes the predicted mean as given. The slope is that of log(-log(1 - risk)) in Cox's model
    with follow-up cut at the horizon, or where causes compete in one of pseudo-values: below 1 the risks are too
    extreme. The curve and its mean (ICI), median (E50) and 90th percentile (E90) distance from the diagonal are those
    of Austin, Harrell and van Klaveren, Stat Med 39, 2020, with pseudo-values (Gerds, Andersen and Kattan, Stat Med 33,
    2014), which serve competing risks as well.

    Args:
        risk: `(p,)`, 0 to 1.
        time: `(p,)`.
        code: `(p,)`, 0 censored, 1 the event, more for competing ones.
        at: The horizon.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
    """
    observed, expected = risk_at(time, code, at), float(risk.mean())
    errors, curve = _smooth(risk, time, code, at, resamples, seed)
    return RiskCalibration(
        n=len(risk),
        events=observed.counts["events"],
        predicted=expected,
        observed=observed,
        observed_expected=ratio_to(observed, expected),
        slope=slope_at(risk, time, code, at),
        ici=errors["ici"],
        e50=errors["e50"],
        e90=errors["e90"],
        curve=curve,
        quintiles=quintiles(risk, time, code, at),
    )


def quintiles(risk: Floats, time: Floats, code: Floats, at: float) -> tuple[CalibrationBin, ...]:
    """Return predicted and observed risk in fifths of the patients by predicted risk; equal risks stay together."""
    cuts = np.quantile(risk, np.arange(1, _BINS) / _BINS)
    fifth = np.searchsorted(cuts, risk, side="left")
    return tuple(
        CalibrationBin(
            n=int(members.sum()),
            predicted=float(risk[members].mean()),
            observed=risk_at(time[members], code[members], at),
        )
        for members in (fifth == number for number in np.unique(fifth))
    )


def ratio_to(observed: Estimate, expected: float) -> Estimate:
    if observed.value is None or not expected:
        counts = {"n": observed.counts["n"]}
        return Estimate.missing(observed.reason or "the predicted risks are all zero", counts)
    return observed.transformed(lambda risk: risk / expected)


def slope_at(risk: Floats, time: Floats, code: Floats, at: float) -> Estimate:
    if (code > 1).any():
        return _competing_slope(risk, time, code, at)
    covariate = pd.DataFrame({"score": log_log(risk)})
    try:
        fit = cox_regression.fit(covariate, np.minimum(time, at), (code == 1) & (time <= at))
    except NotEstimableError as reason:
        return Estimate.missing(str(reason), {"n": len(risk)})
    return fit.coefficient("score")


def _competing_slope(risk: Floats, time: Floats, code: Floats, at: float) -> Estimate:
    """Return the slope of log(-log(1 - risk)) in a regression of pseudo-values with that link, and the sandwich's CI.

    van Geloven et al., BMJ 377, 2022, e069249.
    """
    counts = _counts(risk, time, code, at)
    if reason := _no_curve(risk, time, code, at):
        return Estimate.missing(reason, counts)
    design, pseudo = np.column_stack([np.ones(len(risk)), log_log(risk)]), pseudo_values(time, code, at)
    fit = least_squares(lambda weights: -np.expm1(-np.exp(design @ weights)) - pseudo, [0.0, 1.0], xtol=1e-12)
    bread = np.linalg.inv(fit.jac.T @ fit.jac)
    error = float(np.sqrt((bread @ (fit.jac.T * fit.fun**2) @ fit.jac @ bread)[1, 1]))
    middle, half = float(fit.x[1]), float(stats.norm.ppf((1 + LEVEL) / 2)) * error
    method = "pseudo-values, log-log link, sandwich"
    return Estimate(value=middle, low=middle - half, high=middle + half, method=method, counts=counts)


def _smooth(
    risk: Floats, time: Floats, code: Floats, at: float, resamples: int, seed: int
) -> tuple[dict[str, Estimate], Curve | None]:
    """Return ICI, E50 and E90 by their keys, and the smooth curve with its band."""
    if reason := _no_curve(risk, time, code, at):
        return dict.fromkeys(("ici", "e50", "e90"), Estimate.missing(reason, {"n": len(risk)})), None
    # in the risk itself, so that a model without error is among the curves and no smoothing pulls it off the diagonal
    knots, grid = np.quantile(risk, KNOTS), np.quantile(risk, np.linspace(0.01, 0.99, _POINTS))
    target = np.stack([pseudo_values(time, code, at), risk], axis=1)
    patients = Fold(torch.from_numpy(spline(risk, knots)), torch.from_numpy(target))
    counts = _counts(risk, time, code, at)
    metrics = intervals(_spline_score(spline(grid, knots)), [patients], resamples, seed, counts=counts)
    points = [metrics[str(point)] for point in range(_POINTS)]
    curve = Curve(
        x=tuple(grid.tolist()),
        y=tuple(point.value for point in points),
        low=tuple(point.low for point in points),
        high=tuple(point.high for point in points),
        method=_SMOOTH,
    )
    return {key: _error(metrics[key]).with_caveat(BY_CHANCE) for key in ("ici", "e50", "e90")}, curve


def _error(percentile: Estimate) -> Estimate:
    """Return a distance from the diagonal, which is above zero by chance and in resamples higher still.

    The upper bound is the percentile, the lower one the upper turned about the value: together they hold the value, and
    zero where the distance may be chance.
    """
    value, low, high = percentile.value, percentile.low, percentile.high
    if value is not None and low is not None and high is not None:
        low = max(0.0, min(low, 2 * value - high))
    return percentile.model_copy(update={"low": low, "method": _ERROR, "folds": ()})


def _counts(risk: Floats, time: Floats, code: Floats, at: float) -> dict[str, int]:
    return {"n": len(risk), "events": int(((code == 1) & (time <= at)).sum())}


def _no_curve(risk: Floats, time: Floats, code: Floats, at: float) -> str | None:
    """Return why there is no curve, or None where there is one."""
    if not reaches(time, code, at):
        return f"nobody is followed for {at:g}"
    events, without = int(((code == 1) & (time <= at)).sum()), int((time >= at).sum())
    if min(events, without) < FEWEST:
        return f"{events} events and {without} patients without one at {at:g}, a curve needs {FEWEST} of each"
    if len(np.unique(np.quantile(risk, KNOTS))) < len(KNOTS):
        return "the predicted risks take too few different values"
    return None


def _spline_score(grid: Floats) -> Callable[[Tensor, Tensor, Floats | None], dict[str, Floats]]:
    """Return a score for `intervals`; logits are spline terms `(p, k)`, targets pseudo-values and risks `(p, 2)`."""

    def score(logits: Tensor, target: Tensor, weight: Floats | None) -> dict[str, Floats]:
        terms, (pseudo, risk) = logits.numpy(), target.numpy().T
        rows = as_rows(weight, len(risk))  # (r, p)
        squares = np.einsum("rp,pk,pl->rkl", rows, terms, terms, optimize=True)
        weights = np.einsum("rkl,rl->rk", np.linalg.pinv(squares, hermitian=True), (rows * pseudo) @ terms)
        error = np.abs(np.clip(weights @ terms.T, 0, 1) - risk)  # (r, p)
        curve = np.clip(weights @ grid.T, 0, 1)
        metrics = {"ici": (error * rows).sum(1) / rows.sum(1)}
        metrics |= {f"e{share}": _quantile(error, rows, share / 100) for share in (50, 90)}
        return metrics | {str(point): curve[:, point] for point in range(len(grid))}

    return score


def _quantile(values: Floats, rows: Floats, share: float) -> Floats:
    """Return the least value that a share of the weight does not exceed, `(r,)`."""
    order = np.argsort(values, axis=1)
    reached = np.cumsum(np.take_along_axis(rows, order, 1), axis=1)
    first = (reached < share * reached[:, -1:] * (1 - 1e-12)).sum(axis=1)
    return np.asarray(np.take_along_axis(np.take_along_axis(values, order, 1), first[:, None], 1)[:, 0])
