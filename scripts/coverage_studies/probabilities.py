"""Calibration of probabilities, and sets of classes."""

from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from coverage_studies.simulated import (
    BASE_LOGIT,
    PREVALENCE,
    RESAMPLES,
    Floats,
    Truths,
    estimates,
    evaluated,
    holds,
    point,
    predictions,
)
from mil.endpoints.classification import Binary
from mil.fitted.calibrators import calibrated_name
from mil.report.evaluation import Evaluation
from mil.report.sections.calibration import Calibration
from mil.report.sections.prediction_sets import PredictionSets
from mil.report.sections.subgroup_metrics import observed_expected
from mil.study.tool import Tool

CHANGE = "calibration: change of the log loss by Platt's calibration"


def calibration(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Calibration of probabilities that are right, and observed over expected."""
    gap = 1.2
    label = rng.random(n) < PREVALENCE
    logits = gap * (rng.normal(size=n) + gap * label) - gap**2 / 2 + BASE_LOGIT
    columns = {"label": label.astype(int), "p_1": expit(logits)}
    table = predictions(rng, folds, columns, label.astype(np.int64))
    section = Calibration.compute(evaluated(table, Binary()))
    of = estimates(section)
    brier, log_loss = true_losses(gap)
    truth = {"intercept": 0.0, "slope": 1.0, "brier": brier, "ece.estimate": 0.0}
    truth |= {"scaled_brier": 1 - brier / (PREVALENCE * (1 - PREVALENCE)), "log_loss": log_loss}
    words = {
        "brier": "Brier score",
        "scaled_brier": "scaled Brier score",
        "log_loss": "log loss",
        "ece.estimate": "calibration error (ECE) of 0",
    }
    rows: Truths = {
        f"calibration: {words.get(key, key)}": holds(of.get(f"questions[0].{key}"), value)
        for key, value in truth.items()
    }
    curve = None if section is None else section.questions[0].curve
    if curve is not None:
        at = len(curve.x) // 2
        rows["calibration: curve at the median probability"] = holds(point(curve, at), curve.x[at] or 0.0)
    ratio = observed_expected(float(label.sum()), float(expit(logits).sum()), n).estimate
    rows["calibration: observed/expected"] = holds(ratio, 1.0)
    return rows


@cache
def true_losses(gap: float) -> tuple[float, float]:
    """Return the Brier score and the log loss of the true probabilities."""
    rng = np.random.default_rng(0)
    label = rng.random(1_000_000) < PREVALENCE
    logits = gap * (rng.normal(size=len(label)) + gap * label) - gap**2 / 2 + BASE_LOGIT
    chance = expit(logits)
    entropy = -(chance * np.log(chance) + (1 - chance) * np.log1p(-chance))
    return float((chance * (1 - chance)).mean()), float(entropy.mean())


def recalibration(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """What Platt's calibration, fitted to as many select patients, changes in the log loss of too extreme scores."""
    gap, stretch = 1.2, 2.0
    tables = []
    for role in ("report", "select"):
        label = rng.random(n) < PREVALENCE
        logits = gap * (rng.normal(size=n) + gap * label) - gap**2 / 2 + BASE_LOGIT
        columns = {"label": label.astype(int), "p_1": expit(stretch * logits)}
        table = predictions(rng, folds, columns, label.astype(np.int64))
        tables.append(table.assign(role=role, patient=role[0] + table["patient"]))
    tool = Tool.parse({"calibration": "platt"})
    evaluation = Evaluation.refitted(pd.concat(tables, ignore_index=True), Binary(), tool, None, RESAMPLES)
    section = Calibration.compute(evaluation)
    fit = None if section is None else section.fitted
    calibrators = [evaluation.state(fold).calibration for fold in range(folds)]
    if fit is None or not fit.effects or None in calibrators:  # it is left out where it does not help
        return {CHANGE: None}
    quantile = norm.ppf((np.arange(2000) + 0.5) / 2000)
    logits = gap * np.concatenate([quantile, quantile + gap]) - gap**2 / 2 + BASE_LOGIT
    positive, weight = np.arange(4000) >= 2000, np.repeat([1 - PREVALENCE, PREVALENCE], 2000) / 2000
    new = pd.DataFrame({"p_1": expit(stretch * logits)})
    before, after = _log_loss(new["p_1"].to_numpy(), positive), []
    for calibrator in calibrators:
        assert calibrator is not None
        after.append(_log_loss(calibrator.apply(new)[calibrated_name("p_1")].to_numpy(), positive))
    return {CHANGE: holds(fit.effects[0].change, float(weight @ (np.mean(after, axis=0) - before)))}


def _log_loss(chance: Floats, positive: NDArray[np.bool_]) -> Floats:
    return np.asarray(-np.log(np.clip(np.where(positive, chance, 1 - chance), 1e-15, 1)))


def sets(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Conformal sets of two classes for a coverage of 0.9, whose limits come from as many select patients."""
    gap = 1.2

    def drawn(size: int) -> tuple[NDArray[np.bool_], Floats]:
        label = rng.random(size) < PREVALENCE
        return label, gap * (rng.normal(size=size) + gap * label) - gap**2 / 2 + BASE_LOGIT

    tables = []
    for role in ("report", "select"):
        label, logits = drawn(n)
        table = predictions(rng, folds, {"label": label.astype(int), "p_1": expit(logits)}, label.astype(np.int64))
        tables.append(table.assign(role=role, patient=role[0] + table["patient"]))
    table, tool = pd.concat(tables, ignore_index=True), Tool.parse({"conformal": {"coverage": 0.9}})
    evaluation = Evaluation.refitted(table, Binary(), tool, None, RESAMPLES)
    section = PredictionSets.compute(evaluation)
    if section is None:
        return {"prediction sets: coverage of these limits": None}
    quantile = norm.ppf((np.arange(1000) + 0.5) / 1000)
    logits = gap * np.concatenate([quantile, quantile + gap]) - gap**2 / 2 + BASE_LOGIT
    new, shares = pd.DataFrame({"p_1": expit(logits)}), []
    weight = np.repeat([1 - PREVALENCE, PREVALENCE], 1000) / 1000
    for fold in range(folds):
        limits = evaluation.state(fold).conformal
        if limits is None:
            return {"prediction sets: coverage of these limits": None}
        inside = limits.apply(new)["set"].str.split("|").tolist()
        covered = [each in members for each, members in zip(["0"] * 1000 + ["1"] * 1000, inside, strict=True)]
        shares.append(float(weight @ covered))
    true = min(1.0, float(np.mean(shares)))  # sets that hold everybody: the weights sum to 1 but for rounding
    return {
        "prediction sets: coverage of these limits": holds(section.parts[0].coverage, true),
        "prediction sets: mean coverage of sets for 0.90": true,
    }
