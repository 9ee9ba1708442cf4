"""How patients come to their roles: by folds, by a hold-out, as given, or all in training. Never by slides."""

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
from mil.splits.strata import fold_table, line, ordered, refuse_folds, refuse_share, roles_of, seeded

__all__ = ["AllTrain", "Fixed", "HoldOut", "KFold", "Nested", "Split", "Strategy"]


class Strategy(Protocol):
    """How patients come to their roles."""

    def __call__(self, patients: Sequence[str], strata: NDArray[np.integer], columns: pd.DataFrame, seed: int) -> Split:
        """Split the patients.

        Args:
            patients: Ids, each once; their order does not matter.
            strata: `(p,)`, the group whose share each role should keep.
            columns: The cohort's table, one row a slide, with `patient`.
            seed: Of the random choice.
        """


@dataclass(frozen=True)
class KFold:
    """Stratified k-fold cross-validation: each patient is reported once in each repeat.

    Repeat `r`, part `k` is fold `r * folds + k`.

    Args:
        folds: Parts the patients are cut into.
        select: Share of the patients left for training that selects the model.
        repeats: How often, each time cut anew.
    """

    folds: int = 5
    select: float = 0.2
    repeats: int = 1

    def __call__(self, patients: Sequence[str], strata: NDArray[np.integer], columns: pd.DataFrame, seed: int) -> Split:
        """Split as `Strategy` says.

        Raises:
            SplitError: Fewer than two folds, or a class with fewer patients than folds.
        """
        ids, groups = ordered(patients, strata)
        refuse_share("select", self.select)
        refuse_folds(self.folds, self.repeats, groups)
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
    """Nested k-fold: `mil select` chooses among the jobs of a sweep by the select patients of each outer part.

    Part `o` of `folds` is reported by every fold `o * inner + i`, in which part `i` of the others selects and the rest
    trains. So every patient outside `o` selects once, in a model that did not train on them, and the patients of `o`
    take no part in what is decided about them: neither epoch nor configuration.

    Args:
        folds: Outer parts, each reported by the models that its inner folds make.
        inner: Parts that the patients outside an outer part are cut into.
    """

    folds: int = 5
    inner: int = 4

    def __call__(self, patients: Sequence[str], strata: NDArray[np.integer], columns: pd.DataFrame, seed: int) -> Split:
        """Split as `Strategy` says.

        Raises:
            SplitError: Fewer than two folds, outer or inner, or a class with fewer patients than outer folds.
        """
        ids, groups = ordered(patients, strata)
        refuse_folds(self.folds, 1, groups)
        if self.inner < 2:
            raise SplitError(f"split.inner is {self.inner}, expected at least 2")
        outer = StratifiedKFold(self.folds, shuffle=True, random_state=seeded(seed, 0))
        tables = []
        for part, (rest, report) in enumerate(outer.split(ids, groups)):
            refuse_folds(self.inner, 1, groups[rest], f"outside part {part}, ")
            inner = StratifiedKFold(self.inner, shuffle=True, random_state=seeded(seed, 0, part + 1))
            for turn, (_, select) in enumerate(inner.split(rest, groups[rest])):
                roles = np.full(len(ids), "train", dtype="U6")
                roles[report], roles[rest[select]] = "report", "select"
                tables.append(fold_table(ids, part * self.inner + turn, roles))
        return Split(pd.concat(tables))


@dataclass(frozen=True)
class HoldOut:
    """One stratified part is reported, the rest trains and selects.

    Args:
        report: Share of all patients that is reported.
        select: Share of the others that selects the model.
    """

    report: float = 0.25
    select: float = 0.2

    def __call__(self, patients: Sequence[str], strata: NDArray[np.integer], columns: pd.DataFrame, seed: int) -> Split:
        """Split as `Strategy` says.

        Raises:
            SplitError: A share that is none, or a class too small to be on both sides.
        """
        ids, groups = ordered(patients, strata)
        refuse_share("report", self.report)
        refuse_share("select", self.select)
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
    """Roles from a column of the cohort, or from a `split.csv`; where nobody selects, a part of those training does.

    Args:
        column: Holds train, select or report, or their usual other names (training, val, validation, tune, test).
        file: A table `patient, fold, role`, as a run writes it.
        select: Share of the training patients that selects, in a fold that names nobody.
    """

    column: str | None = None
    file: str | None = None
    select: float = 0.2

    def __call__(self, patients: Sequence[str], strata: NDArray[np.integer], columns: pd.DataFrame, seed: int) -> Split:
        """Split as `Strategy` says.

        Raises:
            SplitError: Not exactly one of column and file; a patient on two sides (naming who), or without a role.
        """
        ids, groups = ordered(patients, strata)
        refuse_share("select", self.select)
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
    """Nobody is reported: all patients train, but for a stratified part that selects the epoch.

    Args:
        select: Share of the patients that selects.
    """

    select: float = 0.2

    def __call__(self, patients: Sequence[str], strata: NDArray[np.integer], columns: pd.DataFrame, seed: int) -> Split:
        """Split as `Strategy` says.

        Raises:
            SplitError: A share that is none, or fewer than two patients.
        """
        ids, groups = ordered(patients, strata)
        refuse_share("select", self.select)
        nobody = np.empty(0, dtype=np.intp)
        warnings: list[Finding] = []
        roles = roles_of(len(ids), nobody, np.arange(len(ids)), groups, self.select, seeded(seed, 0), warnings)
        return Split(fold_table(ids, 0, roles), tuple(warnings))
