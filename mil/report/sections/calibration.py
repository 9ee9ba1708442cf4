"""Whether probabilities and values are what they say, before and after recalibration.

The calibration error is above zero by chance alone and a resample's lies higher still, so its interval is the
resamples' turned about the estimate (basic bootstrap), and what chance alone would give stands beside it. Simulated,
200 patients, it holds the truth in 0.87 of samples, the percentile interval in less than 0.01.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from mil.endpoints.classification import Binary, Classes
from mil.endpoints.endpoint import Scores
from mil.endpoints.question import Question
from mil.endpoints.regression import Regression
from mil.fitted.calibrators import RAW, calibrated, calibrated_name
from mil.report.evaluation import Evaluation
from mil.report.sections.pooled import Metrics, bins, curve, grid, number, points, resampled
from mil.report.sections.recalibration import Recalibrated, recalibrated
from mil.report.sections.value_calibration import of_values
from mil.stats import calibration_metrics as metrics
from mil.stats.bootstrap import Floats
from mil.stats.estimate import Estimate
from mil.stats.logistic import knots, logistic, spline
from mil.stats.proportions import wilson

BASIC = "basic bootstrap, patients resampled over all folds"
ACCEPTABLE = (0.8, 1.2)
"""Slopes at which probabilities can be read as such."""
FEWEST = 10
"""Positives and negatives below which no curve is drawn."""
_EDGES = np.linspace(0, 1, 21)
_OF_QUESTIONS = {
    "intercept": metrics.intercept,
    "slope": metrics.slope,
    "brier": metrics.brier,
    "scaled_brier": metrics.scaled_brier,
    "ece": metrics.ece,
}
_OF_CLASSES = {"brier": metrics.brier, "scaled_brier": metrics.scaled_brier, "log_loss": metrics.log_loss}
_APART = "the score separates all positives from all negatives, or all scores are one"
_ONE_SIDED = "positives or negatives are absent"


def section(evaluation: Evaluation) -> dict[str, Any] | None:
    """A part for each question, or for the predicted number; none for survival, whose section has its own.

    Raises:
        ConfigError: the tool asks for a calibration that does not exist.
    """
    if isinstance(evaluation.endpoint, Regression):
        return of_values(evaluation)
    if not evaluation.questions:
        return None
    after = recalibrated(evaluation)
    found: dict[str, Any] = {"questions": [_question(evaluation, one, after) for one in evaluation.questions]}
    if isinstance(evaluation.endpoint, Classes) and not isinstance(evaluation.endpoint, Binary):
        found["classes"] = _classes(evaluation, evaluation.endpoint, after)
    if after is not None:
        found["fitted"] = {"method": after.method, "on": after.on, "folds": after.fitted}
    return found


def verdict(slope: Mapping[str, Any], intercept: Mapping[str, Any]) -> str:
    """What the two numbers allow, in words."""
    if slope["value"] is None:
        return f"not estimable: {slope['reason']}"
    value, (least, most) = slope["value"], ACCEPTABLE
    said = _said("slope", slope)
    if not least <= value <= most:
        side = "too extreme" if value < least else "too near to each other"
        return f"ranking only: {said}, expected {least} to {most}; the probabilities are {side}"
    low, high = intercept["low"], intercept["high"]
    if low is not None and not low <= 0 <= high:
        side = "low" if low > 0 else "high"
        return f"the slope is acceptable ({said}), but the probabilities are too {side} on the whole: recalibrate"
    inside = slope["low"] is not None and slope["low"] >= least and slope["high"] <= most
    return f"acceptable: {said}" if inside else f"acceptable, but not shown by so few patients: {said}"


def _said(name: str, found: Mapping[str, Any]) -> str:
    bounds = "" if found["low"] is None else f" ({found['low']:.2f} to {found['high']:.2f})"
    return f"{name} {found['value']:.2f}{bounds}"


def _question(evaluation: Evaluation, question: Question, after: Recalibrated | None) -> dict[str, Any]:
    found = {"name": question.name} | _numbers(evaluation, question, evaluation.reported)
    if after is None:
        return found
    answered = calibrated(question)
    fitted = [name for name in answered.columns if name in after.reported]
    if len(fitted) < len(answered.columns) or after.reported[fitted].isna().all(axis=None):
        return found | {"calibrated": {"method": after.method, "n": 0, "reason": "no fold could be calibrated"}}
    kept = after.reported[after.reported[fitted].notna().all(axis=1)]
    return found | {"calibrated": {"method": after.method} | _numbers(evaluation, answered, kept)}


def _numbers(evaluation: Evaluation, question: Question, table: pd.DataFrame) -> dict[str, Any]:
    truth = question.truth(table)
    known = ~np.isnan(truth)
    truth, probability = truth[known], np.clip(question.probability(table)[known], 0, 1)
    counts = {"n": len(truth), "positives": int(truth.sum())}
    if not 0 < counts["positives"] < counts["n"]:
        return counts | {"reason": _ONE_SIDED}
    drawn = min(counts["positives"], counts["n"] - counts["positives"]) >= FEWEST and np.ptp(probability) > 0
    at = grid(probability) if drawn else np.zeros(0)
    scored = resampled(_metrics(probability, truth, at), len(truth), evaluation)
    found = {name: number(scored[name], _APART, **counts) for name in ("intercept", "slope", "brier", "scaled_brier")}
    return (
        counts
        | found
        | {
            "ece": _ece(scored["ece"], probability, counts),
            "curve": curve(scored, at) if drawn else None,
            "curve_reason": None if drawn else f"fewer than {FEWEST} positives or negatives, or one score for all",
            "bins": [_bin(probability[members], truth[members]) for members in bins(probability)],
            "histogram": _histogram(probability, truth),
            "verdict": verdict(found["slope"], found["intercept"]),
        }
    )


def _metrics(probability: Floats, truth: Floats, at: Floats) -> Metrics:
    values = metrics.logit(probability)
    inner = knots(values)
    design, shown = spline(values, inner), spline(metrics.logit(at), inner)

    def of(weight: Floats | None) -> Scores:
        found = {name: metric(probability, truth, weight) for name, metric in _OF_QUESTIONS.items()}
        if not len(at):
            return found
        return found | points(expit(logistic(design, truth, weight) @ shown.T), "curve")

    return of


def _ece(found: Estimate, probability: Floats, counts: Mapping[str, int]) -> dict[str, Any]:
    if found.value is not None and found.low is not None and found.high is not None:
        low, high = (max(0.0, 2 * found.value - bound) for bound in (found.high, found.low))
        found = found.model_copy(update={"low": low, "high": high})
    turned = number(found, _ONE_SIDED, **counts)
    return turned | {"method": BASIC, "by_chance": metrics.ece_if_calibrated(probability)}


def _bin(probability: Floats, truth: Floats) -> dict[str, Any]:
    low, high = wilson(float(truth.sum()), len(truth))
    observed = {"observed": float(truth.mean()), "low": low, "high": high, "level": 0.95, "method": "Wilson"}
    return {"predicted": float(probability.mean()), **observed, "n": len(truth), "positives": int(truth.sum())}


def _histogram(probability: Floats, truth: Floats) -> dict[str, list[float]]:
    yes, no = (np.histogram(probability[truth == answer], _EDGES)[0].tolist() for answer in (1, 0))
    return {"edges": _EDGES.tolist(), "positives": yes, "negatives": no}


def _classes(evaluation: Evaluation, endpoint: Classes, after: Recalibrated | None) -> dict[str, Any]:
    """Brier score and log loss of all classes together."""
    columns = [f"{RAW}{name}" for name in endpoint.classes]
    found = _together(evaluation, endpoint, evaluation.reported, columns)
    if after is None or after.reported.empty:
        return found
    renamed = [calibrated_name(name) for name in columns]
    return found | {"calibrated": {"method": after.method} | _together(evaluation, endpoint, after.reported, renamed)}


def _together(evaluation: Evaluation, endpoint: Classes, table: pd.DataFrame, columns: list[str]) -> dict[str, Any]:
    label: NDArray[np.int64] = endpoint.labels(table)
    probability, truth = table[columns].to_numpy(np.float64), np.eye(len(columns))[label]

    def of(weight: Floats | None) -> Scores:
        return {name: metric(probability, truth, weight) for name, metric in _OF_CLASSES.items()}

    scored = resampled(of, len(label), evaluation)
    return {name: number(scored[name], "all patients are of one class", n=len(label)) for name in _OF_CLASSES}
