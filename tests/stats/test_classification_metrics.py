"""Weighted classification metrics against scikit-learn and against rows that are really repeated."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, balanced_accuracy_score, recall_score, roc_auc_score

from mil.stats import auroc, average_precision, balanced_accuracy, macro_auroc, sensitivity, specificity
from mil.stats.classification_metrics import against_rest, levelled

CLASSES = 3
few = settings(deadline=None, max_examples=60)


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Scores `(p, 3)` with many ties, labels `(p,)` that hold every class, multiplicities `(r, p)`."""
    seed, patients = draw(st.integers(0, 2**32 - 1)), draw(st.integers(CLASSES, 40))
    rng = np.random.default_rng(seed)
    scores = rng.integers(-3, 4, (patients, CLASSES)) / 2
    label = rng.permutation(np.append(np.arange(CLASSES), rng.integers(0, CLASSES, patients - CLASSES)))
    return scores, label, rng.integers(0, 4, (5, patients)).astype(float)


@few
@given(cohorts())
def test_values_are_those_of_scikit_learn(cohort: Any) -> None:
    scores, label, _ = cohort
    predicted, positive, called = scores.argmax(1), label == 1, scores[:, 0] > 0
    areas = [roc_auc_score(label == k, scores[:, k]) for k in range(CLASSES)]
    assert auroc(scores[:, 0], positive) == pytest.approx(roc_auc_score(positive, scores[:, 0]), abs=1e-12)
    assert macro_auroc(scores, label) == pytest.approx(np.mean(areas), abs=1e-12)
    expected = average_precision_score(positive, scores[:, 0])
    assert average_precision(scores[:, 0], positive) == pytest.approx(expected, abs=1e-12)
    expected = balanced_accuracy_score(label, predicted)
    assert balanced_accuracy(predicted, label, CLASSES) == pytest.approx(expected, abs=1e-12)
    assert sensitivity(called, positive) == pytest.approx(recall_score(positive, called), abs=1e-12)
    assert specificity(called, positive) == pytest.approx(recall_score(~positive, ~called), abs=1e-12)


@few
@given(cohorts())
def test_a_whole_weight_is_that_many_copies_of_the_patient(cohort: Any) -> None:
    scores, label, weight = cohort
    metrics: dict[str, Callable[..., NDArray[np.float64]]] = {
        "auroc": lambda s, y, w=None: auroc(s[:, 0], y == 1, w),
        "precision": lambda s, y, w=None: average_precision(s[:, 0], y == 1, w),
        "macro": macro_auroc,
        "balanced": lambda s, y, w=None: balanced_accuracy(s.argmax(1), y, CLASSES, w),
        "sensitivity": lambda s, y, w=None: sensitivity(s[:, 0] > 0, y == 1, w),
        "specificity": lambda s, y, w=None: specificity(s[:, 0] > 0, y == 1, w),
    }
    for name, metric in metrics.items():
        copies = [np.repeat(np.arange(len(label)), row.astype(int)) for row in weight]
        repeated = [metric(scores[rows], label[rows]) for rows in copies]
        np.testing.assert_allclose(metric(scores, label, weight), repeated, atol=1e-12, err_msg=name)


@few
@given(cohorts(), st.floats(0.1, 10))
def test_only_the_order_of_scores_counts(cohort: Any, scale: float) -> None:
    scores, label, weight = cohort
    bent = np.sign(scores) * np.abs(scores) ** 3 * scale - 7
    np.testing.assert_allclose(macro_auroc(bent, label, weight), macro_auroc(scores, label, weight), atol=1e-12)


@few
@given(cohorts())
def test_turned_scores_or_swapped_classes_give_the_complement(cohort: Any) -> None:
    scores, label, weight = cohort
    score, positive = scores[:, 0], label == 1
    area = auroc(score, positive, weight)
    np.testing.assert_allclose(auroc(-score, positive, weight), 1 - area, atol=1e-12)
    np.testing.assert_allclose(auroc(score, ~positive, weight), 1 - area, atol=1e-12)


def test_shapes_are_a_scalar_without_weights_and_a_value_a_resample_with_them() -> None:
    score, positive, weight = np.arange(4.0), np.array([0, 1, 0, 1]), np.ones((7, 4))
    for metric in (auroc, average_precision, sensitivity, specificity):
        assert metric(score, positive).shape == ()
        assert metric(score, positive, weight).shape == (7,)
    assert macro_auroc(np.eye(4), np.arange(4)).shape == balanced_accuracy(positive, positive, 2).shape == ()
    assert balanced_accuracy(positive, positive, 2, weight).shape == (7,)


def test_what_the_patients_do_not_define_is_nan_without_a_warning() -> None:
    score, positive = np.array([0.1, 0.7, 0.3]), np.array([True, True, False])
    weight = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    assert np.isnan(auroc(score, positive, weight)).tolist() == [False, True, True]
    assert np.isnan(average_precision(score, positive, weight)).tolist() == [False, False, True]
    assert np.isnan(specificity(score > 0.5, positive, weight)).tolist() == [False, True, False]
    assert np.isnan(macro_auroc(np.eye(3), np.array([0, 1, 1])))
    assert np.isnan(balanced_accuracy(np.array([0, 1, 1]), np.array([0, 1, 1]), 3))
    assert np.isnan(auroc([], []))
    assert np.isnan(average_precision([], []))


def test_a_diverged_model_has_no_area() -> None:
    assert np.isnan(auroc([0.2, np.nan, 0.4], [0, 1, 1]))
    assert np.isnan(average_precision([0.2, np.nan, 0.4], [0, 1, 1]))
    assert auroc([-np.inf, np.inf, np.inf], [0, 1, 0]) == 0.75


@few
@given(cohorts())
def test_weights_may_lie_in_memory_either_way(cohort: Any) -> None:
    scores, label, weight = cohort
    turned = np.asfortranarray(weight)
    for metric in (auroc, average_precision):
        result = metric(scores[:, 0], label == 1, turned)
        np.testing.assert_array_equal(result, metric(scores[:, 0], label == 1, weight))


def test_a_score_that_knows_nothing_has_the_prevalence_as_its_precision() -> None:
    assert average_precision(np.ones(10), np.arange(10) < 3) == 0.3
    assert average_precision([3.0, 2, 1], [1, 1, 1]) == 1


def test_equal_up_to_rounding_is_equal_and_nothing_else_is() -> None:
    far = np.array([-np.inf, -690.0, -1e-3, 0.0, 1e-3, 36.0, 36.0 + 1e-6, np.inf])
    assert levelled(far[:, None]).squeeze(1).tolist() == list(range(8))
    near = np.array([0.3 * (1 + 2**-52), 0.3, 0.2, 0.1 + 0.2, np.nan])
    result = levelled(near[:, None]).squeeze(1)
    assert result[0] == result[1] == result[3] > result[2]
    assert np.isnan(result[4])


def test_odds_against_the_rest_keep_the_order_of_probabilities_at_both_ends() -> None:
    share = np.array([0.0, 1e-300, 1e-20, 0.5, 0.75, 1.0])
    with np.errstate(divide="ignore"):
        result = against_rest(np.log(share))
    assert (np.diff(result) > 0).all()
    assert result[3:5] == pytest.approx([0, np.log(3)], abs=1e-12)
    certain = against_rest(np.array([-1e-12, -1e-17, -1e-30]))
    assert (np.diff(certain) > 1).all()
