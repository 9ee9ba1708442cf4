import math
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mil.errors import SplitError
from mil.splits.folds import AllTrain, Fixed, HoldOut, KFold, Nested, Split, Strategy

NONE = pd.DataFrame()
Strata = NDArray[np.int64]


def cohort(counts: Sequence[int]) -> tuple[list[str], Strata]:
    """Return patients of each class, as many as `counts` says, in random order."""
    strata = np.random.default_rng(sum(counts)).permutation(np.repeat(np.arange(len(counts)), counts))
    return [f"P{number:04}" for number in range(len(strata))], strata


def class_counts(split: Split, fold: int, role: str, patients: list[str], strata: Strata) -> list[int]:
    chosen = np.isin(patients, split.patients(fold, role))
    return [int(number) for number in np.bincount(strata[chosen], minlength=strata.max() + 1)]


sizes = st.lists(st.integers(8, 60), min_size=1, max_size=4)
strategies = st.builds(KFold, st.integers(2, 8), st.floats(0.1, 0.5), st.integers(1, 3)) | st.builds(
    HoldOut, st.floats(0.15, 0.5), st.floats(0.15, 0.5)
)


@settings(max_examples=40, deadline=None)
@given(counts=sizes, strategy=strategies | st.builds(AllTrain), seed=st.integers(0, 2**31))
def test_every_patient_has_one_role_in_every_fold(counts: list[int], strategy: Strategy, seed: int) -> None:
    patients, strata = cohort(counts)
    split = strategy(patients, strata, NONE, seed)
    for fold in split.folds:
        members = [split.patients(fold, role) for role in ("train", "select", "report")]
        assert sorted(chain.from_iterable(members)) == patients
        assert members[0]
        assert members[1]
        assert bool(members[2]) == (not isinstance(strategy, AllTrain))


@settings(max_examples=25, deadline=None)
@given(counts=sizes, strategy=strategies, seed=st.integers(0, 2**31))
def test_split_depends_on_the_seed_not_the_order_of_patients(counts: list[int], strategy: Strategy, seed: int) -> None:
    patients, strata = cohort(counts)
    order = np.random.default_rng(seed).permutation(len(patients))
    turned = strategy([patients[place] for place in order], strata[order], NONE, seed)
    assert turned.digest() == strategy(patients, strata, NONE, seed).digest()


@settings(max_examples=25, deadline=None)
@given(counts=sizes, folds=st.integers(2, 8), repeats=st.integers(1, 3), seed=st.integers(0, 2**31))
def test_k_fold_reports_each_patient_once_per_repeat_stratified(
    counts: list[int], folds: int, repeats: int, seed: int
) -> None:
    patients, strata = cohort(counts)
    split = KFold(folds, repeats=repeats)(patients, strata, NONE, seed)
    assert split.folds == list(range(folds * repeats))
    for repeat in range(repeats):
        reported = [split.patients(repeat * folds + part, "report") for part in range(folds)]
        assert sorted(chain.from_iterable(reported)) == patients
    for fold in split.folds:
        for count, share in zip(counts, class_counts(split, fold, "report", patients, strata), strict=True):
            assert math.floor(count / folds) <= share <= math.ceil(count / folds)


@settings(max_examples=25, deadline=None)
@given(counts=sizes, report=st.floats(0.15, 0.5), select=st.floats(0.2, 0.5), seed=st.integers(0, 2**31))
def test_hold_out_is_stratified_to_within_one_patient(
    counts: list[int], report: float, select: float, seed: int
) -> None:
    patients, strata = cohort(counts)
    split = HoldOut(report, select)(patients, strata, NONE, seed)
    held = class_counts(split, 0, "report", patients, strata)
    reported = sum(held) / len(patients)
    assert sum(held) == math.ceil(report * len(patients))
    rest = [count - share for count, share in zip(counts, held, strict=True)]
    chosen = class_counts(split, 0, "select", patients, strata)
    for count, share, left, selecting in zip(counts, held, rest, chosen, strict=True):
        assert abs(share - reported * count) <= 1
        assert abs(selecting - sum(chosen) / sum(rest) * left) <= 1


def test_another_seed_or_repeat_gives_another_split() -> None:
    patients, strata = cohort([40, 20])
    assert KFold()(patients, strata, NONE, 0).digest() != KFold()(patients, strata, NONE, 1).digest()
    split = KFold(2, repeats=2)(patients, strata, NONE, 0)
    assert split.patients(0, "report") not in (split.patients(2, "report"), split.patients(3, "report"))
    # Further repeats leave the first one unchanged.
    first = split.table[split.table["fold"] < 2].reset_index(drop=True)
    pd.testing.assert_frame_equal(first, KFold(2)(patients, strata, NONE, 0).table)


@pytest.mark.parametrize(
    ("strategy", "counts", "reason"),
    [
        (KFold(1), [9, 9], "split.folds is 1"),
        (KFold(repeats=0), [9, 9], "split.repeats 0"),
        (KFold(5), [30, 3], "class 1 has 3 patients, expected at least 5 for 5 folds"),
        (KFold(2), [], "the cohort has 0 patients"),
        (KFold(select=0.0), [9, 9], "split.select is 0.0, expected a share between 0 and 1"),
        (HoldOut(report=1.0), [9, 9], "split.report is 1.0"),
        (HoldOut(select=-0.2), [9, 9], "split.select is -0.2"),
        (HoldOut(), [9, 1], "10 patients cannot be held out by class"),
        (HoldOut(), [], "0 patients cannot be held out"),
        (AllTrain(1.5), [9, 9], "split.select is 1.5"),
        (AllTrain(), [1], "1 patients are left for training"),
        (Fixed(), [9, 9], "from one place"),
        (Fixed(column="split", file="split.csv"), [9, 9], "from one place"),
        (Fixed(column="split", select=1.0), [9, 9], "split.select is 1.0"),
    ],
)
def test_invalid_splits_are_refused(strategy: Strategy, counts: list[int], reason: str) -> None:
    patients, strata = cohort(counts) if counts else ([], np.empty(0, int))
    with pytest.raises(SplitError, match=reason) as raised:
        strategy(patients, strata, NONE, 0)
    assert "\n" not in str(raised.value)


def test_duplicate_patients_and_mismatched_strata_are_refused() -> None:
    with pytest.raises(SplitError, match="1 patients are there twice: 'a'"):
        KFold(2)(["a", "b", "a", "c"], np.zeros(4, int), NONE, 0)
    with pytest.raises(SplitError, match=r"3 patients have strata of shape \(4,\)"):
        KFold(2)(["a", "b", "c"], np.zeros(4, int), NONE, 0)


def test_class_too_small_to_stratify_selection_gives_a_warning() -> None:
    patients, strata = cohort([20, 2])
    split = KFold(2)(patients, strata, NONE, 0)
    assert [len(split.patients(fold, "select")) for fold in split.folds] == [2, 2]
    assert len(split.findings) == 2
    assert split.findings[0].line.startswith("which of 11 patients select is chosen without regard to class")


def roles_table(**roles: str) -> pd.DataFrame:
    rows = [(patient, role) for patient, words in roles.items() for role in words.split()]
    return pd.DataFrame(rows, columns=["patient", "split"], dtype=str)


def test_role_column_accepts_the_usual_words() -> None:
    columns = roles_table(a="train", b="Training", c="VAL", d="tune", e="test", f="report report")
    split = Fixed(column="split")(list("abcdef"), np.zeros(6, int), columns, 0)
    assert [split.patients(0, role) for role in ("train", "select", "report")] == [["a", "b"], ["c", "d"], ["e", "f"]]


def test_role_column_ignores_patients_outside_the_cohort() -> None:
    columns = roles_table(a="train", b="val", x="nowhere")
    assert Fixed(column="split")(["a", "b"], np.zeros(2, int), columns, 0).patients(0, "train") == ["a"]


def test_role_column_error_names_patients_on_two_sides() -> None:
    columns = roles_table(a="train", b="train test", c="test")
    with pytest.raises(SplitError, match="1 patients stand on two sides of one fold: 'b'"):
        Fixed(column="split")(list("abc"), np.zeros(3, int), columns, 0)


def test_patients_without_a_role_are_counted_in_the_error() -> None:
    with pytest.raises(SplitError, match="column 'split' gives 2 patients no role: 'b', 'c'"):
        Fixed(column="split")(list("abc"), np.zeros(3, int), roles_table(a="train", b="NA"), 0)
    with pytest.raises(SplitError, match="no column 'fold', it has patient, split"):
        Fixed(column="fold")(list("abc"), np.zeros(3, int), roles_table(a="train", b="NA"), 0)


def test_missing_select_role_is_taken_from_training_patients() -> None:
    patients, strata = cohort([40, 20])
    columns = pd.DataFrame({"patient": patients, "split": np.where(np.arange(60) < 45, "train", "test")})
    split = Fixed(column="split", select=0.2)(patients, strata, columns, 0)
    assert split.patients(0, "report") == patients[45:]
    chosen = class_counts(split, 0, "select", patients, strata)
    assert sum(chosen) == 9
    assert abs(chosen[1] - 0.2 * (strata[:45] == 1).sum()) <= 1
    assert Fixed(column="split")(patients, strata, columns, 0).digest() == split.digest()
    assert Fixed(column="split")(patients, strata, columns, 1).digest() != split.digest()


def test_stored_split_can_be_reused(tmp_path: Path) -> None:
    patients, strata = cohort([20, 20])
    split = KFold(3, repeats=2)(patients, strata, NONE, 0)
    split.write(tmp_path / "split.csv")
    again = Fixed(file=str(tmp_path / "split.csv"))(patients, strata, NONE, 99)
    assert again.digest() == split.digest()
    with pytest.raises(SplitError, match="names 1 patients that are not in the cohort: 'P0000'"):
        Fixed(file=str(tmp_path / "split.csv"))(patients[1:], strata[1:], NONE, 0)


@settings(max_examples=20, deadline=None)
@given(counts=sizes, folds=st.integers(2, 4), inner=st.integers(2, 3), seed=st.integers(0, 2**31))
def test_nested_folds_share_report_patients_and_rotate_selection(
    counts: list[int], folds: int, inner: int, seed: int
) -> None:
    patients, strata = cohort(counts)
    split = Nested(folds, inner)(patients, strata, NONE, seed)
    assert split.folds == list(range(folds * inner))
    reported = []
    for part in range(folds):
        folds_of_part = [part * inner + turn for turn in range(inner)]
        report = split.patients(folds_of_part[0], "report")
        assert all(split.patients(fold, "report") == report for fold in folds_of_part)
        chosen = [patient for fold in folds_of_part for patient in split.patients(fold, "select")]
        assert sorted([*chosen, *report]) == patients, "each patient outside the part selects in one of its folds"
        reported += report
    assert sorted(reported) == patients
    plain = KFold(folds)(patients, strata, NONE, seed)
    assert split.patients(0, "report") == plain.patients(0, "report"), "the outer parts are those of a k-fold"


def test_invalid_nested_splits_are_refused() -> None:
    patients, strata = cohort([30, 6])
    with pytest.raises(SplitError, match=r"split\.inner is 1, expected at least 2"):
        Nested(3, 1)(patients, strata, NONE, 0)
    with pytest.raises(SplitError, match="outside part 0, class 1 has 4 patients, expected at least 5 for 5 folds"):
        Nested(3, 5)(patients, strata, NONE, 0)
