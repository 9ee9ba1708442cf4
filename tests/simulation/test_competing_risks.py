"""Simulated competing risks: as often, and as well told apart, as was asked for."""

import numpy as np
import pandas as pd
import pytest

from mil.errors import ConfigError
from mil.simulation.effect_sizes import competing_hazard, event_rate, harrell_c, proportional_hazard
from mil.simulation.simulated_cohort import Simulation, draw_patients
from mil.simulation.targets.cause_targets import CompetingRisks
from mil.simulation.targets.event_targets import death
from mil.stats.survival_metrics import competing_c_index

CAUSES = ("relapse", "death")


@pytest.mark.parametrize(("rate", "competing", "attainable"), [(0.1, 0.05, 0.76), (0.3, 0.15, 0.7), (0.5, 0.3, 0.68)])
def test_a_perfect_reader_has_the_attainable_c_index_and_causes_their_shares(
    rate: float, competing: float, attainable: float
) -> None:
    target, shares = CompetingRisks("time", "event", CAUSES, rate, competing, attainable), []
    for seed in range(3):
        cohort = draw_patients(Simulation(target, seed=seed))
        code = cohort.clinic["event"].map({"censored": 0, "relapse": 1, "death": 2}).to_numpy()
        c_index = competing_c_index(cohort.oracle["oracle"], cohort.clinic["time"], code)
        assert c_index == pytest.approx(attainable, abs=0.03)
        assert cohort.clinic["time"].between(0.01, 60).all()
        shares.append([(code == 1).mean(), (code == 2).mean()])
    np.testing.assert_allclose(np.mean(shares, 0), [rate, competing], atol=0.025)


def test_the_population_agrees_with_patients_drawn_one_by_one() -> None:
    hazard = competing_hazard(0.72, 0.35, 0.25, horizon=60.0, shape=1.3)
    rng = np.random.default_rng(1)
    severity = rng.standard_normal(20_000)
    died, competing = death(hazard, severity, rng.random(20_000)), rng.exponential(1 / hazard.competing, 20_000)
    left = np.minimum(60.0, rng.exponential(1 / hazard.loss, 20_000))
    ends = np.stack([left, died, competing])
    code, shown = ends.argmin(0), severity + 0.3 * rng.standard_normal(20_000)
    assert competing_c_index(shown, ends.min(0), code) == pytest.approx(harrell_c(hazard), abs=0.01)
    assert (code == 1).mean() == pytest.approx(event_rate(hazard), abs=0.01)
    assert (code == 2).mean() == pytest.approx(0.25, abs=0.01)
    assert ((code == 0) & (ends.min(0) < 60)).mean() == pytest.approx(0.04, abs=0.01)
    assert (harrell_c(hazard), event_rate(hazard)) == pytest.approx((0.72, 0.35), abs=1e-3)


def test_without_a_competitor_the_c_index_is_that_of_survival() -> None:
    alone = proportional_hazard(0.7, 0.4, 60.0, 1.2)
    rare = competing_hazard(0.7, 0.4, 1e-6, 60.0, 1.2)
    assert harrell_c(rare) == pytest.approx(harrell_c(alone), abs=1e-3)


def test_label_noise_exchanges_times_with_their_events() -> None:
    target = CompetingRisks("time", "event", CAUSES, 0.4, 0.3, 0.7)
    truth = draw_patients(Simulation(target, label_noise=0.2)).truth
    noisy, clean = truth[["time", "event"]], truth[["clean_time", "clean_event"]].set_axis(["time", "event"], axis=1)
    assert 30 <= (noisy != clean).any(axis=1).sum() <= 40
    ordered = [each.sort_values(["time", "event"], ignore_index=True) for each in (noisy, clean)]
    pd.testing.assert_frame_equal(ordered[0], ordered[1])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"causes": ("a",)}, "classes"),
        ({"event_rate": 0.0}, "event_rate"),
        ({"competing_rate": 1.0}, "competing_rate"),
        ({"event_rate": 0.6, "competing_rate": 0.4}, "competing_rate"),
        ({"attainable": 0.4}, "attainable"),
        ({"horizon": 0.0}, "horizon"),
        ({"shape": -1.0}, "shape"),
    ],
)
def test_a_target_that_cannot_be_is_refused_by_the_parameters_name(options: dict[str, object], named: str) -> None:
    usual = {"causes": CAUSES, "event_rate": 0.3, "competing_rate": 0.2, "attainable": 0.7}
    with pytest.raises(ConfigError, match=f"^{named}: .* expected$"):
        CompetingRisks("time", "event", **(usual | options))  # type: ignore[arg-type]  # options are of many types
