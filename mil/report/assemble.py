"""report.json: every number with its interval and its counts, and who set what."""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from mil.endpoints.endpoint import Endpoint
from mil.endpoints.several import Several
from mil.report.as_dict import as_dict
from mil.report.evaluation import Evaluation
from mil.report.predictions import checked, oracle_folds, report_folds, same_patients
from mil.report.sections import (
    added_value,
    calibration,
    discrimination,
    groups,
    operating_points,
    prediction_sets,
    site_effects,
    subgroups,
    time_to_event,
    utility,
)
from mil.stats.bootstrap import Fold
from mil.stats.bootstrap_intervals import difference, intervals

SCHEMA = 2
BASELINE, CLINICAL = "mean pooling, linear", "clinical covariates alone, linear"
Section = Callable[[Evaluation], dict[str, Any] | None]
SECTIONS: Mapping[str, Section] = {
    "discrimination": discrimination.section,
    "operating_points": operating_points.section,
    "calibration": calibration.section,
    "utility": utility.section,
    "survival": time_to_event.section,
    "groups": groups.section,
    "added_value": added_value.section,
    "subgroups": subgroups.section,
    "site": site_effects.section,
    "conformal": prediction_sets.section,
}
"""The parts of a report by their keys, in a reader's order; each is null where it does not apply."""
logger = logging.getLogger(__name__)


def evaluate(
    evaluation: Evaluation,
    *,
    baseline: pd.DataFrame | None = None,
    covariates: pd.DataFrame | None = None,
    oracle: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """What `report.json` holds, in plain JSON types; a number that the patients do not define is null.

    Only rows whose role is `report` are scored. What a section needs fitted it fits to `select` or `train` rows, or
    takes as it was frozen. A tool of several endpoints has a report of each under `parts`.

    Args:
        evaluation: The predictions and what is known beside them.
        baseline: Another model's predictions of the same patients in the same folds.
        covariates: Those of a model that knows the clinical covariates alone.
        oracle: Columns patient and the endpoint's `oracle_columns`: the scores that a perfect reader would give.

    Raises:
        PredictionsError: a table that cannot be evaluated.
        CohortError: a target that the endpoint does not know.
        ConfigError: a decision, a method or an option that does not exist.
    """
    endpoint, folds = evaluation.endpoint, evaluation.folds
    drawn = (evaluation.counts, evaluation.resamples, evaluation.seed)
    scored = intervals(endpoint.score, folds, evaluation.resamples, evaluation.seed)
    several = isinstance(endpoint, Several)
    report = {
        "schema": SCHEMA,
        "seed": evaluation.seed,
        "folds": len(folds),
        "patients": evaluation.counts,
        "metrics": {name: as_dict(interval) | {"counts": evaluation.counts} for name, interval in scored.items()},
        **{name: None if several else section(evaluation) for name, section in SECTIONS.items()},
        **{
            key: None if other is None else _beside(name, other, folds, endpoint, *drawn)
            for key, name, other in (("baseline", BASELINE, baseline), ("covariates", CLINICAL, covariates))
        },
        "oracle": None if oracle is None else _oracle(oracle, folds, endpoint, *drawn),
    }
    if isinstance(endpoint, Several):
        report["parts"] = {name: evaluate(own) for name, own in evaluation.parts().items()}
    plain: dict[str, Any] = _plain(report)
    return plain


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
        "metrics": {name: as_dict(interval) | {"counts": counts} for name, interval in scored.items()},
        "difference": {name: as_dict(interval) | {"counts": counts} for name, interval in gained.items()},
    }


def _oracle(
    oracle: pd.DataFrame, folds: list[Fold], endpoint: Endpoint, counts: dict[str, int], resamples: int, seed: int
) -> dict[str, Any]:
    scored = intervals(endpoint.score, oracle_folds(oracle, folds, endpoint), resamples, seed)
    interval = scored[endpoint.metric]
    return {endpoint.metric: as_dict(interval) | {"counts": counts}}


def _plain(value: Any) -> Any:
    """The same in JSON's types: tuples are lists, numbers that are not finite are null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
