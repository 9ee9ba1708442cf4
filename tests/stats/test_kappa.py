"""Quadratic weighted kappa against scikit-learn and against rows that are really repeated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from mil.stats import quadratic_kappa

few = settings(deadline=None, max_examples=60)


@few
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(2, 6))
def test_kappa_is_scikit_learns_and_weights_are_copies(seed: int, count: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    label, called = rng.integers(0, classes, (2, count))
    label[:2], called[:2] = [0, 1], [1, 0]
    weight = rng.integers(0, 3, (4, count)).astype(float)
    weight[:, :2] += 1
    expected = cohen_kappa_score(label, called, labels=range(classes), weights="quadratic")
    assert quadratic_kappa(called, label, classes) == pytest.approx(expected, abs=1e-12)
    copies = [np.repeat(np.arange(count), row.astype(int)) for row in weight]
    repeated = [quadratic_kappa(called[rows], label[rows], classes) for rows in copies]
    np.testing.assert_allclose(quadratic_kappa(called, label, classes, weight), repeated, atol=1e-12)


def test_agreement_is_one_chance_is_zero_and_a_single_grade_is_undefined() -> None:
    label = np.array([0, 1, 2, 2])
    assert quadratic_kappa(label, label, 3) == 1
    assert quadratic_kappa(np.ones(4, int), label, 3) == 0
    assert np.isnan(quadratic_kappa(np.ones(4, int), np.ones(4, int), 3))
    assert np.isnan(quadratic_kappa([], [], 3))
    assert quadratic_kappa(label, label, 3, np.ones((5, 4))).shape == (5,)
