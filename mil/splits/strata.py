"""Stratified samples of patients, and checks, for all split strategies."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit

from mil.errors import SplitError
from mil.findings import Finding
from mil.tables import listed


def ordered(patients: Sequence[str], strata: NDArray[np.integer]) -> tuple[NDArray[np.str_], NDArray[np.integer]]:
    """Return the ids, sorted, and the stratum of each, so that no split depends on the order of the patients.

    Raises:
        SplitError: A patient occurs twice, or has no stratum.
    """
    ids, groups = np.asarray(patients, dtype=str), np.asarray(strata)
    if ids.shape != groups.shape:
        raise SplitError(f"{len(ids)} patients have strata of shape {groups.shape}, expected one each")
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    doubled = sorted(set(ids[1:][ids[1:] == ids[:-1]].tolist()))
    if doubled:
        raise SplitError(f"{len(doubled)} patients are there twice: {listed(doubled)}")
    return ids, groups[order]


def seeded(seed: int, *place: int) -> int:
    """Return a separate seed for each random choice, so that one choice does not change the next."""
    return int(np.random.SeedSequence([seed, *place]).generate_state(1)[0])


def check_fraction(name: str, share: float) -> None:
    """Check that a fraction lies strictly between 0 and 1.

    Raises:
        SplitError: It does not.
    """
    if not 0 < share < 1:
        raise SplitError(f"split.{name} is {share}, expected a share between 0 and 1")


def check_folds(folds: int, repeats: int, groups: NDArray[np.integer], where: str = "") -> None:
    """Check that every fold can have a patient of every class; `where` starts the message.

    Raises:
        SplitError: It cannot, or there are too few folds.
    """
    if folds < 2 or repeats < 1:
        raise SplitError(f"split.folds is {folds} and split.repeats {repeats}, expected at least 2 and 1")
    classes, counts = np.unique(groups, return_counts=True)
    if not len(classes) or counts.min() < folds:
        which, count = (f"class {classes[counts.argmin()]}", counts.min()) if len(classes) else ("the cohort", 0)
        raise SplitError(f"{where}{which} has {count} patients, expected at least {folds} for {folds} folds")


def roles_of(
    count: int,
    report: NDArray[np.intp],
    rest: NDArray[np.intp],
    groups: NDArray[np.integer],
    share: float,
    seed: int,
    warnings: list[Finding],
) -> NDArray[np.str_]:
    """Return each patient's role: `report` as given; of the `rest` a stratified sample selects."""
    roles = np.full(count, "", dtype="U6")
    roles[report], roles[rest] = "report", "train"
    roles[rest[chosen_of(groups[rest], share, seed, warnings)]] = "select"
    return roles


def chosen_of(groups: NDArray[np.integer], share: float, seed: int, warnings: list[Finding]) -> NDArray[np.intp]:
    """Return the indices of a stratified sample of the patients; where that is impossible, of any sample, and warn.

    Raises:
        SplitError: There are fewer than two patients.
    """
    if len(groups) < 2:
        raise SplitError(f"{len(groups)} patients are left for training, expected at least 2 to train and to select")
    by_class = StratifiedShuffleSplit(1, test_size=share, random_state=seed)
    try:
        chosen: NDArray[np.intp] = next(by_class.split(groups, groups))[1]
    except ValueError:  # fewer places than classes, or a class with a single patient
        counts = np.unique(groups, return_counts=True)[1]
        reason = f"there are {len(groups)} in {len(counts)} classes" if counts.min() > 1 else "a class has 1 of them"
        message = f"which of {len(groups)} patients select is chosen without regard to class, as {reason}"
        warnings.append(Finding("warning", "select-unstratified", message, len(groups)))
        size = min(max(round(share * len(groups)), 1), len(groups) - 1)
        chosen = next(ShuffleSplit(1, test_size=size, random_state=seed).split(groups))[1]
    return chosen


def fold_table(ids: NDArray[np.str_], fold: int, roles: NDArray[np.str_]) -> pd.DataFrame:
    """Return the rows of one fold of a split's table."""
    return pd.DataFrame({"patient": ids, "fold": fold, "role": roles})


def line(error: Exception) -> str:
    """Return the message of an error in one line."""
    return " ".join(str(error).split())
