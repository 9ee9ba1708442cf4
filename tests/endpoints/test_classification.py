"""Binary and multiclass endpoints against torch and scikit-learn: labels, losses, scores and probabilities."""

import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score
from torch import Tensor

from mil.endpoints.classification import Binary, Classes, Multiclass
from mil.errors import CohortError, ConfigError, PredictionsError

few = settings(deadline=None, max_examples=25)
WORDS = ("wild", "mutant", "unclear")
seeds = st.integers(0, 2**32 - 1)


def label_table(labels: list[Any]) -> pd.DataFrame:
    index = pd.Index([f"p{row}" for row in range(len(labels))], name="patient")
    return pd.DataFrame({"label": pd.Series(labels, index=index, dtype=object)})


def patients(seed: int, classes: int, count: int = 60) -> tuple[Tensor, Tensor]:
    """Return informative logits `(p, c)`, with c = 1 for two classes, and labels `(p,)` in which every class occurs."""
    rng = np.random.default_rng(seed)
    label = np.concatenate([np.arange(classes), rng.integers(0, classes, count - classes) // rng.integers(1, 3)])
    logits = rng.normal(size=(count, classes)) + np.eye(classes)[label]
    width = logits if classes > 2 else logits[:, 1:] - logits[:, :1]
    return torch.tensor(width), torch.tensor(label) if classes > 2 else torch.tensor(label).float()


def endpoint(classes: int) -> Classes:
    return Binary() if classes == 2 else Multiclass(classes=[str(name) for name in range(classes)])


def probabilities(judge: Classes, logits: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return probabilities `(p, k)`, with a column for every class as scikit-learn expects."""
    columns = torch.stack(list(judge.decode(logits).values()), 1).numpy()
    return np.hstack([1 - columns, columns]) if columns.shape[1] == 1 else columns


def test_labels_become_indices_of_classes() -> None:
    assert Binary(classes=("wild", "mutant")).encode(label_table(["mutant", "wild", " mutant "])).tolist() == [1, 0, 1]
    places = Multiclass(classes=WORDS).encode(label_table(["unclear", "wild", "mutant"]))
    assert places.tolist() == [2, 0, 1]
    assert places.dtype == torch.int64


@pytest.mark.parametrize("label", ["1", "1.0", "01", " 1 ", 1, 1.0, np.int64(1), np.float64(1)])
@pytest.mark.parametrize("declared", [("0", "1"), ("0.0", "1.0"), (0, 1)])
def test_spellings_of_the_same_number_are_one_class(label: object, declared: Any) -> None:
    assert Binary(classes=declared).encode(label_table([label, "0"])).tolist() == [1, 0]


@pytest.mark.parametrize("label", ["2", "", "yes", "nan", float("nan"), None, np.float64(0.5), "Mutant"])
@pytest.mark.parametrize("judge", [Binary(), Multiclass(classes=WORDS)])
def test_unknown_label_error_names_row_and_classes(label: object, judge: Classes) -> None:
    with pytest.raises(CohortError) as error:
        judge.encode(label_table([judge.classes[0], label, judge.classes[1]]))
    class_names = ", ".join(judge.classes)
    assert str(error.value) == f"column label, row of p1: label {str(label)!r}, expected one of {class_names}"


@pytest.mark.parametrize("classes", [("a",), ("a", "a"), ("1", "1.0"), ("a", " a"), ()])
def test_fewer_than_two_distinct_classes_are_refused(classes: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="expected two or more different ones"):
        Multiclass(classes=classes)


def test_binary_refuses_a_third_class() -> None:
    with pytest.raises(ConfigError, match="endpoint label: 3 classes, a binary endpoint has two"):
        Binary(classes=WORDS)


def test_number_of_logits_follows_from_classes() -> None:
    assert Binary().out_dim == 1
    assert Multiclass(classes=WORDS).out_dim == 3
    assert Binary(column="msi").columns == ("msi",)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("balance", [False, True])
@few
@given(seed=seeds)
def test_loss_matches_scikit_learn_log_loss(classes: int, balance: bool, seed: int) -> None:
    judge, (logits, target) = endpoint(classes), patients(seed, classes)
    judge.fit(target, balance)
    weight = None if judge.class_weight is None else np.array(judge.class_weight)[target.long()]
    expected = log_loss(target, probabilities(judge, logits), sample_weight=weight)
    assert judge.loss(logits, target).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("classes", [2, 3])
def test_class_weights_come_from_the_cohort_not_the_batch(classes: int) -> None:
    judge, (logits, target) = endpoint(classes), patients(0, classes)
    judge.fit(target, balance=True)
    halves = [judge.loss(logits[rows], target[rows]) for rows in (slice(30), slice(30, 60))]
    torch.testing.assert_close(sum(halves) / 2, judge.loss(logits, target))


@pytest.mark.parametrize("classes", [2, 4])
@few
@given(seed=seeds)
def test_balanced_class_weights_are_equal_and_sum_to_patient_count(classes: int, seed: int) -> None:
    judge, (_, target) = endpoint(classes), patients(seed, classes)
    judge.fit(target, balance=True)
    assert judge.class_weight is not None
    totals = np.bincount(target.long(), np.array(judge.class_weight)[target.long()])
    np.testing.assert_allclose(totals, len(target) / classes, rtol=1e-12)


def test_class_without_training_patients_has_weight_zero() -> None:
    judge = Multiclass(classes=WORDS)
    judge.fit(torch.tensor([0, 0, 0, 2]), balance=True)
    assert judge.class_weight == [pytest.approx(2 / 3), 0, 2]


@pytest.mark.parametrize("judge", [Binary(), Multiclass(classes=WORDS)])
def test_training_patients_of_one_class_are_refused(judge: Classes) -> None:
    with pytest.raises(
        CohortError, match=f"column label: all 3 training patients are '{judge.classes[1]}', expected two"
    ):
        judge.fit(torch.ones(3))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_loss_and_gradient_are_finite_in_any_precision(classes: int, dtype: torch.dtype) -> None:
    judge, (logits, target) = endpoint(classes), patients(0, classes)
    judge.fit(target, balance=True)
    extreme = (80 * logits).to(dtype).requires_grad_()
    loss = judge.loss(extreme, target)
    (gradient,) = torch.autograd.grad(loss, extreme)
    assert loss.dtype == gradient.dtype == dtype
    assert loss.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("classes", [2, 3])
def test_gradients_match_finite_differences(classes: int) -> None:
    judge, (logits, target) = endpoint(classes), patients(0, classes, 8)
    judge.fit(target, balance=True)
    assert torch.autograd.gradcheck(lambda values: judge.loss(values, target), (logits.requires_grad_(),))


@pytest.mark.parametrize("classes", [2, 3, 5])
@few
@given(seed=seeds)
def test_scores_match_scikit_learn(classes: int, seed: int) -> None:
    judge, (logits, target) = endpoint(classes), patients(seed, classes)
    shares = probabilities(judge, logits)
    areas = roc_auc_score(target, shares[:, 1] if classes == 2 else shares, multi_class="ovr")
    scores = judge.score(logits, target)
    assert scores[judge.metric] == pytest.approx(areas, abs=1e-12)
    assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(target, shares.argmax(1)), abs=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
@few
@given(seed=seeds)
def test_decoded_predictions_score_like_the_logits(classes: int, seed: int) -> None:
    judge, (logits, target) = endpoint(classes), patients(seed, classes)
    weight = np.random.default_rng(seed).integers(1, 3, (3, len(target))).astype(float)
    again = judge.recode(pd.DataFrame(judge.decode(logits)))
    for name, values in judge.score(logits, target, weight).items():
        assert values.shape == (3,)
        np.testing.assert_allclose(judge.score(again, target, weight)[name], values, atol=1e-12)


@few
@given(seed=seeds)
def test_multiclass_scores_ignore_a_shift_of_a_patients_logits(seed: int) -> None:
    judge, (logits, target) = endpoint(3), patients(seed, 3)
    shift = torch.tensor(np.random.default_rng(seed).normal(size=(60, 1)) * 5)
    for name, value in judge.score(logits, target).items():
        assert judge.score(logits + shift, target)[name] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_scores_are_nan_for_patients_of_one_class(classes: int) -> None:
    logits, _ = patients(0, classes)
    scores = endpoint(classes).score(logits, torch.ones(60).long())
    assert np.isnan([float(value) for value in scores.values()]).all()


@few
@given(st.lists(st.floats(-600, 15), min_size=1, max_size=20))
def test_binary_logits_survive_a_csv_round_trip(values: list[float]) -> None:
    """Above 16, doubles near one no longer separate logits to 1e-9."""
    logits = torch.tensor(values, dtype=torch.float64)[:, None]
    columns = Binary(classes=("wild", "mutant")).decode(logits)
    assert list(columns) == ["p_mutant"]
    torch.testing.assert_close(
        Binary(classes=("wild", "mutant")).recode(read_back(columns)), logits, rtol=1e-12, atol=1e-9
    )


@few
@given(st.lists(st.tuples(*[st.floats(-300, 300)] * 3), min_size=1, max_size=10))
def test_multiclass_logits_survive_a_csv_round_trip_up_to_a_shift(values: list[tuple[float, ...]]) -> None:
    logits = torch.tensor(values, dtype=torch.float64)
    columns = Multiclass(classes=WORDS).decode(logits)
    assert list(columns) == ["p_wild", "p_mutant", "p_unclear"]
    torch.testing.assert_close(sum(columns.values()), torch.ones(len(logits), dtype=torch.float64))
    again = Multiclass(classes=WORDS).recode(read_back(columns))
    torch.testing.assert_close(again, logits.log_softmax(1), rtol=1e-12, atol=1e-9)


def read_back(columns: dict[str, Tensor]) -> pd.DataFrame:
    """Return the columns after a round trip through a CSV file, read as `mil evaluate` does."""
    text = pd.DataFrame(columns).to_csv(index=False)
    return pd.read_csv(io.StringIO(text), float_precision="round_trip")


@pytest.mark.parametrize("certain", [0.0, 1.0])
def test_probabilities_of_zero_and_one_become_finite_logits(certain: float) -> None:
    for judge, names in ((Binary(), ["p_1"]), (Multiclass(), ["p_0", "p_1", "p_2"])):
        assert judge.recode(pd.DataFrame({name: [certain, 0.5] for name in names})).isfinite().all()


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_values_outside_zero_to_one_are_refused(wrong: float) -> None:
    with pytest.raises(PredictionsError, match=r"predictions: 1 rows of p_1 outside \[0, 1\]"):
        Binary().recode(pd.DataFrame({"p_1": [0.5, wrong]}))


def test_missing_probability_column_error_names_those_present() -> None:
    with pytest.raises(PredictionsError, match=r"no column 'p_2', found p_0, p_1$"):
        Multiclass().recode(pd.DataFrame({"p_0": [0.5], "p_1": [0.5]}))


@pytest.mark.parametrize("balance", [True, False])
def test_class_weights_survive_json(balance: bool) -> None:
    judge, restored, (logits, target) = endpoint(3), endpoint(3), patients(0, 3)
    judge.fit(target, balance)
    restored.fit(target, not balance)
    restored.load_state(json.loads(json.dumps(judge.state(), allow_nan=False)))
    assert restored.class_weight == judge.class_weight
    assert torch.equal(restored.loss(logits, target), judge.loss(logits, target))


def test_patients_are_counted_and_stratified_by_class() -> None:
    target = torch.tensor([2, 0, 0])
    assert Multiclass(classes=WORDS).counts(target) == {"n": 3, "wild": 2, "mutant": 0, "unclear": 1}
    assert Multiclass(classes=WORDS).strata(target).tolist() == [2, 0, 0]
    assert Binary().counts(torch.tensor([1.0, 0, 1])) == {"n": 3, "0": 1, "1": 2}
    assert Binary().strata(torch.tensor([1.0, 0, 1])).tolist() == [1, 0, 1]


def test_ties_in_probabilities_survive_the_round_trip_to_logits() -> None:
    rng = np.random.default_rng(0)
    shares = rng.multinomial(10, [0.3, 0.3, 0.4], 300) / 10  # 0.2 + 0.5 + 0.3 and 0.2 + 0.6 + 0.2 differ as doubles
    label = np.array([rng.choice(3, p=row) for row in shares])
    predictions = pd.DataFrame(shares, columns=["p_a", "p_b", "p_c"]).assign(label=np.array(list("abc"))[label])
    endpoint = Multiclass("label", list("abc"))
    score = endpoint.score(endpoint.recode(predictions), endpoint.encode(predictions))["macro_auroc"]
    expected = np.mean([roc_auc_score(label == at, shares[:, at]) for at in range(3)])
    assert float(score) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("classes", [("no", "yes"), (False, True), ("FALSE", "TRUE"), ("off", "True")])
@pytest.mark.parametrize("words", [["no", "YES"], ["False", "True"], ["FALSE", "TRUE"], [False, True], ["off", "On"]])
def test_words_of_truth_match_declared_classes(classes: tuple[Any, ...], words: list[Any]) -> None:
    assert Binary("label", classes).labels(label_table(words)).tolist() == [0, 1]


def test_words_of_truth_that_fit_no_class_or_two_are_refused() -> None:
    for classes in (("negative", "yes"), ("no", "false", "yes"), ("0", "1")):
        with pytest.raises(CohortError, match="label 'FALSE'"):
            Multiclass("label", classes).labels(label_table(["FALSE"]))
    assert Multiclass("label", ("no", "false", "yes")).labels(label_table(["no", "false", "TRUE"])).tolist() == [
        0,
        1,
        2,
    ]
