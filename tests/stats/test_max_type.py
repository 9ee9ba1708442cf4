"""Bands and p values for several numbers at once."""

import numpy as np
import pytest
from scipy import stats

from mil.stats.max_type import max_type_p, simultaneous_band


def test_the_band_of_independent_points_is_sidaks() -> None:
    rng = np.random.default_rng(0)
    error = np.array([1.0, 2.0, 0.1, 3.0])
    band = simultaneous_band(np.zeros(4), rng.normal(size=(200_000, 4)) * error)
    expected = stats.norm.ppf((1 + 0.95 ** (1 / 4)) / 2)
    assert band.critical == pytest.approx(expected, abs=0.02)
    assert band.high == pytest.approx(expected * error, rel=0.02)
    assert band.low == pytest.approx(-band.high)


def test_what_does_not_vary_has_no_width() -> None:
    samples = np.column_stack([np.random.default_rng(0).normal(size=500), np.full(500, 0.3)])
    band = simultaneous_band(np.array([0.0, 0.3]), samples)
    assert band.low[1] == band.high[1] == 0.3
    assert band.critical == pytest.approx(1.96, abs=0.15)
    assert np.isnan(simultaneous_band(np.zeros(2), samples[:1]).low).all()


def test_p_values_are_adjusted_for_the_number_of_differences() -> None:
    rng = np.random.default_rng(0)
    value = np.array([2.5, 0.0, 0.0])
    samples = value + rng.normal(size=(100_000, 3))
    alone = 2 * stats.norm.sf(2.5)
    p = max_type_p(value, samples)
    assert p[0] == pytest.approx(1 - (1 - alone) ** 3, abs=0.003)
    assert p[1] == 1
    assert max_type_p(value[:1], samples[:, :1])[0] == pytest.approx(alone, abs=0.002)
    fixed = np.repeat([[0.0, 1.0]], 10, axis=0)
    assert max_type_p(np.array([0.0, 1.0]), fixed)[0] == 1
    assert np.isnan(max_type_p(np.array([0.0, 1.0]), fixed)[1])


def test_a_single_run_has_no_pairs_and_no_p_values() -> None:
    assert max_type_p(np.zeros(0), np.zeros((50, 0))).shape == (0,)
