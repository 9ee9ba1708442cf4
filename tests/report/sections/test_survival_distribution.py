"""D-calibration in the report: by baseline hazards, by risks at horizons, and where it does not apply."""

from collections.abc import Hashable

import numpy as np
import pandas as pd
import pytest
import torch

from mil.endpoints.survival import Cox
from mil.fitted.state import FittedState
from mil.report.evaluation import Evaluation
from mil.report.sections.survival_distribution import BASELINE, HORIZONS, DCalibration
from mil.stats.d_calibration import d_calibration
from mil.study.tool import Tool
from tests.report.followed import COMPETING, ENDPOINT, competed, with_risks
from tests.report.tables import names, refitted, survival


def followed(seed: int, patients: int, stretch: float = 1.0) -> pd.DataFrame:
    """Report rows with log hazards, or too extreme ones; half of the patients are censored, times are not rounded."""
    rng = np.random.default_rng(seed)
    score = 0.8 * rng.normal(size=patients)
    death, left = rng.exponential(50 * np.exp(-score)), rng.uniform(5, 90, patients)
    columns = {"time": np.minimum(death, left), "event": (death <= left).astype(int), "log_hazard": stretch * score}
    return pd.DataFrame({"patient": names(patients), "fold": 0, "role": "report", **columns})


def evaluated(table: pd.DataFrame, train: pd.DataFrame) -> DCalibration | None:
    fitted = Cox()
    target = fitted.encode(train)
    fitted.fit(target)
    fitted.finish(torch.from_numpy(train[["log_hazard"]].to_numpy()), target)
    states: dict[Hashable, FittedState] = {0: FittedState(endpoint=fitted.state())}
    return DCalibration.compute(Evaluation.of(table, Cox(), Tool(), resamples=10, states=states))


def test_curves_of_a_baseline_hazard_are_tested_with_its_steps() -> None:
    right, wrong = (evaluated(followed(1, 500, by), followed(0, 3000, by)) for by in (1.0, 3.0))
    assert right is not None
    assert wrong is not None
    assert right.curve_from == BASELINE
    assert right.p > 0.05
    assert sum(right.shares) == pytest.approx(1)
    assert wrong.p < 0.001
    assert "are wrong" in wrong.verdict
    assert DCalibration.model_validate_json(right.model_dump_json()) == right


def test_without_censoring_the_shares_are_those_of_the_horizons_hazards() -> None:
    table = with_risks(patients=200).assign(event=1)
    section = DCalibration.compute(refitted(table, ENDPOINT, resamples=10))
    assert section is not None
    assert section.curve_from == HORIZONS
    reported = table[table["role"] == "report"].sort_values(["fold", "patient"])
    hazard = np.exp(reported["log_hazard"] - 10 * reported["fold"]) / 50
    survival_then = np.asarray(np.exp(-hazard * np.minimum(reported["time"], 60)))  # one hazard at all times
    low = np.where(reported["time"] <= 60, survival_then, 0)
    np.testing.assert_allclose(section.shares, d_calibration(low, survival_then).shares, atol=1e-9)


def test_it_needs_curves_of_one_cause_and_events() -> None:
    assert DCalibration.compute(refitted(competed(), COMPETING, resamples=10)) is None
    assert DCalibration.compute(refitted(survival(), Cox(), resamples=10)) is None
    few = with_risks(patients=60).assign(event=lambda table: (table["patient"].astype(int) % 10 == 0).astype(int))
    assert DCalibration.compute(refitted(few, ENDPOINT, resamples=10)) is None


@pytest.mark.slow
def test_p_is_uniform_with_a_baseline_hazard_fitted_to_many_patients() -> None:
    """200 cohorts of 150: Monte-Carlo error 0.015 at 0.05."""
    train = followed(10**6, 5000)
    sections = [evaluated(followed(seed, 150), train) for seed in range(200)]
    p = np.array([section.p for section in sections if section is not None])
    assert len(p) == 200
    assert abs(float(np.mean(p < 0.05)) - 0.05) < 0.045
    assert abs(float(np.mean(p < 0.5)) - 0.5) < 0.1
