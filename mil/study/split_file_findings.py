"""A split file by itself, whoever wrote it: which patients stand on both sides.

Known are a row an item, with a column of roles for each fold, with one of roles beside one of folds, or with the number
of the part that the item is in; and, as CLAM and MIL_BASELINE write them, one file a fold with a column for each role,
which lists its items, or says true or false of each.
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
        both: Patients that stand in two roles, for each two roles that share some.
    """

    fold: str
    patients: dict[str, int]
    both: dict[str, list[str]]


def read(path: Path, column: str | None = None) -> list[Sides]:
    """The folds of a split file, or of a folder with CLAM's `splits_{i}.csv`.

    Args:
        path: The file.
        column: Which column holds the patients, or items whose ids name them (see `barcodes`); None where roles have
            columns of their own, or where the patients' column has a common name.

    Raises:
        SplitError: No such file or column, or a table of no known shape.
    """
    rows = pd.DataFrame(_rows(path, column), columns=["fold", "role", "item"]).drop_duplicates()
    rows["patient"] = [patient_of(item) or item for item in rows["item"]]
    return [_sides(str(fold), own) for fold, own in rows.groupby("fold", sort=False)]


def findings(folds: Iterable[Sides]) -> list[Finding]:
    """An error for each fold with patients on both sides."""
    found = []
    for fold in folds:
        who = sorted({patient for shared in fold.both.values() for patient in shared})
        if who:
            pairs = ", ".join(f"{pair} {len(shared)}" for pair, shared in fold.both.items())
            message = f"fold {fold.fold}: {len(who)} patients stand on both sides ({pairs})"
            found.append(Finding.of_items("error", "two-sides", message, who, SplitError))
    return found


def _sides(fold: str, rows: pd.DataFrame) -> Sides:
    stands = {role: set(rows.loc[rows["role"] == role, "patient"]) for role in ROLES}
    pairs = {f"{one} and {other}": sorted(stands[one] & stands[other]) for one, other in combinations(ROLES, 2)}
    counts = {role: len(own) for role, own in stands.items()}
    return Sides(fold, counts, {pair: shared for pair, shared in pairs.items() if shared})


def _rows(path: Path, column: str | None) -> Iterator[Row]:
    if not path.is_dir():
        yield from _folds(path, read_table(path, SplitError), column)
        return
    files = {int(name[1]): at for at in path.iterdir() if (name := _CLAM_FILE.fullmatch(at.name))}
    if not files:
        raise SplitError(f"{path} holds no file splits_0.csv, splits_1.csv, ..., expected them or one split file")
    for fold, at in sorted(files.items()):
        for _, role, item in _folds(at, read_table(at, SplitError), column):
            yield str(fold), role, item


def _folds(path: Path, table: pd.DataFrame, column: str | None) -> Iterator[Row]:
    if column is not None:
        require(path, table, [column], SplitError)
    lists = {str(name): role for name in table if name != column and (role := _list_of(str(name)))}
    if len(set(lists.values())) > 1:
        return _listed_items(path, table, lists, column)
    return _items(path, table, column)


def _list_of(name: str) -> str | None:
    """The role whose items a column lists, by its name."""
    match = _LISTS.fullmatch(name.strip().casefold())
    role = role_of(match["role"]) if match else ""
    return role if role in ROLES else None


def _listed_items(path: Path, table: pd.DataFrame, lists: dict[str, str], column: str | None) -> Iterator[Row]:
    truths = table[list(lists)].apply(lambda values: values.str.casefold())
    if truths.isin([*_TRUE, *_FALSE]).all(axis=None):
        items = table[_items_of(path, table, column or str(next(name for name in table if name not in lists)))]
        said = {name: items[truths[name].isin(_TRUE)] for name in lists}
    else:
        said = {name: table.loc[table[name] != "", name].map(slide_id) for name in lists}
    for name, role in lists.items():
        yield from ((path.stem, role, item) for item in said[name])


def _items(path: Path, table: pd.DataFrame, column: str | None) -> Iterator[Row]:
    name = _items_of(path, table, column)
    words = table.drop(columns=name).map(role_of)
    roles = [str(own) for own in words if words[own].isin([*ROLES, ""]).all() and (words[own] != "").any()]
    numbers = [str(own) for own in words if str(own).casefold() in ("fold", "split", "part") and _whole(words[own])]
    if len(roles) == 1 and numbers:
        return zip(words[numbers[0]], words[roles[0]], table[name], strict=True)
    if roles:
        return _by_column(words[roles], table[name])
    if numbers:
        return _by_part(words[numbers[0]], table[name])
    has = listed([str(own) for own in table])
    raise SplitError(f"{path}: no column of {has} holds roles (train, val, test) or lists a role's items")


def _items_of(path: Path, table: pd.DataFrame, column: str | None) -> str:
    if column is not None:
        return column
    ids = identified(path, table, Columns(), (), set()).require()
    if "patient" not in ids:
        has = listed([str(name) for name in table])
        raise SplitError(f"{path} has {has}, of which none is known to name patients: give --id COLUMN")
    return next(str(name) for name in table if table[name].tolist() == ids["patient"].tolist())


def _whole(values: "pd.Series[str]") -> bool:
    return bool(values.str.fullmatch(r"\d{1,6}").all())


def _by_column(words: pd.DataFrame, items: "pd.Series[str]") -> Iterator[Row]:
    for fold in words:
        for role, item in zip(words[fold], items, strict=True):
            if role:
                yield str(fold), role, item


def _by_part(parts: "pd.Series[str]", items: "pd.Series[str]") -> Iterator[Row]:
    for fold in sorted(set(parts), key=int):
        for part, item in zip(parts, items, strict=True):
            yield fold, "report" if part == fold else "train", item
