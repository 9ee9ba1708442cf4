"""Splits that keep the patients of a site together: models recognise sites, and sites differ in their patients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.errors import SplitError
from mil.findings import Finding
from mil.splits.assignment import Assignment, assign
from mil.splits.roles import Split
from mil.splits.sites import sites_of
from mil.splits.strata import check_fraction, chosen_of, fold_table, ordered, seeded
from mil.tables import listed

UNEVEN = 0.2
"""Relative deviation from the even share of a class, beyond which a fold is warned of."""
Strata = NDArray[np.integer]
Names = NDArray[np.str_]


@dataclass(frozen=True)
class SitePreserved:
    """Cross-validation over whole sites: no site has patients in two roles of a fold.

    Sites are assigned to folds so that each fold has its share of every class (see `assignment`). The patients who
    select are whole sites too where that comes close to `select`; otherwise a stratified sample.

    Args:
        folds: Number of folds.
        select: Fraction of the patients outside the reported ones who select the model.
    """

    folds: int = 5
    select: float = 0.2

    def __call__(self, patients: Sequence[str], strata: Strata, columns: pd.DataFrame, seed: int) -> Split:
        """Split the patients; see `Strategy`.

        Raises:
            SplitError: Fewer than two folds, fewer sites than folds, or patients without a site.
        """
        ids, groups = ordered(patients, strata)
        check_fraction("select", self.select)
        sites = sites_of(ids.tolist(), columns)
        names, place = np.unique(sites, return_inverse=True)
        if self.folds < 2:
            raise SplitError(f"split.folds is {self.folds}, expected at least 2")
        if len(names) < self.folds:
            raise SplitError(f"{len(names)} sites ({listed(names.tolist())}) are too few for {self.folds} folds")
        assignment = assign(_counts(place, groups), self.folds, seeded(seed, 0))
        warnings = _uneven(assignment, np.unique(groups))
        folds = assignment.fold_of_site[place]
        tables = [
            fold_table(ids, fold, _roles(folds == fold, sites, groups, self.select, seeded(seed, fold + 1), warnings))
            for fold in range(self.folds)
        ]
        return Split(pd.concat(tables), tuple(warnings))


@dataclass(frozen=True)
class LeaveOneSiteOut:
    """Leave-one-site-out cross-validation: each site is reported by a model that was trained on the other sites.

    Sites with few patients, or with patients of one class only, cannot be scored alone: they are reported together, in
    the last fold, unless `small` is `refuse`.

    Args:
        smallest: Number of patients that a site needs for its own fold.
        select: Fraction of the patients outside the reported ones who select the model.
        small: `pool` or `refuse`.
    """

    smallest: int = 20
    select: float = 0.2
    small: str = "pool"

    def __call__(self, patients: Sequence[str], strata: Strata, columns: pd.DataFrame, seed: int) -> Split:
        """Split the patients; see `Strategy`.

        Raises:
            SplitError: Fewer than two folds, small sites where they are refused, or patients without a site.
        """
        ids, groups = ordered(patients, strata)
        check_fraction("select", self.select)
        if self.small not in ("pool", "refuse"):
            raise SplitError(f"split.small is '{self.small}', expected pool or refuse")
        sites = sites_of(ids.tolist(), columns)
        reported, warnings = self._reported(sites, groups)
        tables = [
            fold_table(
                ids, fold, _roles(np.isin(sites, names), sites, groups, self.select, seeded(seed, fold), warnings)
            )
            for fold, names in enumerate(reported)
        ]
        return Split(pd.concat(tables), tuple(warnings))

    def _reported(self, sites: Names, groups: Strata) -> tuple[list[list[str]], list[Finding]]:
        """Return the sites that each fold reports, with a warning where small ones are reported together."""
        names, place = np.unique(sites, return_inverse=True)
        counts = _counts(place, groups)  # (s, k)
        alone = (counts.sum(1) >= self.smallest) & ((counts > 0).sum(1) > min(1, counts.shape[1] - 1))
        pooled = names[~alone].tolist()
        if pooled and self.small == "refuse":
            raise SplitError(f"{len(pooled)} sites have under {self.smallest} patients or one class: {listed(pooled)}")
        reported = [[str(name)] for name in names[alone]] + ([pooled] if pooled else [])
        if len(reported) < 2:
            raise SplitError(
                f"{int(alone.sum())} of {len(names)} sites have {self.smallest} patients of more than one class, "
                "expected two or more, or one and others to pool"
            )
        if not pooled:
            return reported, []
        message = (
            f"{len(pooled)} sites under {self.smallest} patients or of one class are reported together, as fold "
            f"{len(reported) - 1}"
        )
        return reported, [Finding.of_items("warning", "sites-pooled", message, pooled)]


def _counts(place: NDArray[np.intp], groups: Strata) -> NDArray[np.int64]:
    """Return the number of patients of each site and stratum, `(s, k)`."""
    _, kind = np.unique(groups, return_inverse=True)
    counts = np.zeros((place.max(initial=-1) + 1, kind.max(initial=-1) + 1), dtype=np.int64)
    np.add.at(counts, (place, kind), 1)
    return counts


def _roles(
    report: NDArray[np.bool_], sites: Names, groups: Strata, share: float, seed: int, warnings: list[Finding]
) -> Names:
    """Return each patient's role, given who is reported."""
    roles = np.where(report, "report", "train").astype("U6")
    rest = np.flatnonzero(~report)
    chosen = _whole_sites(sites[rest], groups[rest], share, seed)
    if chosen is None:
        chosen = chosen_of(groups[rest], share, seed, warnings)
    roles[rest[chosen]] = "select"
    return roles


def _whole_sites(sites: Names, groups: Strata, share: float, seed: int) -> NDArray[np.intp] | None:
    """Return the indices of patients of whole sites with about the given share; None where no choice comes close."""
    names, place = np.unique(sites, return_inverse=True)
    folds = max(2, round(1 / share))
    if len(names) < folds:
        return None
    counts = _counts(place, groups)
    assignment = assign(counts, folds, seed, exact=False)
    target = share * counts.sum(0)
    taken = assignment.deviation + assignment.even  # (f, k)
    best = int(np.abs(taken / target - 1).max(1).argmin())
    off = np.abs(taken[best] - target)
    near = (off <= np.maximum(1, UNEVEN * target)).all() and (taken[best] > 0).all()
    return np.flatnonzero(assignment.fold_of_site[place] == best) if near else None


def _uneven(assignment: Assignment, classes: NDArray[np.integer]) -> list[Finding]:
    """Return warnings about classes that are unevenly distributed over the folds, by one patient or more."""
    warnings = []
    for kind, even in enumerate(assignment.even):
        off = assignment.deviation[:, kind]
        fold = int(np.abs(off).argmax())
        if abs(off[fold]) >= 1 and abs(off[fold]) > UNEVEN * even:
            count = round(off[fold] + even)
            message = (
                f"class {classes[kind]} is not balanced by site: fold {fold} reports {count} patients of it, "
                f"{even:.1f} would be even"
            )
            warnings.append(Finding("warning", "sites-uneven", message, count))
    return warnings
