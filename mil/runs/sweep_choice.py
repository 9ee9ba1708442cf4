"""Which configuration of a sweep predicts an outer part: chosen by the patients outside it, and by nothing else.

Nested cross-validation (S. Varma, R. Simon: Bias in error estimation when using cross-validation for model selection.
BMC Bioinformatics 7:91, 2006). Folds that report the same patients are one outer part; their select patients judge the
configurations, each patient by a model that did not train on them. The patients of the part are then predicted by the
chosen configuration's models together.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mil.endpoints.endpoint import Endpoint
from mil.errors import PredictionsError
from mil.report.predictions import checked

Tables = Mapping[str, pd.DataFrame]
RELATIVE = "log_hazard"
"""A score without an origin of its own: each model's is set to zero in the mean of its training patients."""


def choose(tables: Tables, endpoint: Endpoint) -> pd.DataFrame:
    """Every configuration's metric among the select patients of each outer part, and which one is chosen.

    The metric is computed within each inner fold and averaged over the folds that define it; of equals the first is
    taken. Rows that report are looked at for who they are, never for targets or scores.

    Args:
        tables: Predictions of each configuration, in the same folds; more than one.
        endpoint: What was predicted.

    Returns:
        `outer, config, metric, value, folds, patients, chosen`.

    Raises:
        PredictionsError: fewer than two configurations, other folds in one than in another, or an outer part in which
            no configuration has a metric.
    """
    if len(tables) < 2:
        raise PredictionsError(f"selection: {len(tables)} configurations, expected two or more to choose among")
    parts = outer_parts(_same_folds(tables))
    rows = [
        {"outer": outer, "config": name, "metric": endpoint.metric, **_judged(table, folds, endpoint), "chosen": False}
        for outer, folds in enumerate(parts)
        for name, table in tables.items()
    ]
    found = pd.DataFrame(rows)
    for outer, own in found.groupby("outer"):
        if own["value"].isna().all():
            raise PredictionsError(f"selection: outer part {outer}: the select patients define no {endpoint.metric}")
        found.loc[own["value"].idxmax(), "chosen"] = True
    return found


def chosen_by_part(selection: pd.DataFrame) -> dict[int, str]:
    """The configuration of each outer part, from what `choose` gave."""
    own = selection[selection["chosen"]]
    return dict(zip(map(int, own["outer"]), map(str, own["config"]), strict=True))


def outer_parts(table: pd.DataFrame) -> list[list[int]]:
    """The folds that report the same patients, in order of the first.

    Raises:
        PredictionsError: a fold reports nobody, or the select patients of one part's folds overlap.
    """
    parts: dict[frozenset[str], list[int]] = {}
    select: dict[frozenset[str], set[str]] = {}
    for fold, rows in table.groupby("fold"):
        number = int(str(fold))
        who = {role: frozenset(own["patient"]) for role, own in rows.groupby("role")}
        if not who.get("report") or not who.get("select"):
            raise PredictionsError(f"selection: fold {number} has nobody who reports or who selects, expected both")
        key, chosen = who["report"], who["select"]
        if chosen & select.setdefault(key, set()):
            raise PredictionsError(
                f"selection: fold {number} and another report the same patients and select by others"
            )
        parts.setdefault(key, []).append(number)
        select[key] |= chosen
    return list(parts.values())


def assembled(tables: Tables, chosen: Mapping[int, str], endpoint: Endpoint) -> pd.DataFrame:
    """Predictions of the chosen configuration in each outer part, a fold a part: what `mil evaluate` reports on.

    Report rows are the mean over the part's models. The others hold the score of the one model that selected by this
    patient, so that none is of a model that trained on them; as long as every patient has one they keep the roles of
    the part's first fold. Single models spread a little more than their mean: cuts and calibration that the select rows
    give are a little cautious.

    Args:
        tables: Predictions of each configuration.
        chosen: Which one, by outer part.
        endpoint: What was predicted.

    Raises:
        PredictionsError: a table that cannot be evaluated.
    """
    parts = outer_parts(_same_folds(tables))
    found = []
    for outer, folds in enumerate(parts):
        table = _ordered(tables[chosen[outer]])
        own = table[table["fold"].isin(folds)]
        found.append((own if len(folds) == 1 else _merged(own, endpoint)).assign(fold=outer))
    return checked(pd.concat(found, ignore_index=True), endpoint)


def _judged(table: pd.DataFrame, folds: list[int], endpoint: Endpoint) -> dict[str, Any]:
    values, patients = [], 0
    for fold in folds:
        rows = table[(table["fold"] == fold) & (table["role"] == "select")].sort_values("patient").set_index("patient")
        scored = endpoint.score(endpoint.recode(rows), endpoint.encode(rows))
        values.append(float(scored[endpoint.metric]))
        patients += len(rows)
    defined = [value for value in values if np.isfinite(value)]
    mean = float(np.mean(defined)) if defined else np.nan
    return {"value": mean, "folds": len(defined), "patients": patients}


def _merged(table: pd.DataFrame, endpoint: Endpoint) -> pd.DataFrame:
    """One row a patient of the folds of one outer part."""
    scores = [str(name) for name in table if name not in ("patient", "fold", "role", *endpoint.columns)]
    table = table.assign(**_level(table, scores))
    mean = table[table["role"] == "report"].groupby("patient")[scores].mean()
    first = table[table["fold"] == table["fold"].min()].set_index("patient")
    once = table[table["role"] == "select"].set_index("patient")[scores]
    inside = first.index[first["role"] != "report"]
    own = once if set(inside) == set(once.index) else first.loc[inside, scores]
    merged: pd.DataFrame = first.drop(columns=scores).join(pd.concat([mean, own])).reset_index()
    return merged


def _level(table: pd.DataFrame, scores: list[str]) -> dict[str, "pd.Series[float]"]:
    """Scores that have no origin, less their model's mean over its training patients."""
    train = table[table["role"] == "train"].groupby("fold")
    relative = [name for name in scores if name == RELATIVE or name.endswith(f"_{RELATIVE}")]
    return {name: table[name] - table["fold"].map(train[name].mean()) for name in relative}


def _same_folds(tables: Tables) -> pd.DataFrame:
    """The first configuration's rows, whose patients, folds, roles all the others have."""
    (first, table), *others = [(name, _ordered(one)) for name, one in tables.items()]
    for name, other in others:
        if not table[["patient", "fold", "role"]].equals(other[["patient", "fold", "role"]]):
            raise PredictionsError(
                f"selection: {name} has other patients, folds or roles than {first}, expected the same split and seed"
            )
    return table


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values(["fold", "patient"], ignore_index=True)
