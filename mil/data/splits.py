"""How patients come to their roles: by folds, by a hold-out, as given, or all in training. Never by slides."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import ShuffleSplit, StratifiedKFold, StratifiedShuffleSplit

from mil.data.roles import Split, roles_from_column, roles_from_file
from mil.data.tables import listed
from mil.errors import SplitError

_log = logging.getLogger(__name__)

__all__ = ["AllTrain", "Fixed", "HoldOut", "KFold", "Split", "Strategy"]


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
        ids, groups = _sorted(patients, strata)
        _refuse_share("select", self.select)
        _refuse_folds(self.folds, self.repeats, groups)
        tables = []
        for repeat in range(self.repeats):
            cut = StratifiedKFold(self.folds, shuffle=True, random_state=_seed(seed, repeat))
            for part, (rest, report) in enumerate(cut.split(ids, groups)):
                fold = repeat * self.folds + part
                roles = _roles(len(ids), report, rest, groups, self.select, _seed(seed, repeat, part + 1))
                tables.append(_table(ids, fold, roles))
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
        ids, groups = _sorted(patients, strata)
        _refuse_share("report", self.report)
        _refuse_share("select", self.select)
        cut = StratifiedShuffleSplit(1, test_size=self.report, random_state=_seed(seed, 0))
        try:
            rest, report = next(cut.split(ids, groups))
        except ValueError as error:
            raise SplitError(f"{len(ids)} patients cannot be held out by class: {_line(error)}") from error
        return Split(_table(ids, 0, _roles(len(ids), report, rest, groups, self.select, _seed(seed, 1))))


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
        ids, groups = _sorted(patients, strata)
        _refuse_share("select", self.select)
        if (self.column is None) == (self.file is None):
            raise SplitError("split=fixed takes its roles from one place: give split.column=NAME or split.file=PATH")
        if self.file is not None:
            given = Split(roles_from_file(Path(self.file), ids.tolist()))
        else:
            given = Split(roles_from_column(str(self.column), ids.tolist(), columns))
        return Split(pd.concat([self._with_select(given, fold, ids, groups, seed) for fold in given.folds]))

    def _with_select(
        self, given: Split, fold: int, ids: NDArray[np.str_], groups: NDArray[np.integer], seed: int
    ) -> pd.DataFrame:
        if given.patients(fold, "select"):
            return given.table[given.table["fold"] == fold]
        train, report = (np.flatnonzero(np.isin(ids, given.patients(fold, role))) for role in ("train", "report"))
        return _table(ids, fold, _roles(len(ids), report, train, groups, self.select, _seed(seed, fold)))


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
        ids, groups = _sorted(patients, strata)
        _refuse_share("select", self.select)
        nobody = np.empty(0, dtype=np.intp)
        return Split(_table(ids, 0, _roles(len(ids), nobody, np.arange(len(ids)), groups, self.select, _seed(seed, 0))))


def _sorted(patients: Sequence[str], strata: NDArray[np.integer]) -> tuple[NDArray[np.str_], NDArray[np.integer]]:
    ids, groups = np.asarray(patients, dtype=str), np.asarray(strata)
    if ids.shape != groups.shape:
        raise SplitError(f"{len(ids)} patients have strata of shape {groups.shape}, expected one each")
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    doubled = sorted(set(ids[1:][ids[1:] == ids[:-1]].tolist()))
    if doubled:
        raise SplitError(f"{len(doubled)} patients are there twice: {listed(doubled)}")
    return ids, groups[order]


def _seed(seed: int, *place: int) -> int:
    """A seed of its own for each choice, so that one does not shift the next."""
    return int(np.random.SeedSequence([seed, *place]).generate_state(1)[0])


def _refuse_share(name: str, share: float) -> None:
    if not 0 < share < 1:
        raise SplitError(f"split.{name} is {share}, expected a share between 0 and 1")


def _refuse_folds(folds: int, repeats: int, groups: NDArray[np.integer]) -> None:
    if folds < 2 or repeats < 1:
        raise SplitError(f"split.folds is {folds} and split.repeats {repeats}, expected at least 2 and 1")
    classes, counts = np.unique(groups, return_counts=True)
    if not len(classes) or counts.min() < folds:
        which, count = (f"class {classes[counts.argmin()]}", counts.min()) if len(classes) else ("the cohort", 0)
        raise SplitError(f"{which} has {count} patients, expected at least {folds} for {folds} folds")


def _roles(
    count: int,
    report: NDArray[np.intp],
    rest: NDArray[np.intp],
    groups: NDArray[np.integer],
    share: float,
    seed: int,
) -> NDArray[np.str_]:
    """Each patient's role: `report` as given, and of the `rest` a stratified share selects."""
    roles = np.full(count, "", dtype="U6")
    roles[report], roles[rest] = "report", "train"
    roles[rest[_chosen(groups[rest], share, seed)]] = "select"
    return roles


def _chosen(groups: NDArray[np.integer], share: float, seed: int) -> NDArray[np.intp]:
    if len(groups) < 2:
        raise SplitError(f"{len(groups)} patients are left for training, expected at least 2 to train and to select")
    by_class = StratifiedShuffleSplit(1, test_size=share, random_state=seed)
    try:
        chosen: NDArray[np.intp] = next(by_class.split(groups, groups))[1]
    except ValueError as error:
        _log.warning("which of %d patients select is chosen without regard to class: %s", len(groups), _line(error))
        size = min(max(round(share * len(groups)), 1), len(groups) - 1)
        chosen = next(ShuffleSplit(1, test_size=size, random_state=seed).split(groups))[1]
    return chosen


def _table(ids: NDArray[np.str_], fold: int, roles: NDArray[np.str_]) -> pd.DataFrame:
    return pd.DataFrame({"patient": ids, "fold": fold, "role": roles})


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
