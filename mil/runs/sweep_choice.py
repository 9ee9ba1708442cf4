"""Choose a configuration of a sweep for each outer fold, using only patients outside it (nested cross-validation).

S. Varma, R. Simon: Bias in error estimation when using cross-validation for model selection. BMC Bioinformatics 7:91,
2006. Folds that report the same patients form one outer fold. The select patients of these inner folds judge the
configurations, each patient by a model that was not trained on them. The patients of the outer fold are then predicted
by the mean of the chosen configuration's models.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mil.endpoints.endpoint import Endpoint
from mil.errors import PredictionsError
from mil.report.predictions import checked

Tables = Mapping[str, pd.DataFrame]
RELATIVE = "log_hazard"
"""A score without an origin: each model's scores are shifted so that its training patients have mean zero."""


def choose(tables: Tables, endpoint: Endpoint) -> pd.DataFrame:
    """Return each configuration's metric among the select patients of each outer fold, and which one is chosen.

    The metric is computed within each inner fold and averaged over the folds that define it; of equal configurations
    the first is chosen. Of rows with role `report` only the patient names are used, never targets or scores.

    Args:
        tables: Predictions of each configuration in the same folds; at least two.
        endpoint: What was predicted.

    Returns:
        A table with columns `outer, config, metric, value, folds, patients, chosen`.

    Raises:
        PredictionsError: if there are fewer than two configurations, their folds differ, or no configuration has a
            metric in an outer fold.
    """
    if len(tables) < 2:
        raise PredictionsError(f"selection: {len(tables)} configurations, expected two or more to choose among")
    rows = [
        (outer, name, endpoint.metric, *mean_metric(table, folds, endpoint), False)
        for outer, folds in enumerate(outer_folds(_check_same_folds(tables)))
        for name, table in tables.items()
    ]
    choices = pd.DataFrame(rows, columns=["outer", "config", "metric", "value", "folds", "patients", "chosen"])
    for outer, candidates in choices.groupby("outer"):
        if candidates["value"].isna().all():
            raise PredictionsError(f"selection: outer fold {outer}: the select patients define no {endpoint.metric}")
        choices.loc[candidates["value"].idxmax(), "chosen"] = True
    return choices


def chosen_by_outer_fold(choices: pd.DataFrame) -> dict[int, str]:
    """Return the chosen configuration of each outer fold, from the table of `choose`."""
    chosen = choices[choices["chosen"]]
    return dict(zip(map(int, chosen["outer"]), map(str, chosen["config"]), strict=True))


def outer_folds(table: pd.DataFrame) -> list[list[int]]:
    """Group the folds that report the same patients, in order of the first.

    Raises:
        PredictionsError: if a fold has no report or no select patients, or the select patients of two folds of one
            group overlap.
    """
    folds_by_patients: dict[frozenset[str], list[int]] = {}
    select_by_patients: dict[frozenset[str], set[str]] = {}
    for fold, rows in table.groupby("fold"):
        number = int(str(fold))
        patients = {role: frozenset(role_rows["patient"]) for role, role_rows in rows.groupby("role")}
        report, select = patients.get("report"), patients.get("select")
        if not report or not select:
            raise PredictionsError(f"selection: fold {number} has no report or no select patients, expected both")
        if select & select_by_patients.setdefault(report, set()):
            raise PredictionsError(
                f"selection: fold {number} and another fold with the same report patients share select patients"
            )
        folds_by_patients.setdefault(report, []).append(number)
        select_by_patients[report] |= select
    return list(folds_by_patients.values())


def combine(tables: Tables, chosen: Mapping[int, str], endpoint: Endpoint) -> pd.DataFrame:
    """Return the predictions of the chosen configuration of each outer fold, one fold per outer fold.

    Report rows are the mean over the models of the outer fold. The other rows hold the score of the one model that had
    this patient for selection, so that no score comes from a model trained on its patient; if every patient has one,
    they have the roles of the first inner fold. Single models vary a little more than their mean, so thresholds and
    calibration that are fitted to the select rows are slightly conservative.

    Args:
        tables: Predictions of each configuration.
        chosen: The chosen configuration of each outer fold.
        endpoint: What was predicted.

    Raises:
        PredictionsError: if the resulting table cannot be evaluated.
    """
    combined = []
    for outer, folds in enumerate(outer_folds(_check_same_folds(tables))):
        table = _sorted(tables[chosen[outer]])
        rows = table[table["fold"].isin(folds)]
        combined.append((rows if len(folds) == 1 else _merge_folds(rows, endpoint)).assign(fold=outer))
    return checked(pd.concat(combined, ignore_index=True), endpoint)


def mean_metric(table: pd.DataFrame, folds: Sequence[int], endpoint: Endpoint) -> tuple[float, int, int]:
    """Return the mean metric among the select patients, the folds that define it, and the select patients."""
    values, patients = [], 0
    for fold in folds:
        rows = table[(table["fold"] == fold) & (table["role"] == "select")].sort_values("patient").set_index("patient")
        metrics = endpoint.score(endpoint.recode(rows), endpoint.encode(rows))
        values.append(float(metrics[endpoint.metric]))
        patients += len(rows)
    defined = [value for value in values if np.isfinite(value)]
    mean = float(np.mean(defined)) if defined else np.nan
    return mean, len(defined), patients


def _merge_folds(table: pd.DataFrame, endpoint: Endpoint) -> pd.DataFrame:
    """Return one row per patient from the inner folds of one outer fold."""
    scores = [str(name) for name in table if name not in ("patient", "fold", "role", *endpoint.columns)]
    table = table.assign(**_centred_scores(table, scores))
    report_means = table[table["role"] == "report"].groupby("patient")[scores].mean()
    first = table[table["fold"] == table["fold"].min()].set_index("patient")
    select_scores = table[table["role"] == "select"].set_index("patient")[scores]
    inner_patients = first.index[first["role"] != "report"]
    complete = set(inner_patients) == set(select_scores.index)
    inner_scores = select_scores if complete else first.loc[inner_patients, scores]
    merged: pd.DataFrame = first.drop(columns=scores).join(pd.concat([report_means, inner_scores])).reset_index()
    return merged


def _centred_scores(table: pd.DataFrame, scores: Sequence[str]) -> dict[str, "pd.Series[float]"]:
    """Return scores that have no origin, minus their model's mean over its training patients."""
    train = table[table["role"] == "train"].groupby("fold")
    relative = [name for name in scores if name == RELATIVE or name.endswith(f"_{RELATIVE}")]
    return {name: table[name] - table["fold"].map(train[name].mean()) for name in relative}


def _check_same_folds(tables: Tables) -> pd.DataFrame:
    """Return the first configuration's rows after checking that all have the same patients, folds and roles."""
    (first, table), *others = [(name, _sorted(rows)) for name, rows in tables.items()]
    for name, rows in others:
        if not table[["patient", "fold", "role"]].equals(rows[["patient", "fold", "role"]]):
            raise PredictionsError(
                f"selection: {name} has other patients, folds or roles than {first}, expected the same split and seed"
            )
    return table


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values(["fold", "patient"], ignore_index=True)
