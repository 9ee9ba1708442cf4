"""Split strategies: folds, nested folds, hold-out, given roles, or training only. Patients are split, never slides."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

from mil.errors import SplitError
from mil.findings import Finding
from mil.splits.roles import Split, roles_from_column, roles_from_file
from mil.splits.strata import check_folds, check_fraction, fold_table, line, ordered, roles_of, seeded

__all__ = ["AllTrain", "Fixed", "HoldOut", "KFold", "Nested", "Split", "Strategy"]


class Strategy(Protocol):
    """A way to assign roles to patients."""

    def __call__(self, patients: Sequence[str], strata: NDArray[np.integer], columns: pd.DataFrame, seed: int) -> Split:
        """Split the patients.

        Args:
            patients: Unique ids; the order does not matter.
            strata: `(p,)`, the group of each patient; every role keeps the proportions of the groups.
            columns: The table of the cohort, one row a slide, with `patient`.
            seed: Seed of the random choice.
        """


@dataclass(frozen=True)
class KFold:
    """Stratified k-fold cross-validation: each patient is reported once in each repeat.

    Part `k` of repeat `r` is fold `r * folds + k`.

    Args:
        folds: Number of parts in a repeat.
        select: Fraction of the patients outside the reported ones who select the model.
        repeats: Number of repeats, each with other parts.
    """

    folds: int = 5
    select: float = 0.2
    repeats: int = 1

    def __call__(self, patients: Sequence[str], strata: NDArray[np.integer], columns: pd.DataFrame, seed: int) -> Split:
        """Split the patients; see `Strategy`.

        Raises:
            SplitError: Fewer than two folds, or a class with fewer patients than folds.
        """
        ids, groups = ordered(patients, strata)
        check_fraction("select", self.select)
        check_folds(self.folds, self.repeats, groups)
        tables, warnings = [], list[Finding]()
        for repeat in range(self.repeats):
            cut = StratifiedKFold(self.folds, shuffle=True, random_state=seeded(seed, repeat))
            for part, (rest, report) in enumerate(cut.split(ids, groups)):
                fold = repeat * self.folds + part
                chance = seeded(seed, repeat, part + 1)
                roles = roles_of(len(ids), report, rest, groups, self.select, chance, warnings)
                tables.append(fold_table(ids, fold, roles))
        return Split(pd.concat(tables), tuple(warnings))


@dataclass(frozen=True)
class Nested:
    """Nested k-fold cross-validation, for `mil select`, which chooses a configuration for each outer part.

    Outer part `o` is reported by every fold `o * inner + i`, in which inner part `i` of the other patients selects and
    the rest trains. So every patient outside `o` selects once, for a model that was not trained on them, and the
    patients of `o` influence neither the epoch nor the configuration that is used for them.

    Args:
        folds: Number of outer parts.
        inner: Number of inner parts of the patients outside an outer part.
    """

    folds: int = 5
    inner: int = 4

    def __call__(self, patients: Sequence[str], strata: NDArray[np.integer], columns: pd.DataFrame, seed: int) -> Split:
        """Split the patients; see `Strategy`.

        Raises:
            SplitError: Fewer than two folds, outer or inner, or a class with fewer patients than outer folds.
        """
        ids, groups = ordered(patients, strata)
        check_folds(self.folds, 1, groups)
        if self.inner < 2:
            raise SplitError(f"split.inner is {self.inner}, expected at least 2")
        outer = StratifiedKFold(self.folds, shuffle=True, random_state=seeded(seed, 0))
        tables = []
        for part, (rest, report) in enumerate(outer.split(ids, groups)):
            check_folds(self.inner, 1, groups[rest], f"outside part {part}, ")
            inner = StratifiedKFold(self.inner, shuffle=True, random_state=seeded(seed, 0, part + 1))
            for turn, (_, select) in enumerate(inner.split(rest, groups[rest])):
                roles = np.full(len(ids), "train", dtype="U6")
                roles[report], roles[rest[select]] = "report", "select"
                tables.append(fold_table(ids, part * self.inner + turn, roles))
        return Split(pd.concat(tables))


@dataclass(frozen=True)
class HoldOut:
    """A stratified hold-out: one part is reported, the rest trains and selects.

    Args:
        report: Fraction of all patients who are reported.
        select: Fraction of the other patients who select the model.
    """

    report: float = 0.25
    select: float = 0.2

    def __call__(self, patients: Sequence[str], strata: NDArray[np.integer], columns: pd.DataFrame, seed: int) -> Split:
        """Split the patients; see `Strategy`.

        Raises:
            SplitError: A fraction is not between 0 and 1, or a class is too small to be in both parts.
        """
        ids, groups = ordered(patients, strata)
        check_fraction("report", self.report)
        check_fraction("select", self.select)
        cut = StratifiedShuffleSplit(1, test_size=self.report, random_state=seeded(seed, 0))
        try:
            rest, report = next(cut.split(ids, groups))
        except ValueError as error:
            raise SplitError(f"{len(ids)} patients cannot be held out by class: {line(error)}") from error
        warnings: list[Finding] = []
        roles = roles_of(len(ids), report, rest, groups, self.select, seeded(seed, 1), warnings)
        return Split(fold_table(ids, 0, roles), tuple(warnings))


@dataclass(frozen=True)
class Fixed:
    """Roles from a column of the cohort or a `split.csv`; where no one selects, a part of the training patients does.

    Args:
        column: Column with train, select or report, or their common synonyms (training, val, validation, tune, test).
        file: A table `patient, fold, role`, as a run writes it.
        select: Fraction of the training patients who select, in a fold where no one is named for it.
    """

    column: str | None = None
    file: str | None = None
    select: float = 0.2

    def __call__(self, patients: Sequence[str], strata: NDArray[np.integer], columns: pd.DataFrame, seed: int) -> Split:
        """Split the patients; see `Strategy`.

        Raises:
            SplitError: Not exactly one of column and file is given; or a patient has two roles or none.
        """
        ids, groups = ordered(patients, strata)
        check_fraction("select", self.select)
        if (self.column is None) == (self.file is None):
            raise SplitError("split=fixed takes its roles from one place: give split.column=NAME or split.file=PATH")
        if self.file is not None:
            given = Split(roles_from_file(Path(self.file), ids.tolist()))
        else:
            given = Split(roles_from_column(str(self.column), ids.tolist(), columns))
        warnings: list[Finding] = []
        tables = [self._with_select(given, fold, ids, groups, seed, warnings) for fold in given.folds]
        return Split(pd.concat(tables), tuple(warnings))

    def _with_select(
        self,
        given: Split,
        fold: int,
        ids: NDArray[np.str_],
        groups: NDArray[np.integer],
        seed: int,
        warnings: list[Finding],
    ) -> pd.DataFrame:
        if given.patients(fold, "select"):
            return given.table[given.table["fold"] == fold]
        train, report = (np.flatnonzero(np.isin(ids, given.patients(fold, role))) for role in ("train", "report"))
        roles = roles_of(len(ids), report, train, groups, self.select, seeded(seed, fold), warnings)
        return fold_table(ids, fold, roles)


@dataclass(frozen=True)
class AllTrain:
    """All patients train, except a stratified part that selects the epoch; no one is reported.

    Args:
        select: Fraction of the patients who select.
    """

    select: float = 0.2

    def __call__(self, patients: Sequence[str], strata: NDArray[np.integer], columns: pd.DataFrame, seed: int) -> Split:
        """Split the patients; see `Strategy`.

        Raises:
            SplitError: The fraction is not between 0 and 1, or there are fewer than two patients.
        """
        ids, groups = ordered(patients, strata)
        check_fraction("select", self.select)
        nobody = np.empty(0, dtype=np.intp)
        warnings: list[Finding] = []
        roles = roles_of(len(ids), nobody, np.arange(len(ids)), groups, self.select, seeded(seed, 0), warnings)
        return Split(fold_table(ids, 0, roles), tuple(warnings))
