"""Several labels per patient, some of them unknown: unknown labels affect no loss, weight or score."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score
from torch import Tensor

from mil.endpoints.classification import Binary
from mil.endpoints.multilabel import Multilabel
from mil.errors import CohortError, ConfigError, PredictionsError

few = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**32 - 1)
NAMES = ("MSI", "EBV", "HER2")
PAIRS = [["MSS", "MSI-H"], ["negative", "positive"], ["0", "1"]]


def endpoint(**options: Any) -> Multilabel:
    return Multilabel(NAMES, PAIRS, **options)


def patients(seed: int, count: int = 40, missing: float = 0.3) -> tuple[Tensor, Tensor]:
    """Return logits and targets `(p, 3)`; both classes of each label occur, and each patient has a known label."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, (count, 3)).astype(float)
    target[:2] = [[0, 0, 0], [1, 1, 1]]
    logits = rng.normal(size=(count, 3)) + target
    unknown = rng.random((count, 3)) < missing
    unknown[:2], unknown[:, 0] = False, unknown[:, 0] & ~unknown.all(1)
    return torch.tensor(logits), torch.tensor(np.where(unknown, np.nan, target))


def test_class_names_become_numbers_and_empty_cells_nan() -> None:
    table = pd.DataFrame({"MSI": ["MSI-H", "", None], "EBV": ["negative", "positive", float("nan")], "HER2": [1, 0, 1]})
    np.testing.assert_array_equal(endpoint().encode(table), [[1, 0, 1], [np.nan, 1, 0], [np.nan, np.nan, 1]])


def test_one_pair_of_class_names_applies_to_every_label() -> None:
    assert Multilabel(["a", "b"]).words == (("0", "1"), ("0", "1"))
    assert Multilabel(["a", "b"], ["no", "yes"]).words == (("no", "yes"), ("no", "yes"))


def test_unknown_class_and_unlabelled_patient_errors_name_the_row() -> None:
    table = pd.DataFrame({"MSI": ["MSS", "high"], "EBV": ["", ""], "HER2": ["", ""]}, index=["p0", "p1"])
    with pytest.raises(CohortError, match=r"^column MSI, row of p1: label 'high', expected one of MSS, MSI-H$"):
        endpoint().encode(table)
    with pytest.raises(CohortError, match=r"^columns MSI, EBV, HER2, row of p1: no label, expected one or more$"):
        endpoint().encode(table.assign(MSI=["MSS", ""]))


@pytest.mark.parametrize(
    "options",
    [
        {"columns": []},
        {"columns": ["a", "a"]},
        {"columns": ["a", "b"], "classes": [["0", "1"]]},
        {"columns": ["a"], "classes": ["1", "1.0"]},
        {"columns": ["a"], "classes": [["0", "1", "2"]]},
    ],
)
def test_invalid_columns_and_classes_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^endpoint.*: .*expected"):
        Multilabel(**options)


@few
@given(seeds, st.booleans())
def test_loss_matches_scikit_learn_over_known_labels(seed: int, balance: bool) -> None:
    judge, (logits, target) = endpoint(), patients(seed)
    judge.fit(target, balance)
    labelled = ~target.isnan().numpy()
    weight = np.ones((len(target), 3))
    if balance:
        assert judge.class_weight is not None
        for at, pair in enumerate(judge.class_weight):
            weight[labelled[:, at], at] = np.array(pair)[target[labelled[:, at], at].long()]
    total = log_loss(
        target.numpy()[labelled], logits.sigmoid().numpy()[labelled], sample_weight=weight[labelled], normalize=False
    )
    assert judge.loss(logits, target).item() == pytest.approx(total / labelled.sum(), rel=1e-10)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "asymmetric"])
@few
@given(seed=seeds)
def test_logits_of_unknown_labels_have_no_effect(loss: str, seed: int) -> None:
    judge, (logits, target) = endpoint(loss=loss, smoothing=0.1), patients(seed)
    judge.fit(target, balance=True)
    unknown = target.isnan()
    moved = torch.where(unknown, 1000 * logits, logits).requires_grad_()
    loss_value = judge.loss(moved, target)
    (gradient,) = torch.autograd.grad(loss_value, moved)
    torch.testing.assert_close(loss_value, judge.loss(logits, target))
    assert (gradient[unknown] == 0).all()
    assert gradient.isfinite().all()
    before, after = judge.score(logits, target), judge.score(moved.detach(), target)
    assert before == after


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "asymmetric"])
def test_gradients_match_finite_differences(loss: str) -> None:
    judge, (logits, target) = endpoint(loss=loss), patients(1, 8)
    judge.fit(target, balance=True)
    assert torch.autograd.gradcheck(lambda values: judge.loss(values, target), (logits.requires_grad_(),))


def test_single_label_equals_binary() -> None:
    multilabel, binary, (logits, target) = Multilabel(["label"]), Binary(), patients(0, missing=0)
    logits, column = logits[:, :1], target[:, :1]
    multilabel.fit(column, balance=True)
    binary.fit(column[:, 0], balance=True)
    torch.testing.assert_close(multilabel.loss(logits, column), binary.loss(logits, column[:, 0]))
    assert multilabel.score(logits, column)["auroc"] == binary.score(logits, column[:, 0])["auroc"]


@few
@given(seeds)
def test_scores_match_scikit_learn_over_known_labels(seed: int) -> None:
    judge, (logits, target) = endpoint(), patients(seed)
    scores, areas = judge.score(logits, target), []
    for at, name in enumerate(NAMES):
        labelled = ~target[:, at].isnan()
        areas.append(roc_auc_score(target[labelled, at], logits[labelled, at]))
        assert scores[f"auroc_{name}"] == pytest.approx(areas[-1], abs=1e-12)
    assert scores["auroc"] == pytest.approx(np.mean(areas), abs=1e-12)


@few
@given(seeds)
def test_integer_weights_equal_repeated_patients(seed: int) -> None:
    judge, (logits, target) = endpoint(), patients(seed)
    weight = np.random.default_rng(seed).integers(0, 4, (3, len(target))).astype(float)
    scores = judge.score(logits, target, weight)
    for row, multiplicities in enumerate(weight):
        rows = np.repeat(np.arange(len(target)), multiplicities.astype(int))
        for name, value in judge.score(logits[rows], target[rows]).items():
            np.testing.assert_allclose(scores[name][row], value, atol=1e-12)


def test_decoded_predictions_recode_to_the_logits() -> None:
    judge, (logits, _) = endpoint(), patients(0)
    columns = judge.decode(logits)
    assert list(columns) == ["p_MSI", "p_EBV", "p_HER2"]
    torch.testing.assert_close(judge.recode(pd.DataFrame(columns)), logits, rtol=1e-9, atol=1e-12)
    with pytest.raises(PredictionsError, match="no column 'p_EBV', found p_MSI"):
        judge.recode(pd.DataFrame({"p_MSI": [0.5]}))


def test_balanced_classes_of_each_label_weigh_the_same() -> None:
    judge, (_, target) = endpoint(), patients(3)
    judge.fit(target, balance=True)
    assert judge.class_weight is not None
    for (negative, positive), labels in zip(judge.class_weight, target.unbind(1), strict=True):
        present = labels[~labels.isnan()]
        assert negative * (present == 0).sum() == pytest.approx(len(present) / 2)
        assert positive * (present == 1).sum() == pytest.approx(len(present) / 2)
    restored = endpoint()
    restored.load_state(json.loads(json.dumps(judge.state())))
    assert restored.class_weight == judge.class_weight


def test_label_with_one_class_among_training_patients_is_refused() -> None:
    target = torch.tensor([[0, 1.0, 1], [1, float("nan"), 0], [1, 1, 0]])
    with pytest.raises(CohortError, match=r"^column EBV: 0 negative and 2 positive among 3 training patients"):
        endpoint().fit(target)


def test_batch_without_known_labels_has_zero_loss_and_gradient() -> None:
    logits = torch.ones(2, 3, requires_grad=True)
    loss = endpoint().loss(logits, torch.full((2, 3), torch.nan))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss == 0
    assert (gradient == 0).all()


def test_counts_give_positive_and_known_patients() -> None:
    target = torch.tensor([[1, 0, 1], [0, torch.nan, 1]])
    expected = {"n": 2, "MSI MSI-H": 1, "EBV known": 1, "EBV positive": 0, "HER2 1": 2}
    assert endpoint().counts(target) == expected


@few
@given(seeds, st.integers(1, 200))
def test_every_stratum_has_enough_patients_for_the_folds(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    strata = endpoint().strata(torch.tensor((rng.random((count, 3)) < [0.02, 0.5, 0.6]).astype(float)))
    _, amounts = np.unique(strata, return_counts=True)
    assert amounts.min() >= min(10, count)


def test_rare_label_has_its_own_stratum() -> None:
    target = torch.zeros(100, 3)
    target[:12, 0], target[:60, 1] = 1, 1
    assert np.bincount(endpoint().strata(target)).tolist() == [40, 12, 48]
