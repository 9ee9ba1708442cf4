"""Calibration of risks at a horizon, fitted to the patients of model selection or of a new hospital.

Curves are straight lines on the scale of log(-log(1 - risk)), where proportional hazards differ by a constant:

- `baseline`: one constant for each horizon, so that the mean predicted risk equals the observed one: calibration in the
  large, with the baseline hazard of these patients in place of the training patients' (van Houwelingen, Statistics in
  Medicine 19, 2000; Steyerberg, Clinical Prediction Models, 2nd edition, 2019, chapter 20, methods 1 and 2).
- `baseline_slope`: first one slope for all horizons, which moderates risks that are too extreme.

The observed risk is the Kaplan-Meier estimate, or where causes compete the Aalen-Johansen estimate of each cause. The
slope maximises the likelihood of having the event by each horizon, with a constant for each: patients who are censored
earlier are left out, the others are weighted by the inverse probability of being followed that long. Outcomes are
smoothed as by Platt (`mil.fitted.calibrators`), since few patients may be separated without error.

The constants of two horizons differ, so that a calibrated risk could fall with time, or the causes' risks sum to more
than one: whoever applies the curves corrects that with `rising`. The constants are those with which the mean is right
after the former correction; the latter lowers the means where it is needed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import brentq, minimize

from mil.endpoints.endpoint import Endpoint
from mil.endpoints.survival_view import SurvivalView
from mil.errors import PredictionsError
from mil.fitted.probability_maps import LOG_LOG, Curve, Floats
from mil.stats.calibration_metrics import log_log
from mil.stats.censoring import Censoring
from mil.stats.net_benefit import incidence_until

FEWEST = 10
"""Events by a horizon, and patients followed that long, that a curve needs."""
_LEAST, _FAR = 1e-3, 60.0


@dataclass(frozen=True, eq=False)
class _Outcomes:
    """The patients' outcomes of one cause by one horizon, with their predicted risks."""

    name: str
    column: str
    score: Floats
    """log(-log(1 - risk)), `(p,)`"""
    event: Floats
    """1 with the event by then, 0 without, `(p,)`"""
    weight: Floats
    """inverse probability of being followed, 0 for patients who are censored before, `(p,)`"""
    observed: float
    """share of patients with the event by then"""

    @property
    def events(self) -> int:
        """Number of patients with the event by then."""
        return int(self.event.sum())

    @property
    def target(self) -> Floats:
        """Smoothed outcomes, `(p,)`."""
        counts = [int(((self.event == side) & (self.weight > 0)).sum()) for side in (0, 1)]
        return np.where(self.event == 1, (counts[1] + 1) / (counts[1] + 2), 1 / (counts[0] + 2))


def fit(method: str, endpoint: Endpoint, select: pd.DataFrame, share: float = 1.0) -> tuple[Curve, ...]:
    """Fit a curve for each cause and horizon for which there are enough patients.

    Args:
        method: One of `RISK_CALIBRATIONS`.
        endpoint: Of times to an event, with horizons.
        select: Targets and risks, a row a patient.
        share: Of all patients that these are: in cross-validation, where so much fewer are enough.

    Raises:
        PredictionsError: there are too few patients for any of them, a column is missing, or risks do not rise with
            what happened.
        ValueError: the endpoint is not about times to an event.
    """
    view = endpoint.survival
    if view is None:
        raise ValueError(f"endpoint {', '.join(endpoint.columns)}: no times to an event")
    time, code = view.event_times(endpoint.encode(select)).numpy().T
    fewest = int(share * FEWEST)
    curves, errors = list[Curve](), list[PredictionsError]()
    for cause, names in enumerate(view.all_risk_columns(), 1):
        horizons = []
        for outcomes in _by_horizon(method, view, select, time, code, cause, names, fewest):
            if isinstance(outcomes, PredictionsError):
                errors.append(outcomes)
            else:
                horizons.append(outcomes)
        if horizons:
            slope = _slope(horizons, method) if method == "baseline_slope" else 1.0
            curves += _curves(horizons, slope)
    if not curves:
        raise errors[0]
    return tuple(curves)


def rising(values: Floats, horizons: int) -> Floats:
    """Return risks that do not fall with time and whose causes do not sum to more than one, `(p, k h)`; NaN stays.

    A patient's risks are divided by the sum of the causes' risks at the last horizon, where that is above one.

    Args:
        values: `(p, k h)`, by cause and then by time.
        horizons: Number of horizons of each cause, h.
    """
    shaped = values.reshape(len(values), -1, horizons)  # (p, k, h)
    grown = np.fmax.accumulate(shaped, axis=2)
    total = np.nansum(grown, axis=1).max(axis=1, initial=1.0)  # (p,)
    return np.where(np.isnan(values), np.nan, (grown / total[:, None, None]).reshape(values.shape))


def _by_horizon(
    method: str,
    view: SurvivalView,
    patients: pd.DataFrame,
    time: Floats,
    ended: Floats,
    cause: int,
    names: Sequence[str],
    fewest: int,
) -> Iterator[_Outcomes | PredictionsError]:
    """Yield the outcomes of a cause by each horizon, or the error that says why they are too few."""
    times = sorted(view.horizons.values())
    for column, at in zip(names, times, strict=True):
        if column not in patients:
            raise PredictionsError(f"calibration {method}: no column {column!r}, found {', '.join(patients.columns)}")
        event = ((ended == cause) & (time <= at)).astype(np.float64)
        events, followed = int(event.sum()), int((time >= at).sum())
        if min(events, followed) < fewest:
            who = f"calibration {method} of {column}: {len(time)} patients with {events} events by {at:g}"
            yield PredictionsError(f"{who} and {followed} followed as long, expected {fewest} of each")
            continue
        if patients[column].isna().any():
            yield PredictionsError(
                f"calibration {method} of {column}: {patients[column].isna().sum()} risks are missing"
            )
            continue
        state = np.where(ended == cause, 1, np.where(ended > 0, 2, 0))
        observed = float(incidence_until(time, state, at)[0])
        score = log_log(patients[column].to_numpy(np.float64))
        yield _Outcomes(column.removeprefix("risk_"), column, score, event, _weights(time, ended, at), observed)


def _weights(time: Floats, ended: Floats, at: float) -> Floats:
    """Return `1 / G` just before the end of each patient's follow-up or the horizon; 0 for those censored before it."""
    weight = Censoring.fit(time, ended).inverse_before(np.minimum(time, at))
    return np.where((ended > 0) | (time >= at), weight, 0.0)


def _slope(horizons: Sequence[_Outcomes], method: str) -> float:
    """Return the slope of all horizons of a cause."""
    columns = ", ".join(outcomes.column for outcomes in horizons)
    who = f"calibration {method} of {columns}: {len(horizons[0].score)} patients"
    if not all(np.ptp(outcomes.score) for outcomes in horizons):
        raise PredictionsError(f"{who} with one risk for all, expected risks that differ")

    def loss(weights: Floats) -> tuple[float, Floats]:
        intercepts, slope = weights[:-1], float(weights[-1])
        terms = [
            _loss(outcomes, float(intercept), slope) for outcomes, intercept in zip(horizons, intercepts, strict=True)
        ]
        gradient = [term[1] for term in terms] + [sum(term[2] for term in terms)]
        return sum(term[0] for term in terms), np.array(gradient)

    fit = minimize(loss, [0.0] * len(horizons) + [1.0], jac=True, method="BFGS", options={"gtol": 1e-7})
    slope = float(fit.x[-1])
    if not slope > _LEAST:
        raise PredictionsError(f"{who} whose risks have a slope of {slope:.3g}, expected one that rises with the truth")
    return slope


def _loss(outcomes: _Outcomes, intercept: float, slope: float) -> tuple[float, float, float]:
    """Return the mean negative log likelihood, and its derivatives by intercept and slope."""
    hazard = np.exp(np.clip(intercept + slope * outcomes.score, -_FAR, _FAR / 10))  # (p,)
    risk, weight, target = -np.expm1(-hazard), outcomes.weight / outcomes.weight.sum(), outcomes.target
    value = -float(weight @ (target * np.log(risk) - (1 - target) * hazard))
    pull = -weight * hazard * (target * np.exp(-hazard) / risk - (1 - target))
    return value, float(pull.sum()), float(pull @ outcomes.score)


def _curves(horizons: Sequence[_Outcomes], slope: float) -> Iterator[Curve]:
    """Yield the curves of a cause by time, with the constants that make the mean risks the observed ones.

    A patient's risk at a horizon is never below the one before: where curves cross, which they do for risks that are
    one in double precision, the constant counts the earlier risk, as `rising` does.
    """
    before = np.zeros(len(horizons[0].score))
    for outcomes in horizons:
        intercept = _intercept(outcomes, slope)
        if (_risk(outcomes, slope, intercept) < before).any():
            intercept = _intercept_above(outcomes, slope, before)
        before = np.maximum(before, _risk(outcomes, slope, intercept))
        yield _curve(outcomes, slope, intercept)


def _risk(outcomes: _Outcomes, slope: float, intercept: float) -> Floats:
    return np.asarray(-np.expm1(-np.exp(np.clip(intercept + slope * outcomes.score, -_FAR, 50.0))))


def _intercept(outcomes: _Outcomes, slope: float) -> float:
    """Return the constant that makes the mean risk the observed one."""

    def excess(intercept: float) -> float:
        return float(_risk(outcomes, slope, intercept).mean()) - outcomes.observed

    reach = _FAR * (1 + slope)
    return float(brentq(excess, -reach, reach, xtol=1e-13, rtol=1e-14))


def _intercept_above(outcomes: _Outcomes, slope: float, before: Floats) -> float:
    """Return the constant that makes the mean of the higher of this and the earlier risk the observed one."""

    def excess(intercept: float) -> float:
        return float(np.maximum(before, _risk(outcomes, slope, intercept)).mean()) - outcomes.observed

    lowest = float((log_log(before) - slope * outcomes.score).min())  # below it, no patient's risk grows
    if excess(lowest) >= 0:  # nobody had the event between the two horizons
        return lowest
    return float(brentq(excess, lowest, _FAR * (1 + slope), xtol=1e-13, rtol=1e-14))


def _curve(outcomes: _Outcomes, slope: float, intercept: float) -> Curve:
    """Return the curve of a horizon."""
    return Curve(
        name=outcomes.name,
        columns=(outcomes.column,),
        n=len(outcomes.score),
        positives=outcomes.events,
        intercept=intercept,
        slope=slope,
        scale=LOG_LOG,
    )
