"""Calibration at a horizon: right risks look right, wrong ones wrong; numbers are those of lifelines."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter

from mil.errors import PredictionsError
from mil.report.sections.horizon import KNOTS, at_horizon, calibration, quintiles, risk_columns
from mil.stats.logistic import spline
from mil.stats.observed_risk import pseudo_values
from tests.estimates import holds
from tests.report.followed import COMPETING, ENDPOINT, Floats, competed, with_risks
from tests.report.tables import refitted


def simulated(seed: int, patients: int, stretch: float = 1.0, causes: int = 1) -> tuple[Floats, Floats, Floats]:
    """Predicted risk of the first cause until 1, too extreme by a stretch, with time and code."""
    rng = np.random.default_rng(seed)
    log_hazard = rng.normal(-1, 0.7, patients)
    ends, left = rng.exponential(1 / (causes * np.exp(log_hazard))), rng.uniform(0.2, 3, patients)
    code = np.where(ends <= left, rng.integers(1, causes + 1, patients), 0).astype(float)
    hazard = causes * np.exp(stretch * (log_hazard + 1) - 1)
    return -np.expm1(-hazard) / causes, np.minimum(ends, left), code


VIEW = ENDPOINT.survival


def section_of(table: pd.DataFrame, **options: Any) -> Any:
    assert VIEW is not None
    return calibration(refitted(table, ENDPOINT, resamples=50, **options), VIEW)


def test_right_risks_look_right() -> None:
    report: Any = at_horizon(*simulated(1, 1000), 1.0, resamples=200)
    assert report.observed_expected.low < 1 < report.observed_expected.high
    assert report.slope.low < 1 < report.slope.high
    assert report.ici.value < 0.03
    assert report.e50.value <= report.e90.value
    curve = report.curve
    inside = [low <= x <= high for x, low, high in zip(curve.x, curve.low, curve.high, strict=True)]
    assert np.mean(inside) > 0.8


def test_risks_that_are_too_extreme_have_a_slope_below_one() -> None:
    report: Any = at_horizon(*simulated(0, 1500, stretch=2.0), 1.0, resamples=200)
    assert report.slope.high < 0.7
    assert report.ici.low > 0.03
    first, last = report.quintiles[0], report.quintiles[-1]
    assert first.predicted < first.observed.low
    assert last.predicted > last.observed.high


@pytest.mark.parametrize(("stretch", "low", "high"), [(1.0, 0.8, 1.2), (2.0, 0.3, 0.7)])
def test_the_slope_holds_for_competing_risks(stretch: float, low: float, high: float) -> None:
    slope: Any = at_horizon(*simulated(3, 1500, stretch, causes=2), 1.0, resamples=2).slope
    assert low < slope.value < high
    assert slope.low < 1 / stretch < slope.high
    assert slope.method.startswith("pseudo-values")


def test_numbers_are_those_of_lifelines() -> None:
    table = with_risks()
    rows = table[table["role"] == "report"].drop_duplicates("patient")
    for each, at in zip(section_of(table), (12, 36, 60), strict=True):
        risk = rows[f"risk_{each.horizon}"]
        observed = 1 - KaplanMeierFitter().fit(rows["time"], rows["event"]).predict(at)
        assert each.predicted == pytest.approx(risk.mean())
        assert each.observed.value == pytest.approx(observed, abs=1e-10)
        assert each.observed_expected.value == pytest.approx(observed / risk.mean())
        cut = {"time": np.minimum(rows["time"], at), "event": rows["event"] * (rows["time"] <= at)}
        frame = pd.DataFrame({"score": np.log(-np.log1p(-np.clip(risk, 1e-6, 1 - 1e-6))), **cut})
        fit = CoxPHFitter().fit(frame, "time", "event", fit_options={"precision": 1e-9})
        assert each.slope.value == pytest.approx(fit.params_["score"], rel=1e-8)


def test_the_fifths_hold_every_patient_once_and_equal_risks_together() -> None:
    risk, time, code = simulated(2, 203)
    fifths: Any = quintiles(risk, time, code, 1.0)
    assert sum(part.n for part in fifths) == 203
    assert [part.predicted for part in fifths] == sorted(part.predicted for part in fifths)
    assert sum(part.n * part.predicted for part in fifths) == pytest.approx(risk.sum())
    tied: Any = quintiles(np.repeat([0.1, 0.2], [150, 53]), time, code, 1.0)
    assert [(part.n, part.predicted) for part in tied] == [(150, pytest.approx(0.1)), (53, pytest.approx(0.2))]


def test_the_curve_is_a_regression_of_pseudo_values() -> None:
    risk, time, code = simulated(3, 120)
    report: Any = at_horizon(risk, time, code, 1.0, resamples=2)
    terms = spline(risk, np.quantile(risk, KNOTS))
    weights = np.linalg.lstsq(terms, pseudo_values(time, code, 1.0), rcond=None)[0]
    error = np.sort(np.abs(np.clip(terms @ weights, 0, 1) - risk))
    assert report.ici.value == pytest.approx(error.mean(), rel=1e-6)
    assert report.e50.value == pytest.approx(error[59], rel=1e-6)
    assert report.e90.value == pytest.approx(error[107], rel=1e-6)
    shown = spline(np.array(report.curve.x), np.quantile(risk, KNOTS)) @ weights
    np.testing.assert_allclose(report.curve.y, np.clip(shown, 0, 1), rtol=1e-6)


def test_too_few_events_give_a_reason_and_no_curve() -> None:
    risk, time, code = simulated(4, 200)
    rare: Any = at_horizon(risk, time, np.where(np.cumsum(code) <= 3, code, 0), 1.0, resamples=2)
    assert (rare.ici.value, rare.curve) == (None, None)
    assert "a curve needs 10 of each" in rare.ici.reason
    same: Any = at_horizon(np.full(200, 0.3), time, code, 1.0, resamples=2)
    assert same.slope.value is None
    assert "too few different values" in same.e90.reason
    late: Any = at_horizon(risk, time, code, 9.0, resamples=2)
    assert "nobody is followed for 9" in late.observed_expected.reason
    assert late.curve is None


def test_only_risks_from_0_to_1_are_risks() -> None:
    table = with_risks()
    with pytest.raises(PredictionsError, match=r"risk_3y is 1\.5 in 1 rows, expected 0 to 1"):
        section_of(table.assign(risk_3y=np.where(np.arange(len(table)) == 7, 1.5, table["risk_3y"])))
    assert section_of(table.drop(columns=["risk_1y", "risk_3y", "risk_5y"])) == ()


def test_of_competing_causes_the_first_is_calibrated() -> None:
    evaluation = refitted(competed(), COMPETING, resamples=20)
    assert COMPETING.survival is not None
    assert risk_columns(evaluation, COMPETING.survival) == {"3y": "risk_relapse_3y"}
    report: Any = calibration(evaluation, COMPETING.survival)[0]
    assert report.observed.method.startswith("Aalen-Johansen")
    assert report.observed.value < report.predicted  # every fourth died of something else


@pytest.mark.slow
def test_intervals_of_the_slope_hold_the_truth_as_often_as_they_say() -> None:
    for causes in (1, 2):
        slopes = [at_horizon(*simulated(seed, 250, 1.0, causes), 1.0, resamples=2).slope for seed in range(300)]
        held = np.mean([holds(slope, 1) for slope in slopes if slope is not None])
        assert None not in slopes
        assert 0.91 <= held <= 0.985
