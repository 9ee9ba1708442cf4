"""Risks at a horizon that are wrong on the whole, put right by the patients of a select set or of a new hospital.

Everything happens on the scale of log(-log(1 - risk)), where hazards that are proportional differ by a constant:

- `baseline`: one constant a horizon, so that the mean predicted risk is the observed one: calibration in the large, and
  the hazard of the patients at hand in place of the training patients' (van Houwelingen, Statistics in Medicine 19,
  2000; Steyerberg, Clinical Prediction Models, 2nd edition, 2019, chapter 20, methods 1 and 2).
- `baseline_slope`: one slope for all horizons before that, which draws risks together that are too extreme.

The observed risk is Kaplan and Meier's, or where causes compete Aalen and Johansen's, each cause for itself. The slope
is the likeliest one of having the event by each horizon, with a constant of its own each: patients who are censored
before have no part, the others weigh by the inverse chance to be followed as long as that. Outcomes are smoothed as
Platt smooths his (see `mil.fitted.calibrators`), since few patients may be told apart without error.

The constants of two horizons differ, so that a risk could fall with time, or the causes' risks sum to more than one:
who applies the curves draws them together (`rising`).
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
"""Events until a horizon, and patients followed that long, below which it is left as it is."""
_LEAST, _FAR = 1e-3, 60.0


@dataclass(frozen=True, eq=False)
class _Known:
    """One cause at one horizon, with what is known of the patients."""

    name: str
    column: str
    score: Floats
    """log(-log(1 - risk)), `(p,)`"""
    event: Floats
    """1 who had it by then, 0 who had not, `(p,)`"""
    weight: Floats
    """0 for who is censored before, `(p,)`"""
    observed: float

    @property
    def events(self) -> int:
        """Patients who had it by then."""
        return int(self.event.sum())

    @property
    def target(self) -> Floats:
        """Smoothed outcomes, `(p,)`."""
        counts = [int(((self.event == side) & (self.weight > 0)).sum()) for side in (0, 1)]
        return np.where(self.event == 1, (counts[1] + 1) / (counts[1] + 2), 1 / (counts[0] + 2))


def fit(method: str, endpoint: Endpoint, select: pd.DataFrame) -> tuple[Curve, ...]:
    """Fit a curve for each cause and horizon for which there are enough patients.

    Args:
        method: One of `RISK_CALIBRATIONS`.
        endpoint: Of times to an event, with horizons.
        select: Targets and risks, a row a patient.

    Raises:
        PredictionsError: there are too few patients for any of them, a column is missing, or risks do not rise with
            what happened.
        ValueError: the endpoint is not about times to an event.
    """
    view = endpoint.survival
    if view is None:
        raise ValueError(f"endpoint {', '.join(endpoint.columns)}: no times to an event")
    time, code = view.event_times(endpoint.encode(select)).numpy().T
    found, wrong = list[Curve](), list[PredictionsError]()
    for cause, names in enumerate(view.all_risk_columns(), 1):
        known = []
        for one in _looked(method, view, select, time, code, cause, names):
            if isinstance(one, PredictionsError):
                wrong.append(one)
            else:
                known.append(one)
        if known:
            slope = _slope(known, method) if method == "baseline_slope" else 1.0
            found += [_curve(one, slope) for one in known]
    if not found:
        raise wrong[0]
    return tuple(found)


def rising(values: Floats, horizons: int) -> Floats:
    """Risks that do not fall with time and whose causes do not sum to more than one, `(p, k h)`; NaN stays.

    A patient's risks are divided by what the causes' last ones sum to, where that is more than one.

    Args:
        values: `(p, k h)`, by cause and then by time.
        horizons: h, of each cause.
    """
    shaped = values.reshape(len(values), -1, horizons)  # (p, k, h)
    grown = np.fmax.accumulate(shaped, axis=2)
    whole = np.nansum(grown, axis=1).max(axis=1, initial=1.0)  # (p,)
    return np.where(np.isnan(values), np.nan, (grown / whole[:, None, None]).reshape(values.shape))


def _looked(
    method: str,
    view: SurvivalView,
    patients: pd.DataFrame,
    time: Floats,
    ended: Floats,
    cause: int,
    names: Sequence[str],
) -> Iterator[_Known | PredictionsError]:
    """Yield what is known about a cause at each horizon, or why it is too little."""
    times = sorted(view.horizons.values())
    for column, at in zip(names, times, strict=True):
        if column not in patients:
            raise PredictionsError(f"calibration {method}: no column {column!r}, found {', '.join(patients.columns)}")
        event = ((ended == cause) & (time <= at)).astype(np.float64)
        events, followed = int(event.sum()), int((time >= at).sum())
        if min(events, followed) < FEWEST:
            who = f"calibration {method} of {column}: {len(time)} patients with {events} events by {at:g}"
            yield PredictionsError(f"{who} and {followed} followed as long, expected {FEWEST} of each")
            continue
        other = np.where(ended == cause, 1, np.where(ended > 0, 2, 0))
        observed = float(incidence_until(time, other, at)[0])
        score = log_log(patients[column].to_numpy(np.float64))
        yield _Known(column.removeprefix("risk_"), column, score, event, _weights(time, ended, at), observed)


def _weights(time: Floats, ended: Floats, at: float) -> Floats:
    """`1 / G` just before what is known of each patient by a time; who leaves at that very time was there."""
    known = np.nextafter(np.minimum(time, at), -np.inf)
    return np.where((ended > 0) | (time >= at), Censoring.fit(time, ended).inverse(known), 0.0)


def _slope(known: Sequence[_Known], method: str) -> float:
    """The one of all horizons of a cause."""
    who = f"calibration {method} of {', '.join(one.column for one in known)}: {len(known[0].score)} patients"
    if not all(np.ptp(one.score) for one in known):
        raise PredictionsError(f"{who} with one risk for all, expected risks that differ")

    def lost(weights: Floats) -> tuple[float, Floats]:
        parts = [_lost(one, float(own), float(weights[-1])) for one, own in zip(known, weights[:-1], strict=True)]
        gradient = [part[1] for part in parts] + [sum(part[2] for part in parts)]
        return sum(part[0] for part in parts), np.array(gradient)

    found = minimize(lost, [0.0] * len(known) + [1.0], jac=True, method="BFGS", options={"gtol": 1e-7})
    slope = float(found.x[-1])
    if not slope > _LEAST:
        raise PredictionsError(f"{who} whose risks have a slope of {slope:.3g}, expected one that rises with the truth")
    return slope


def _lost(one: _Known, intercept: float, slope: float) -> tuple[float, float, float]:
    """Mean negative log likelihood, and its slopes in both."""
    hazard = np.exp(np.clip(intercept + slope * one.score, -_FAR, _FAR / 10))  # (p,)
    risk, weight, target = -np.expm1(-hazard), one.weight / one.weight.sum(), one.target
    value = -float(weight @ (target * np.log(risk) - (1 - target) * hazard))
    pull = -weight * hazard * (target * np.exp(-hazard) / risk - (1 - target))
    return value, float(pull.sum()), float(pull @ one.score)


def _curve(one: _Known, slope: float) -> Curve:
    """With the constant that makes the mean the observed risk."""

    def above(intercept: float) -> float:
        return float(-np.expm1(-np.exp(np.clip(intercept + slope * one.score, -_FAR, 50.0))).mean()) - one.observed

    reach = _FAR * (1 + slope)
    found = brentq(above, -reach, reach, xtol=1e-13, rtol=1e-14)
    return Curve(
        name=one.name,
        columns=(one.column,),
        n=len(one.score),
        positives=one.events,
        intercept=float(found),
        slope=slope,
        scale=LOG_LOG,
    )
