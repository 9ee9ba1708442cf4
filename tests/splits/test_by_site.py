"""Splits by site: every site is on one side of a fold, and classes are as balanced as the sites allow."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mil.errors import SplitError
from mil.splits.assignment import MOST, assign
from mil.splits.by_site import LeaveOneSiteOut, SitePreserved
from mil.splits.folds import Split
from mil.splits.sites import sites_of


def random_cohort(seed: int, sites: int, patients: int = 200) -> tuple[list[str], NDArray[np.int64], pd.DataFrame]:
    """Return patients, strata and columns of sites that differ in size and prevalence."""
    rng = np.random.default_rng(seed)
    site = np.append(np.arange(sites), rng.choice(sites, patients - sites, p=rng.dirichlet(np.full(sites, 2.0))))
    strata = (rng.random(patients) < rng.beta(2, 4, sites)[site]).astype(np.int64)
    names = [f"P{at:03}" for at in range(patients)]
    return names, strata, pd.DataFrame({"patient": names, "slide": names, "site": [f"S{at:02}" for at in site]})


def sites_in(split: Split, fold: int, role: str, columns: pd.DataFrame) -> set[str]:
    return set(columns.loc[columns["patient"].isin(split.patients(fold, role)), "site"])


def minimal_cost(counts: NDArray[np.int64], folds: int) -> float:
    """Return the lowest cost over all assignments, by enumeration."""
    table = np.column_stack([counts, counts.sum(1)]).astype(float)
    even = table.sum(0) / folds
    costs = []
    for fold_of_site in product(range(folds), repeat=len(table)):
        if len(set(fold_of_site)) == folds:
            sums = np.array([table[np.array(fold_of_site) == fold].sum(0) for fold in range(folds)])
            costs.append(float((np.abs(sums - even) / even).max(0).sum()))
    return min(costs)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), sites=st.integers(3, 7), folds=st.integers(2, 3), strata=st.integers(1, 3))
def test_few_sites_are_assigned_optimally(seed: int, sites: int, folds: int, strata: int) -> None:
    counts = np.random.default_rng(seed).integers(1, 30, (sites, strata))
    assignment = assign(counts, folds, seed)
    table = np.column_stack([counts, counts.sum(1)])
    sums = np.array([table[assignment.fold_of_site == fold].sum(0) for fold in range(folds)])
    cost = float((np.abs(sums / (table.sum(0) / folds) - 1)).max(0).sum())
    assert cost == pytest.approx(minimal_cost(counts, folds), abs=0.021 * folds + 1e-9)
    np.testing.assert_allclose(sums[:, :-1] - assignment.even, assignment.deviation, atol=1e-9)


@pytest.mark.parametrize("sites", [20, 2 * MOST])
def test_many_sites_are_assigned_almost_evenly(sites: int) -> None:
    rng = np.random.default_rng(sites)
    counts = rng.multinomial(10, [0.7, 0.3], sites)
    assignment = assign(counts, 5, 0)
    assert (np.abs(assignment.deviation) <= np.maximum(1, 0.05 * assignment.even)).all()


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), sites=st.integers(5, 14), folds=st.integers(2, 5))
def test_no_site_is_on_two_sides_and_patients_are_reported_once(seed: int, sites: int, folds: int) -> None:
    patients, strata, columns = random_cohort(seed, sites)
    split = SitePreserved(folds)(patients, strata, columns, seed)
    assert sorted(patient for fold in split.folds for patient in split.patients(fold, "report")) == patients
    for fold in split.folds:
        elsewhere = sites_in(split, fold, "train", columns) | sites_in(split, fold, "select", columns)
        assert not sites_in(split, fold, "report", columns) & elsewhere
        assert split.patients(fold, "select")
    order = np.random.default_rng(seed).permutation(len(patients))
    turned = SitePreserved(folds)([patients[at] for at in order], strata[order], columns.sample(frac=1), seed)
    assert turned.digest() == split.digest()


def test_select_patients_are_complete_sites_if_there_are_enough() -> None:
    patients, strata, columns = random_cohort(0, 40, 800)
    split = SitePreserved(4, select=0.25)(patients, strata, columns, 0)
    for fold in split.folds:
        assert not sites_in(split, fold, "select", columns) & sites_in(split, fold, "train", columns)
        rest = len(split.patients(fold, "select")) + len(split.patients(fold, "train"))
        assert len(split.patients(fold, "select")) == pytest.approx(0.25 * rest, rel=0.2)


def test_fold_of_the_largest_site_depends_on_the_seed() -> None:
    counts = np.array([[50, 20], [20, 9], [20, 8], [10, 5]])
    assert {int(assign(counts, 3, seed).fold_of_site[0]) for seed in range(20)} == {0, 1, 2}


def test_another_seed_gives_another_split() -> None:
    patients, strata, columns = random_cohort(0, 12)
    first, second = (SitePreserved(3)(patients, strata, columns, seed) for seed in (0, 1))
    assert first.digest() != second.digest()


def test_class_that_sites_cannot_balance_gives_a_warning() -> None:
    names = [f"P{at:03}" for at in range(40)]
    columns = pd.DataFrame({"patient": names, "site": np.repeat(["A", "B", "C", "D"], 10)})
    strata = np.repeat([1, 0, 0, 0], 10)
    uneven = SitePreserved(2)(names, strata, columns, 0)
    assert [finding for finding in uneven.findings if finding.line.startswith("class 1 is not balanced by site")]
    even = SitePreserved(2)(names, np.tile([1, 0], 20), columns, 0)
    assert not even.findings


def test_small_sites_are_reported_together_in_one_fold() -> None:
    names = [f"P{at:03}" for at in range(66)]
    site = np.repeat(["big", "large", "one-class", "tiny"], [25, 25, 12, 4])
    strata = np.where(site == "one-class", 0, np.arange(66) % 2)
    columns = pd.DataFrame({"patient": names, "site": site})
    split = LeaveOneSiteOut(smallest=10)(names, strata, columns, 0)
    reported = [sites_in(split, fold, "report", columns) for fold in split.folds]
    assert reported == [{"big"}, {"large"}, {"one-class", "tiny"}]
    assert "2 sites under 10 patients or of one class are reported together, as fold 2" in split.findings[0].line
    for fold in split.folds:
        assert not reported[fold] & sites_in(split, fold, "train", columns)
    with pytest.raises(SplitError, match="2 sites have under 10 patients or one class: 'one-class', 'tiny'"):
        LeaveOneSiteOut(smallest=10, small="refuse")(names, strata, columns, 0)
    with pytest.raises(SplitError, match="0 of 4 sites have 30 patients"):
        LeaveOneSiteOut(smallest=30)(names, strata, columns, 0)


def test_site_with_exactly_the_minimum_has_its_own_fold() -> None:
    names = [f"P{number:03}" for number in range(40)]
    columns = pd.DataFrame({"patient": names, "site": np.repeat(["exact", "large", "larger"], [10, 14, 16])})
    split = LeaveOneSiteOut(smallest=10, small="refuse")(names, np.arange(40) % 2, columns, 0)
    assert [sites_in(split, fold, "report", columns) for fold in split.folds] == [{"exact"}, {"large"}, {"larger"}]
    with pytest.raises(SplitError, match="1 sites have under 11 patients or one class: 'exact'"):
        LeaveOneSiteOut(smallest=11, small="refuse")(names, np.arange(40) % 2, columns, 0)


def test_sites_that_share_a_patient_are_merged() -> None:
    columns = pd.DataFrame({"patient": ["a", "a", "b", "c", "d"], "site": ["X", "Y", "Y", "X", "Z"]})
    assert sites_of(["a", "b", "c", "d"], columns).tolist() == ["X + Y", "X + Y", "X + Y", "Z"]


def test_tcga_sites_are_read_from_barcodes() -> None:
    nobody = pd.DataFrame({"patient": ["TCGA-A6-2671", "TCGA-AA-3555"]})
    assert sites_of(["TCGA-A6-2671", "TCGA-AA-3555"], nobody).tolist() == ["A6", "AA"]
    with pytest.raises(SplitError, match="1 of 2 patients have no TCGA barcode to tell it from: 'P1'"):
        sites_of(["TCGA-A6-2671", "P1"], nobody)


@pytest.mark.parametrize(
    ("strategy", "site", "reason"),
    [
        (SitePreserved(1), ["A", "B"], "split.folds is 1"),
        (SitePreserved(3), ["A", "B"], "2 sites .* are too few for 3 folds"),
        (SitePreserved(2, select=0.0), ["A", "B"], "split.select is 0.0"),
        (SitePreserved(2), ["A", "unknown"], "column 'site' names no site of 20 of 40 patients"),
        (LeaveOneSiteOut(small="drop"), ["A", "B"], "split.small is 'drop'"),
    ],
)
def test_invalid_site_splits_are_refused(
    strategy: SitePreserved | LeaveOneSiteOut, site: list[str], reason: str
) -> None:
    names = [f"P{at:03}" for at in range(40)]
    with pytest.raises(SplitError, match=reason) as raised:
        strategy(names, np.arange(40) % 2, pd.DataFrame({"patient": names, "site": np.tile(site, 20)}), 0)
    assert "\n" not in str(raised.value)
