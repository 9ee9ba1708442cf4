"""Every patient's role in every fold, checked, written and given back.

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
from mil.tables import listed, read_table, require

ROLES = ("train", "select", "report")
_SYNONYMS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("select", "val", "valid", "validation", "tune", "tuning", "dev"), "select"),
    **dict.fromkeys(("report", "test", "testing"), "report"),
}


@dataclass(frozen=True, eq=False)
class Split:
    """Every patient's role in every fold.

    A patient is in `report` of several folds only where all reported patients are, equally often: repeated
    cross-validation.

    Attributes:
        table: `patient`, `fold` (int) and `role`, sorted by fold and patient.
        findings: Warnings of the strategy that made it.

    Raises:
        SplitError: A role that is none, a patient with two roles in a fold (naming who), a fold in which nobody
            trains, or patients reported more often than others.
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
        """The folds' numbers."""
        return [int(fold) for fold in sorted(set(self.table["fold"]))]

    def patients(self, fold: int, role: str) -> list[str]:
        """Ids of the patients with this role in this fold, sorted."""
        chosen = (self.table["fold"] == fold) & (self.table["role"] == role)
        return self.table.loc[chosen, "patient"].tolist()

    def write(self, path: Path) -> None:
        """Write the canonical CSV, which `read` takes back and `digest` is of."""
        path.write_bytes(self._csv())

    @classmethod
    def read(cls, path: Path, patients: Sequence[str]) -> "Split":
        """Read `patient, fold, role`, where `fold` may be absent and roles may go by their usual other names.

        Raises:
            SplitError: No such file or column, patients that the cohort has not or the file lacks, or as in `Split`.
        """
        return cls(roles_from_file(Path(path), patients))

    def digest(self) -> str:
        """The sha256 of the canonical CSV."""
        return hashlib.sha256(self._csv()).hexdigest()

    def _csv(self) -> bytes:
        return self.table.to_csv(index=False, lineterminator="\n").encode()


def roles_from_file(path: Path, patients: Sequence[str]) -> pd.DataFrame:
    """The roles in a split file, of exactly these patients in every fold.

    Raises:
        SplitError: No such file or column, patients that are not in the cohort, or that a fold does not name.
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
    """The roles in a column of the cohort's table, as one fold.

    A patient whose slides stand on two sides keeps both rows, and `Split` refuses them.

    Raises:
        SplitError: No such column, or patients whose role is none.
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
