"""Reads a split file alone, whoever wrote it, and finds the patients that stand on two sides of a fold.

Layouts that are recognised:

- one row an item with a column of roles for each fold, or with one column of roles and one of folds;
- one row an item with the number of the part that the item is in;
- as CLAM and MIL_BASELINE write them, one file a fold with a column for each role, which lists the role's items or says
  true or false of each item.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd

from mil.cohort.columns import Columns, identified
from mil.errors import SplitError
from mil.findings import Finding
from mil.slide_names import patient_of, slide_id
from mil.splits.roles import ROLES, role_of
from mil.storage import entries
from mil.tables import listed, read_table, require

_TRUE, _FALSE = ("true", "1", "1.0"), ("false", "0", "0.0", "")
_LISTS = re.compile(r"(?P<role>[a-z]+)(?:[ _](?:slides?|cases?|patients?))?(?:[ _](?:paths?|ids?|files?))?")
_CLAM_FILE = re.compile(r"splits_(\d+)\.csv")
Row = tuple[str, str, str]
"""Fold, role, item."""


@dataclass(frozen=True)
class Sides:
    """One fold of a split file.

    Attributes:
        fold: Its name.
        patients: How many patients each role has.
        both: For each two roles that share patients, which these are.
    """

    fold: str
    patients: dict[str, int]
    both: dict[str, list[str]]


def read(path: Path, column: str | None = None) -> list[Sides]:
    """Return the folds of a split file, or of a folder with CLAM's `splits_{i}.csv`.

    Args:
        path: The file or folder.
        column: The column of patients, or of items whose ids contain the patient's (see `patient_of`); None where each
            role has a column, or where the column has a common name.

    Raises:
        SplitError: No such file or column, or a table whose layout is not recognised.
    """
    rows = pd.DataFrame(_rows(path, column), columns=["fold", "role", "item"]).drop_duplicates()
    rows["patient"] = [patient_of(item) or item for item in rows["item"]]
    return [_sides(str(fold), rows_of_fold) for fold, rows_of_fold in rows.groupby("fold", sort=False)]


def findings(folds: Iterable[Sides]) -> list[Finding]:
    """Return an error for each fold with patients on both sides."""
    errors = []
    for fold in folds:
        patients = sorted({patient for shared in fold.both.values() for patient in shared})
        if patients:
            pairs = ", ".join(f"{pair} {len(shared)}" for pair, shared in fold.both.items())
            message = f"fold {fold.fold}: {len(patients)} patients stand on both sides ({pairs})"
            errors.append(Finding.of_items("error", "two-sides", message, patients, SplitError))
    return errors


def _sides(fold: str, rows: pd.DataFrame) -> Sides:
    patients = {role: set(rows.loc[rows["role"] == role, "patient"]) for role in ROLES}
    shared = {f"{a} and {b}": sorted(patients[a] & patients[b]) for a, b in combinations(ROLES, 2)}
    counts = {role: len(patients[role]) for role in ROLES}
    return Sides(fold, counts, {pair: names for pair, names in shared.items() if names})


def _rows(path: Path, column: str | None) -> Iterator[Row]:
    if not path.is_dir():
        yield from _rows_of_table(path, read_table(path, SplitError), column)
        return
    files = {int(name[1]): file for file in entries(path, SplitError) if (name := _CLAM_FILE.fullmatch(file.name))}
    if not files:
        raise SplitError(f"{path} holds no file splits_0.csv, splits_1.csv, ..., expected them or one split file")
    for fold, file in sorted(files.items()):
        for _, role, item in _rows_of_table(file, read_table(file, SplitError), column):
            yield str(fold), role, item


def _rows_of_table(path: Path, table: pd.DataFrame, column: str | None) -> Iterator[Row]:
    if column is not None:
        require(path, table, [column], SplitError)
    role_of_column = {str(name): role for name in table if name != column and (role := _listed_role(str(name)))}
    if len(set(role_of_column.values())) > 1:
        return _rows_of_lists(path, table, role_of_column, column)
    return _rows_of_items(path, table, column)


def _listed_role(column: str) -> str | None:
    """Return the role whose items a column lists, by the column's name."""
    match = _LISTS.fullmatch(column.strip().casefold())
    role = role_of(match["role"]) if match else ""
    return role if role in ROLES else None


def _rows_of_lists(
    path: Path, table: pd.DataFrame, role_of_column: dict[str, str], column: str | None
) -> Iterator[Row]:
    words = table[list(role_of_column)].apply(lambda values: values.str.casefold())
    if words.isin([*_TRUE, *_FALSE]).all(axis=None):
        first = str(next(name for name in table if name not in role_of_column))
        items = table[_item_column(path, table, column or first)]
        items_by_column = {name: items[words[name].isin(_TRUE)] for name in role_of_column}
    else:
        items_by_column = {name: table.loc[table[name] != "", name].map(slide_id) for name in role_of_column}
    for name, role in role_of_column.items():
        yield from ((path.stem, role, item) for item in items_by_column[name])


def _rows_of_items(path: Path, table: pd.DataFrame, column: str | None) -> Iterator[Row]:
    item_column = _item_column(path, table, column)
    words = table.drop(columns=item_column).map(role_of)
    role_columns = [str(name) for name in words if words[name].isin([*ROLES, ""]).all() and (words[name] != "").any()]
    fold_columns = [
        str(name) for name in words if str(name).casefold() in ("fold", "split", "part") and _are_numbers(words[name])
    ]
    if len(role_columns) == 1 and fold_columns:
        return zip(words[fold_columns[0]], words[role_columns[0]], table[item_column], strict=True)
    if role_columns:
        return _rows_of_role_columns(words[role_columns], table[item_column])
    if fold_columns:
        return _rows_of_folds(words[fold_columns[0]], table[item_column])
    names = listed([str(name) for name in table])
    raise SplitError(f"{path}: no column of {names} holds roles (train, val, test) or lists a role's items")


def _item_column(path: Path, table: pd.DataFrame, column: str | None) -> str:
    if column is not None:
        return column
    ids = identified(path, table, Columns(), (), set()).require()
    if "patient" not in ids:
        names = listed([str(name) for name in table])
        raise SplitError(f"{path} has {names}, of which none is known to name patients: give --id COLUMN")
    has_id = ids["patient"] != ""
    return next(str(name) for name in table if table[name].where(has_id, "").tolist() == ids["patient"].tolist())


def _are_numbers(values: "pd.Series[str]") -> bool:
    return bool(values.str.fullmatch(r"\d{1,6}").all())


def _rows_of_role_columns(words: pd.DataFrame, items: "pd.Series[str]") -> Iterator[Row]:
    for fold in words:
        for role, item in zip(words[fold], items, strict=True):
            if role:
                yield str(fold), role, item


def _rows_of_folds(folds: "pd.Series[str]", items: "pd.Series[str]") -> Iterator[Row]:
    for fold in sorted(set(folds), key=int):
        for fold_of_item, item in zip(folds, items, strict=True):
            yield fold, "report" if fold_of_item == fold else "train", item
