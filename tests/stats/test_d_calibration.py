"""D-calibration: Haider's spreading by hand, Pearson's test without censoring, and p values by simulation."""

import numpy as np
import pytest
from scipy import stats

from mil.stats.censoring import Censoring
from mil.stats.d_calibration import bins_for, d_calibration, spread_over


def test_a_censored_patient_is_spread_over_what_is_still_possible() -> None:
    """Survival 0.25 at the censoring, four bins: all in the first; 0.6: 0.25 / 0.6 twice, and the rest in the third."""
    shares = spread_over(np.array([0.0, 0.0, 0.3]), np.array([0.25, 0.6, 0.3]), 4)
    expected = np.array([[1, 0, 0, 0], [0.25 / 0.6, 0.25 / 0.6, 0.1 / 0.6, 0], [0, 1, 0, 0]])
    np.testing.assert_allclose(shares, expected, atol=1e-12)


def test_without_censoring_it_is_pearsons_test() -> None:
    survival = np.random.default_rng(0).beta(1.3, 1, 200)
    result = d_calibration(survival, survival)
    counts = np.histogram(survival, np.linspace(0, 1, 11))[0]
    expected = stats.chisquare(counts)
    np.testing.assert_allclose(result.shares, counts / 200)
    assert result.statistic == pytest.approx(expected.statistic, rel=1e-6)
    assert result.freedom == 9
    assert result.p == pytest.approx(expected.pvalue, rel=1e-6)


def test_bounds_outside_zero_to_one_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 0 <= low <= high <= 1"):
        d_calibration([0.5], [0.4])


def simulated(rng: np.random.Generator, patients: int, stretch: float = 1.0) -> float:
    """Return p of predicted survival with log hazards times `stretch`, half of the patients censored."""
    score = 0.8 * rng.normal(size=patients)
    death, left = rng.exponential(50 * np.exp(-score)), np.minimum(rng.uniform(0, 90, patients), 70)
    time, event = np.minimum(death, left), death <= left
    hazard = np.exp(stretch * score) / 50
    censoring = Censoring.fit(time, event)
    steps = -np.diff([1.0, *censoring.values, 0.0])
    limit = np.exp(-hazard[:, None] * np.append(censoring.times, censoring.last)[steps > 0])
    survival = np.exp(-hazard * time)
    bins = bins_for(patients)
    return d_calibration(np.where(event, survival, 0), survival, bins, limit, steps[steps > 0]).p


def test_wrong_hazards_are_seen() -> None:
    assert simulated(np.random.default_rng(0), 600, stretch=3.0) < 0.001


@pytest.mark.slow
@pytest.mark.parametrize("patients", [40, 100, 300])
def test_p_is_uniform_where_the_predictions_are_right(patients: int) -> None:
    """600 cohorts, half of the patients censored: Monte-Carlo error 0.009 at 0.05; Haider's statistic gives 0.005."""
    p = np.array([simulated(np.random.default_rng([seed, patients]), patients) for seed in range(600)])
    assert abs(float(np.mean(p < 0.05)) - 0.05) < 0.03
    assert abs(float(np.mean(p < 0.5)) - 0.5) < 0.07
