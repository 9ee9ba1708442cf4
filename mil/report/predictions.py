"""A table of predictions, ours or another software's: checked once, then read by fold."""

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
    """The table in order of fold and patient, so that no number depends on the order of its rows.

    Raises:
        PredictionsError: a column is missing, a fold is empty, a role is unknown, a patient stands twice in a fold, a
            score is not finite, or nobody is reported. The message begins with `what`.
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
    """Each fold's name and its rows of one role; a fold that reports comes up even where it has no such rows."""
    for fold in table.loc[table["role"] == "report", "fold"].unique():
        yield fold, table[(table["fold"] == fold) & (table["role"] == role)]


def fold_name(fold: Hashable) -> int | str:
    """Return a fold's name as a report has it: a number where it is one."""
    return int(fold) if isinstance(fold, int | np.integer) else str(fold)


def report_folds(table: pd.DataFrame, endpoint: Endpoint) -> list[Fold]:
    """What each fold reports, from a checked table.

    Raises:
        CohortError: a target that the endpoint does not know.
        PredictionsError: a score column is missing or out of its range.
    """
    folds = []
    for _, rows in rows_of(table, "report"):
        named = rows.set_index("patient")
        target = endpoint.encode(named)
        patients = rows["patient"].to_numpy(dtype=np.str_)
        folds.append(Fold(endpoint.recode(named), target, endpoint.resampling_strata(target), patients))
    return folds


def oracle_folds(table: pd.DataFrame, folds: list[Fold], endpoint: Endpoint) -> list[Fold]:
    """The same folds with the oracle's logits, from columns `patient` and the endpoint's own.

    Raises:
        PredictionsError: a column, or the oracle of a reported patient, is missing or not finite.
    """
    columns = list(endpoint.oracle_columns)
    _refuse_missing(table, ["patient", *columns], "oracle")
    known = table.assign(patient=table["patient"].astype(str)).drop_duplicates("patient").set_index("patient")[columns]
    known = known.apply(pd.to_numeric, errors="coerce")
    replaced = []
    for fold in folds:
        scores = known.reindex(cast("list[str]", fold.patients)).to_numpy(np.float64)
        absent = int((~np.isfinite(scores)).any(axis=1).sum())
        if absent:
            raise PredictionsError(f"oracle: no finite value for {absent} of {len(scores)} reported patients of a fold")
        replaced.append(fold._replace(logits=endpoint.from_oracle(torch.from_numpy(scores))))
    return replaced


def same_patients(folds: list[Fold], others: list[Fold], what: str = "baseline") -> None:
    """Check that two models report the same patients in the same folds; `what` names the other one.

    Raises:
        PredictionsError: they differ.
    """
    ours = [(at, name) for at, fold in enumerate(folds) for name in cast("list[str]", fold.patients)]
    theirs = [(at, name) for at, fold in enumerate(others) for name in cast("list[str]", fold.patients)]
    if ours != theirs:
        shared = len(set(ours) & set(theirs))
        found = f"{len(theirs)} reported rows in {len(others)} folds, {shared} of them the model's"
        raise PredictionsError(f"{what}: {found}, expected the model's {len(ours)} in {len(folds)}")


def _refuse_missing(table: pd.DataFrame, expected: list[str], what: str) -> None:
    missing = [name for name in expected if name not in table]
    if missing:
        found = ", ".join(map(str, table.columns))
        raise PredictionsError(f"{what}: no column {', '.join(map(repr, missing))}, found {found}")


def _numbers(table: pd.DataFrame, endpoint: Endpoint, what: str) -> dict[str, pd.Series]:
    """The score columns as finite numbers; which of them are needed, `Endpoint.recode` knows."""
    columns = {}
    for name in endpoint.decode(torch.zeros(1, endpoint.out_dim)):
        if name in table:
            columns[name] = pd.to_numeric(table[name], errors="coerce").astype(np.float64)
            wrong = int((~np.isfinite(columns[name])).sum())
            if wrong:
                raise PredictionsError(f"{what}: {wrong} of {len(table)} values of {name} are not finite numbers")
    return columns
