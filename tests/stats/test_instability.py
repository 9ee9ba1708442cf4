"""Mean absolute prediction errors by hand, and that they do not depend on the number of models."""

import numpy as np
import pytest

from mil.stats.instability import prediction_instability


def test_errors_by_hand() -> None:
    """Two models: half of the difference times sqrt(2); three with one of them missing are two; one alone is none."""
    predictions = np.array([[0.2, 0.1, 0.5], [0.4, np.nan, np.nan], [np.nan, 0.5, np.nan]])
    result = prediction_instability(predictions)
    assert result.models.tolist() == [2, 2, 1]
    np.testing.assert_allclose(result.mean, [0.3, 0.3, np.nan])
    np.testing.assert_allclose(result.error, [0.1 * 2**0.5, 0.2 * 2**0.5, np.nan])


@pytest.mark.parametrize("models", [2, 3, 5, 20])
def test_the_error_is_that_of_a_model_about_the_truth_however_many_there_are(models: int) -> None:
    """Normal predictions with standard deviation 0.1: their mean distance from the truth is 0.1 sqrt(2 / pi)."""
    predictions = np.random.default_rng(models).normal(0.5, 0.1, (models, 40_000))
    assert prediction_instability(predictions).error.mean() == pytest.approx(0.1 * (2 / np.pi) ** 0.5, rel=0.02)
