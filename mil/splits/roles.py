"""The role of every patient in every fold.

`train` fits the model; `select` decides on early stopping, thresholds and calibration; `report` is predicted once, at
the end.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mil.errors import SplitError
from mil.findings import Finding
from mil.tables import csv_text, listed, read_table, require

ROLES = ("train", "select", "report")
_SYNONYMS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("select", "val", "valid", "validation", "tune", "tuning", "dev"), "select"),
    **dict.fromkeys(("report", "test", "testing"), "report"),
}


@dataclass(frozen=True, eq=False)
class Split:
    """The role of every patient in every fold.

    A patient is reported in several folds only where all reported patients are, equally often, as in repeated
    cross-validation.

    Attributes:
        table: `patient`, `fold` (int) and `role`, sorted by fold and patient.
        findings: Warnings of the strategy that made the split.

    Raises:
        SplitError: A role is unknown, a patient has two roles in a fold, no one trains in a fold, or some patients are
            reported more often than others.
    """

    table: pd.DataFrame
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        table = self.table[["patient", "fold", "role"]].astype({"patient": str, "fold": int, "role": str})
        object.__setattr__(self, "table", table.sort_values(["fold", "patient"], ignore_index=True))
        self._check()

    def _check(self) -> None:
        unknown = sorted(set(self.table["role"]) - set(ROLES))
        if unknown:
            raise SplitError(f"role '{unknown[0]}' is unknown, expected one of {', '.join(ROLES)}")
        twice = self.table[self.table.duplicated(["patient", "fold"])]
        if len(twice):
            who = list(dict.fromkeys(twice["patient"]))
            raise SplitError(f"{len(who)} patients stand on two sides of one fold: {listed(who)}")
        idle = sorted(set(self.folds) - set(self.table.loc[self.table["role"] == "train", "fold"]))
        if idle or self.table.empty:
            raise SplitError(f"nobody trains in fold {idle[0] if idle else 0}")
        times = self.table.loc[self.table["role"] == "report", "patient"].value_counts().sort_index()
        if times.nunique() > 1:
            often = list(times.index[times > times.min()])
            raise SplitError(f"{len(often)} patients are reported in more folds than others: {listed(often)}")

    @property
    def folds(self) -> list[int]:
        """Numbers of the folds."""
        return [int(fold) for fold in sorted(set(self.table["fold"]))]

    def patients(self, fold: int, role: str) -> list[str]:
        """Return the ids of the patients with a role in a fold, sorted."""
        chosen = (self.table["fold"] == fold) & (self.table["role"] == role)
        return self.table.loc[chosen, "patient"].tolist()

    def write(self, path: Path) -> None:
        """Write the table as CSV."""
        path.write_text(csv_text(self.table), encoding="utf-8")

    @classmethod
    def read(cls, path: Path, patients: Sequence[str]) -> "Split":
        """Read `patient, fold, role`; `fold` may be absent, and roles may be common synonyms.

        Raises:
            SplitError: The file or a column is missing, the patients are not those of the cohort, or as in `Split`.
        """
        return cls(roles_from_file(Path(path), patients))

    def digest(self) -> str:
        """Return the sha256 of the canonical CSV."""
        return hashlib.sha256(self._csv()).hexdigest()

    def _csv(self) -> bytes:
        return self.table.to_csv(index=False, lineterminator="\n").encode()


def roles_from_file(path: Path, patients: Sequence[str]) -> pd.DataFrame:
    """Return the roles in a split file, which must name exactly these patients in every fold.

    Raises:
        SplitError: The file or a column is missing, or the patients of a fold are not those of the cohort.
    """
    table = read_table(path, SplitError)
    require(path, table, ["patient", "role"], SplitError)
    folds = table["fold"] if "fold" in table else pd.Series("0", index=table.index)
    odd = folds[~folds.str.fullmatch(r"\d{1,6}")]
    if len(odd):
        raise SplitError(f"{path}, row {odd.index[0] + 1}: fold '{odd.iloc[0]}', expected a number from 0")
    named = pd.DataFrame({"patient": table["patient"], "fold": folds.astype(int), "role": table["role"].map(role_of)})
    unknown = sorted(set(named["patient"]) - set(patients))
    if unknown:
        raise SplitError(f"{path} names {len(unknown)} patients that are not in the cohort: {listed(unknown)}")
    for fold, members in named.groupby("fold")["patient"]:
        missing = sorted(set(patients) - set(members))
        if missing:
            raise SplitError(f"{path}: fold {fold} gives {len(missing)} patients no role: {listed(missing)}")
    return named


def roles_from_column(column: str, patients: Sequence[str], table: pd.DataFrame) -> pd.DataFrame:
    """Return the roles in a column of the cohort's table, as one fold.

    A patient whose slides have two roles keeps both rows, which `Split` refuses.

    Raises:
        SplitError: The column is missing, or patients have no role.
    """
    require(Path("the cohort"), table, ["patient", column], SplitError)
    rows = table.loc[table["patient"].isin(patients), ["patient", column]].drop_duplicates()
    roles = rows[column].map(role_of)
    without = sorted(set(patients) - set(rows.loc[roles.isin(ROLES), "patient"]))
    if without:
        raise SplitError(f"column '{column}' gives {len(without)} patients no role: {listed(without)}")
    return pd.DataFrame({"patient": rows["patient"], "fold": 0, "role": roles}).drop_duplicates()


def role_of(word: str) -> str:
    return _SYNONYMS.get(word.strip().casefold(), word)
