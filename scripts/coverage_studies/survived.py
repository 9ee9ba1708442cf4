"""Times to an event: order, risks at horizons, and curves."""

from collections.abc import Mapping
from functools import cache

import numpy as np
import pandas as pd

from coverage_studies.simulated import (
    HORIZON,
    Truths,
    estimates,
    evaluated,
    hold_all,
    holds,
    point,
    predictions,
    with_training,
)
from mil.endpoints.survival import Cox
from mil.report.sections.horizon import HorizonCalibration
from mil.report.sections.survival_distribution import DCalibration
from mil.report.sections.survival_scores import Measures, measure
from mil.report.sections.time_to_event import TimeToEvent
from mil.stats import auroc, c_index, cox_regression
from mil.stats.observed_risk import incidence_at, risk_at

MEAN_TIME, SPREAD = 50.0, 0.8
FIRST, LAST = 5.0, 120.0
"""Times of leaving are uniform between them."""
HORIZONS: Mapping[str, float] = {"1y": 12.0, "3y": HORIZON, "6y": 72.0}
ROWS: Mapping[str, str] = {
    "c_index": "C-index",
    "uno_c": "Uno's C",
    "auc[0].estimate": "AUC(t)",
    "brier[0].model": "Brier score at a horizon",
    "brier[0].kaplan_meier": "Brier score of the Kaplan-Meier curve at a horizon",
    "brier[0].scaled": "scaled Brier score (IPA) at a horizon",
    "times[0].observed": "observed risk at a horizon",
    "calibration[0].observed_expected": "observed/expected at a horizon",
    "calibration[0].slope": "calibration slope at a horizon",
    "median_follow_up": "median follow-up",
}


def survival(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Order, Brier score and calibration of true risks at three years, with censoring."""
    table = followed(rng, n, folds)
    both = with_training(table, followed(rng, n, 1))
    section = TimeToEvent.compute(evaluated(both, Cox(horizons={"3y": HORIZON})))
    assert section is not None
    of, truth = estimates(section), dict(true_survival())
    null = true_null(both, HORIZON)
    truth |= {"brier[0].kaplan_meier": null, "brier[0].scaled": 1 - truth["brier[0].model"] / null}
    rows: Truths = {f"survival: {words}": holds(of.get(key), truth[key]) for key, words in ROWS.items()}
    zero = {f"calibration[0].{key}": 0.0 for key in ("ici", "e50", "e90")}
    rows["survival: calibration errors ICI, E50 and E90 of 0"] = hold_all(zero, of)
    rows |= _of_curve(section.calibration[0])
    time, code = table["time"].to_numpy(np.float64), table["event"].to_numpy(np.float64)
    rows["survival: Kaplan-Meier risk"] = holds(risk_at(time, code, HORIZON), truth["times[0].observed"])
    hazard = table[["log_hazard"]].rename(columns={"log_hazard": "x"})
    fitted = cox_regression.fit(hazard, time, code == 1)
    rows["survival: hazard ratio"] = holds(fitted.ratio("x"), float(np.e))
    return rows


def _of_curve(calibration: HorizonCalibration) -> Truths:
    """Return whether the calibration curve and a fifth of the patients hold the true risks, which are predicted."""
    middle = calibration.quintiles[len(calibration.quintiles) // 2]
    rows: Truths = {"survival: observed risk of a fifth of the patients": holds(middle.observed, middle.predicted)}
    curve = calibration.curve
    if curve is not None:
        at = len(curve.x) // 2
        rows["survival: calibration curve at the median risk"] = holds(point(curve, at), curve.x[at] or 0.0)
    return rows


def followed(rng: np.random.Generator, n: int, folds: int) -> pd.DataFrame:
    """Return patients of whom about half are seen to have the event, with their true risks."""
    hazard = SPREAD * rng.normal(size=n)
    death, leaving = rng.exponential(MEAN_TIME * np.exp(-hazard)), rng.uniform(FIRST, LAST, n)
    event = (death <= leaving).astype(int)
    risk = -np.expm1(-HORIZON / MEAN_TIME * np.exp(hazard))
    columns = {"time": np.minimum(death, leaving), "event": event, "log_hazard": hazard, "risk_3y": risk}
    return predictions(rng, folds, columns, event.astype(np.int64))


def true_null(table: pd.DataFrame, at: float) -> float:
    """Return the Brier score that the Kaplan-Meier curves of the folds' training patients have among new patients."""
    observed, _ = true_risk(at)
    train = table[table["role"] == "train"]
    curves = [
        float(incidence_at(rows["time"].to_numpy(np.float64), rows["event"].to_numpy(np.float64), at))
        for _, rows in train.groupby("fold")
    ]
    return observed * (1 - observed) + float(np.mean((np.array(curves) - observed) ** 2))


@cache
def true_risk(at: float) -> tuple[float, float]:
    """Return the mean risk by a time, and the Brier score of the true risks."""
    hazard = SPREAD * np.random.default_rng(0).normal(size=400_000)
    risk = -np.expm1(-at / MEAN_TIME * np.exp(hazard))
    return float(risk.mean()), float((risk * (1 - risk)).mean())


@cache
def true_survival() -> dict[str, float]:
    """Return the true values of the measures, from patients who are all followed up, or for Harrell's C censored alike.

    The C-indices are means over cohorts of 4,000 patients, with a Monte-Carlo error below 0.0005.
    """
    rng = np.random.default_rng(0)
    concordance, until = [], []
    for _ in range(60):
        table = followed(rng, 4000, 1)
        concordance.append(float(c_index(table["log_hazard"], table["time"], table["event"])))
        hazard = SPREAD * rng.normal(size=4000)
        death = rng.exponential(MEAN_TIME * np.exp(-hazard))
        until.append(float(c_index(hazard, np.minimum(death, HORIZON), death < HORIZON)))
    hazard = SPREAD * rng.normal(size=400_000)
    died = rng.exponential(MEAN_TIME * np.exp(-hazard)) <= HORIZON
    observed, brier = true_risk(HORIZON)
    return {
        "c_index": float(np.mean(concordance)),
        "uno_c": float(np.mean(until)),
        "auc[0].estimate": float(auroc(hazard, died)),
        "brier[0].model": brier,
        "times[0].observed": observed,
        "calibration[0].observed_expected": 1.0,
        "calibration[0].slope": 1.0,
        "median_follow_up": (FIRST + LAST) / 2,
    }


def curves(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """D-calibration of true survival curves, and the integrated Brier score of three horizons."""
    table = with_training(followed(rng, n, folds), followed(rng, n, 1))
    risks = {f"risk_{name}": -np.expm1(-at / MEAN_TIME * np.exp(table["log_hazard"])) for name, at in HORIZONS.items()}
    endpoint = Cox(horizons=HORIZONS)
    evaluation = evaluated(table.assign(**risks), endpoint)
    section = DCalibration.compute(evaluation)
    columns = {name: f"risk_{name}" for name in HORIZONS}
    view = endpoint.survival
    assert view is not None
    metrics = measure(evaluation, Measures(view, HORIZONS, columns, HORIZONS["6y"], view.rank_column), {"n": n})
    moments = np.array(list(HORIZONS.values()))
    scores = np.array([(true_risk(at)[1], true_null(table, at)) for at in moments.tolist()])
    model, null = np.trapezoid(scores, moments, axis=0) / (moments[-1] - moments[0])
    return {
        "D-calibration: wrongly below 0.05": None if section is None else section.p < 0.05,
        "survival: integrated Brier score": holds(metrics["integrated_model"], float(model)),
        "survival: scaled integrated Brier score": holds(metrics["integrated_scaled"], float(1 - model / null)),
    }
