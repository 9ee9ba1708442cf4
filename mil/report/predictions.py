"""Tables of predictions, of this or other software: checked once, then read fold by fold."""

from collections.abc import Hashable, Iterator
from typing import cast

import numpy as np
import pandas as pd
import torch

from mil.endpoints.endpoint import Endpoint
from mil.errors import PredictionsError
from mil.stats.bootstrap import Fold

ROLES = ("train", "select", "report")


def checked(predictions: pd.DataFrame, endpoint: Endpoint, what: str = "predictions") -> pd.DataFrame:
    """Return the table sorted by fold and patient, so that no number depends on the order of its rows.

    Args:
        predictions: Columns `patient`, `fold`, `role`, targets and scores.
        endpoint: What is predicted.
        what: The beginning of error messages.

    Raises:
        PredictionsError: a column is missing, a fold is empty, a role is unknown, a patient occurs twice in a fold, a
            score is not finite, or no row is for the final test.
    """
    _refuse_missing(predictions, ["patient", "fold", "role", *endpoint.columns], what)
    table = predictions.assign(patient=predictions["patient"].astype(str))
    roles = sorted(set(table["role"].astype(str)) - set(ROLES))
    if roles:
        raise PredictionsError(f"{what}: role {roles[0]!r}, expected one of {', '.join(ROLES)}")
    unplaced = int((table["fold"].isna() | (table["fold"].astype(str) == "")).sum())
    if unplaced:
        raise PredictionsError(f"{what}: {unplaced} rows without a fold, expected one in each")
    twice = table[table.duplicated(["patient", "fold"])]
    if len(twice):
        patient, fold = twice.iloc[0][["patient", "fold"]]
        raise PredictionsError(f"{what}: {len(twice)} rows repeat a patient of a fold, first {patient} of fold {fold}")
    if not (table["role"] == "report").any():
        raise PredictionsError(f"{what}: none of {len(table)} rows has role 'report', expected some")
    scores = _numbers(table, endpoint, what)
    return table.assign(**scores).sort_values(["fold", "patient"]).reset_index(drop=True)


def rows_of(table: pd.DataFrame, role: str) -> Iterator[tuple[Hashable, pd.DataFrame]]:
    """Yield the name of each fold that has report rows, and its rows of one role, of which there may be none."""
    roles, folds = table["role"].to_numpy(), table["fold"].to_numpy()  # faster to compare than columns
    of_role = roles == role
    for fold in pd.unique(folds[roles == "report"]):
        yield fold, table[(folds == fold) & of_role]


def fold_name(fold: Hashable) -> int | str:
    """Return a fold's name as a report has it: a number where it is one."""
    return int(fold) if isinstance(fold, int | np.integer) else str(fold)


def report_folds(table: pd.DataFrame, endpoint: Endpoint) -> list[Fold]:
    """Return logits, targets, strata and patients of each fold's report rows, from a checked table.

    Raises:
        CohortError: a target is not valid for the endpoint.
        PredictionsError: a score column is missing or out of its range.
    """
    folds = []
    for _, rows in rows_of(table, "report"):
        by_patient = rows.set_index("patient")
        target = endpoint.encode(by_patient)
        patients = rows["patient"].to_numpy(dtype=np.str_)
        strata = endpoint.resampling_strata(target)
        folds.append(Fold(endpoint.recode(by_patient), target, strata, patients, endpoint.pooled_metrics))
    return folds


def oracle_folds(table: pd.DataFrame, folds: list[Fold], endpoint: Endpoint) -> list[Fold]:
    """Return the same folds with the oracle's logits.

    Args:
        table: Columns `patient` and the endpoint's `oracle_columns`.
        folds: From `report_folds`.
        endpoint: What is predicted.

    Raises:
        PredictionsError: a column is missing, or the value of a reported patient is missing or not finite.
    """
    columns = list(endpoint.oracle_columns)
    _refuse_missing(table, ["patient", *columns], "oracle")
    patients = table["patient"].astype(str)
    by_patient = table.assign(patient=patients).drop_duplicates("patient").set_index("patient")[columns]
    by_patient = by_patient.apply(pd.to_numeric, errors="coerce")
    replaced = []
    for fold in folds:
        scores = by_patient.reindex(cast("list[str]", fold.patients)).to_numpy(np.float64)
        absent = int((~np.isfinite(scores)).any(axis=1).sum())
        if absent:
            raise PredictionsError(f"oracle: no finite value for {absent} of {len(scores)} reported patients of a fold")
        replaced.append(fold._replace(logits=endpoint.from_oracle(torch.from_numpy(scores))))
    return replaced


def same_patients(folds: list[Fold], others: list[Fold], what: str = "baseline") -> None:
    """Check that two models report the same patients in the same folds.

    Args:
        folds: Of the evaluated model.
        others: Of the model that it is compared with.
        what: What that model is called.

    Raises:
        PredictionsError: patients or folds differ.
    """
    ours = [(at, name) for at, fold in enumerate(folds) for name in cast("list[str]", fold.patients)]
    theirs = [(at, name) for at, fold in enumerate(others) for name in cast("list[str]", fold.patients)]
    if ours != theirs:
        shared = len(set(ours) & set(theirs))
        rows = f"{len(theirs)} reported rows in {len(others)} folds, {shared} of them the model's"
        raise PredictionsError(f"{what}: {rows}, expected the model's {len(ours)} in {len(folds)}")


def _refuse_missing(table: pd.DataFrame, expected: list[str], what: str) -> None:
    missing = [name for name in expected if name not in table]
    if missing:
        columns = ", ".join(map(str, table.columns))
        raise PredictionsError(f"{what}: no column {', '.join(map(repr, missing))}, found {columns}")


def _numbers(table: pd.DataFrame, endpoint: Endpoint, what: str) -> dict[str, pd.Series]:
    """Return the score columns that exist as finite numbers; `Endpoint.recode` checks which of them are needed."""
    columns = {}
    for name in endpoint.decode(torch.zeros(1, endpoint.out_dim)):
        if name in table:
            columns[name] = pd.to_numeric(table[name], errors="coerce").astype(np.float64)
            missing = columns[name].isna() & (name in endpoint.columns_beyond_follow_up)
            wrong = int((~np.isfinite(columns[name]) & ~missing).sum())
            if wrong:
                raise PredictionsError(f"{what}: {wrong} of {len(table)} values of {name} are not finite numbers")
    return columns
