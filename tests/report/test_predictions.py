"""What a table of predictions must be, and the one line that says what it is not."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.survival import Cox
from mil.errors import PredictionsError
from mil.report.predictions import checked, oracle_folds, report_folds, same_patients

from .tables import binary, multiclass, survival

Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="role"), "no column 'role', found patient, fold, label, p_1"),
        (lambda t: t.drop(columns=["fold", "label"]), "no column 'fold', 'label'"),
        (lambda t: t[t["role"] != "report"], "none of 240 rows has role 'report'"),
        (lambda t: pd.concat([t, t.head(2)]), "2 rows repeat a patient of a fold, first 000 of fold 0"),
        (
            lambda t: pd.concat([t, t[t["role"] == "train"].head(2).assign(role="report")]),
            "2 rows repeat a patient of a fold",
        ),
        (lambda t: t.assign(p_1=t["p_1"].where(t.index > 2)), "3 of 360 values of p_1 are not finite"),
        (lambda t: t.assign(p_1="high"), "360 of 360 values of p_1 are not finite"),
        (lambda t: t.assign(role="test"), "role 'test', expected one of train, select, report"),
        (lambda t: t.assign(fold=t["fold"].where(t["fold"] > 0)), "120 rows without a fold"),
        (lambda t: t.assign(fold=t["fold"].map({0: "", 1: "1", 2: "2"})), "120 rows without a fold"),
    ],
)
def test_a_broken_table_is_refused_in_one_line(change: Change, message: str) -> None:
    with pytest.raises(PredictionsError, match=message) as caught:
        checked(change(binary()), Binary())
    assert "\n" not in str(caught.value)


def test_a_missing_score_is_refused_by_name() -> None:
    with pytest.raises(PredictionsError, match="'p_1'"):
        report_folds(checked(binary().drop(columns="p_1"), Binary()), Binary())


def test_only_reported_rows_are_read_and_their_order_does_not_matter() -> None:
    table = binary()
    folds = report_folds(checked(table, Binary()), Binary())
    shuffled = report_folds(checked(table.sample(frac=1, random_state=0), Binary()), Binary())
    assert [len(fold.target) for fold in folds] == [40, 40, 40]
    for fold, changed in zip(folds, shuffled, strict=True):
        assert fold.logits.equal(changed.logits)
        assert fold.patients is not None
        assert fold.patients.tolist() == sorted(fold.patients.tolist())
    rows = table[(table["fold"] == 1) & (table["role"] == "report")]
    np.testing.assert_allclose(np.sort(folds[1].logits.sigmoid().numpy()[:, 0]), np.sort(rows["p_1"]))


def test_numbers_written_as_words_and_folds_named_by_a_site_are_read() -> None:
    table = binary()
    words = table.assign(p_1=table["p_1"].map(repr), fold=table["fold"].map(lambda fold: f"site {fold}"))
    for fold, changed in zip(*(report_folds(checked(t, Binary()), Binary()) for t in (table, words)), strict=True):
        assert torch.allclose(fold.logits, changed.logits, rtol=1e-12)


def test_classes_are_strata_and_survival_has_none() -> None:
    (first, *_), (changed, *_) = (
        report_folds(checked(table, endpoint), endpoint)
        for table, endpoint in ((binary(), Binary()), (survival(), Cox()))
    )
    assert first.strata is not None
    assert first.strata.tolist() == first.target.tolist()
    assert changed.strata is None


def test_an_oracle_finds_its_patients_and_its_classes() -> None:
    endpoint = Multiclass(classes=("a", "b", "c"))
    folds = report_folds(checked(multiclass(), endpoint), endpoint)
    patients = [f"{at:03}" for at in range(90)]
    columns = {f"oracle_{name}": np.arange(90.0) + 100 * place for place, name in enumerate("abc")}
    oracle = pd.DataFrame({"patient": patients, **columns}).sample(frac=1, random_state=0)[::-1]
    for fold in oracle_folds(oracle[["oracle_c", "patient", "oracle_a", "oracle_b"]], folds, endpoint):
        assert fold.patients is not None
        expected = np.array([int(name) for name in fold.patients])[:, None] + [0, 100, 200]
        np.testing.assert_array_equal(fold.logits.numpy(), expected)


def test_an_oracle_may_have_a_row_for_each_slide_of_a_patient() -> None:
    folds = report_folds(checked(binary(), Binary()), Binary())
    patients = [f"{number:03}" for number in range(120)]
    oracle = pd.DataFrame({"patient": patients, "oracle": np.linspace(0.1, 0.9, 120)})
    per_slide = pd.concat([oracle, oracle.head(50)])
    for fold, expected in zip(
        oracle_folds(per_slide, folds, Binary()), oracle_folds(oracle, folds, Binary()), strict=True
    ):
        assert fold.logits.equal(expected.logits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="oracle"), "oracle: no column 'oracle', found patient"),
        (lambda t: t[t["patient"] != "003"], "oracle: no finite value for 1 of 40"),
        (lambda t: t.assign(oracle=np.nan), "oracle: no finite value for 40 of 40"),
    ],
)
def test_an_oracle_that_does_not_know_everybody_is_refused(change: Change, message: str) -> None:
    folds = report_folds(checked(binary(), Binary()), Binary())
    oracle = pd.DataFrame({"patient": [f"{at:03}" for at in range(120)], "oracle": 0.5})
    with pytest.raises(PredictionsError, match=message):
        oracle_folds(change(oracle), folds, Binary())


def test_models_are_compared_on_the_same_patients_only() -> None:
    folds, others = (report_folds(checked(table, Binary()), Binary()) for table in (binary(0), binary(1)))
    same_patients(folds, folds)
    with pytest.raises(PredictionsError, match=r"baseline: 120 reported rows in 3 folds, \d+ of them the model's"):
        same_patients(folds, others)
    with pytest.raises(PredictionsError, match="80 reported rows in 2 folds, 80 of them the model's, expected"):
        same_patients(folds, folds[:2])
