"""report.json: every number with its interval and its counts."""

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from mil.endpoints.base import Endpoint
from mil.endpoints.classification import Binary
from mil.endpoints.survival import Survival
from mil.errors import PredictionsError
from mil.evaluation.bootstrap import Fold, Interval, difference, intervals
from mil.evaluation.groups import groups
from mil.evaluation.predictions import checked, oracle_folds, report_folds, rows_of, same_patients
from mil.evaluation.thresholds import choose, wilson
from mil.metrics import sensitivity, specificity

SCHEMA = 1
BASELINE, CLINICAL = "mean pooling, linear", "clinical covariates alone, linear"
logger = logging.getLogger(__name__)


def evaluate(
    predictions: pd.DataFrame,
    endpoint: Endpoint,
    *,
    decision: Mapping[str, Any] | None = None,
    baseline: pd.DataFrame | None = None,
    covariates: pd.DataFrame | None = None,
    oracle: pd.DataFrame | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """What `report.json` holds, in plain JSON types; a number that the patients do not define is null.

    Only rows whose role is `report` are scored. Thresholds come from `select` rows, cuts of risk from `train` rows.

    Args:
        predictions: Columns patient, fold, role, the endpoint's targets and its scores.
        endpoint: What was predicted.
        decision: The rule of a binary endpoint's operating point, see `thresholds.choose`.
        baseline: Another model's predictions of the same patients in the same folds.
        covariates: Those of a model that knows the clinical covariates alone.
        oracle: Columns patient and the endpoint's `oracle_columns`: the scores that a perfect reader would give.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        PredictionsError: a table that cannot be evaluated.
        CohortError: a target that the endpoint does not know.
        ConfigError: a decision rule that does not exist.
    """
    table = checked(predictions, endpoint)
    folds = report_folds(table, endpoint)
    reported = table[table["role"] == "report"].drop_duplicates("patient").set_index("patient")
    counts = endpoint.counts(endpoint.encode(reported))
    scored = intervals(endpoint.score, folds, resamples, seed)
    report = {
        "schema": SCHEMA,
        "seed": seed,
        "folds": len(folds),
        "patients": counts,
        "metrics": {name: asdict(interval) | {"counts": counts} for name, interval in scored.items()},
        "operating_point": None if decision is None else operating_point(table, endpoint, decision),
        "groups": groups(table, endpoint) if isinstance(endpoint, Survival) else None,
        **{
            key: None if other is None else _beside(name, other, folds, endpoint, counts, resamples, seed)
            for key, name, other in (("baseline", BASELINE, baseline), ("covariates", CLINICAL, covariates))
        },
        "oracle": None if oracle is None else _oracle(oracle, folds, endpoint, counts, resamples, seed),
    }
    plain: dict[str, Any] = _plain(report)
    return plain


def operating_point(table: pd.DataFrame, endpoint: Endpoint, decision: Mapping[str, Any]) -> dict[str, Any] | None:
    """Sensitivity and specificity at each fold's frozen threshold, counted over all folds; decisions can be pooled.

    A fold whose select patients cannot set the threshold decides nobody. A patient whom several folds report counts
    once, as its first fold has it.
    """
    if not isinstance(endpoint, Binary):
        logger.warning("decision %s: ignored, a threshold needs a binary endpoint", decision.get("rule"))
        return None
    score, decided, thresholds = f"p_{endpoint.positive}", [], list[float | None]()
    select = dict(rows_of(table, "select"))
    for fold, rows in rows_of(table, "report"):
        try:
            cut = choose(decision, select[fold][score], endpoint.labels(select[fold]) == 1)
        except PredictionsError as error:
            logger.warning("fold %s: %s", fold, error)
            thresholds.append(None)
            continue
        thresholds.append(cut)
        decided.append(rows.assign(called=rows[score] >= cut))
    if not decided:
        return None
    patients = pd.concat(decided).drop_duplicates("patient")
    called, positive = patients["called"].to_numpy(), endpoint.labels(patients.set_index("patient")) == 1
    return {
        "rule": dict(decision),
        "thresholds": thresholds,
        "sensitivity": _proportion(float(sensitivity(called, positive)), int(positive.sum())),
        "specificity": _proportion(float(specificity(called, positive)), int((~positive).sum())),
        "n": len(patients),
    }


def _proportion(value: float, n: int) -> dict[str, Any]:
    successes = round(value * n) if n else 0
    low, high = wilson(successes, n)
    return {"value": value, "low": low, "high": high, "level": 0.95, "method": "Wilson", "successes": successes, "n": n}


def _beside(
    name: str,
    other: pd.DataFrame,
    folds: list[Fold],
    endpoint: Endpoint,
    counts: dict[str, int],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Another model's metrics, and the model's minus its on the same resamples."""
    others = report_folds(checked(other, endpoint, "baseline"), endpoint)
    same_patients(folds, others)
    others = [fold._replace(logits=other.logits) for fold, other in zip(folds, others, strict=True)]
    scored = intervals(endpoint.score, others, resamples, seed)
    gained = difference(endpoint.score, folds, others, resamples, seed)
    return {
        "name": name,
        "metrics": {name: asdict(interval) | {"counts": counts} for name, interval in scored.items()},
        "difference": {name: asdict(interval) | {"counts": counts} for name, interval in gained.items()},
    }


def _oracle(
    oracle: pd.DataFrame, folds: list[Fold], endpoint: Endpoint, counts: dict[str, int], resamples: int, seed: int
) -> dict[str, Any]:
    scored = intervals(endpoint.score, oracle_folds(oracle, folds, endpoint), resamples, seed)
    interval: Interval = scored[endpoint.metric]
    return {endpoint.metric: asdict(interval) | {"counts": counts}}


def _plain(value: Any) -> Any:
    """The same in JSON's types: tuples are lists, numbers that are not finite are null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
