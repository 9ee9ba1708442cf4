"""Net benefit against its definition, lifelines and the Aalen-Johansen estimator."""

import numpy as np
import pytest
from lifelines import KaplanMeierFitter

from mil.stats.net_benefit import censored_net_benefit, incidence_until, net_benefit
from mil.stats.survival_metrics import aalen_johansen
from mil.stats.weights import Floats

AT = np.array([0.05, 0.2, 0.35, 0.6])
ODDS = AT / (1 - AT)


def followed(patients: int = 150, seed: int = 0, causes: int = 1) -> tuple[Floats, Floats, Floats]:
    """Risk, time in whole units with many ties, and how it ended."""
    rng = np.random.default_rng(seed)
    risk = rng.random(patients)
    event, leaving = rng.exponential(8 * np.exp(-risk)), rng.uniform(1, 20, patients)
    code = np.where(event <= leaving, rng.integers(1, causes + 1, patients), 0)
    return risk, np.ceil(np.minimum(event, leaving)), code


def test_net_benefit_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    probability, truth = rng.random(200), rng.random(200) < 0.3
    result = net_benefit(probability[:, None] >= AT, truth, ODDS)[0]
    for at, value in zip(AT, result, strict=True):
        right = sum(1 for p, y in zip(probability, truth, strict=True) if p >= at and y)
        wrong = sum(1 for p, y in zip(probability, truth, strict=True) if p >= at and not y)
        assert value == pytest.approx(right / 200 - wrong / 200 * at / (1 - at), rel=1e-12)


def test_treating_all_is_worth_the_prevalence_less_its_price_and_none_nothing() -> None:
    truth = np.arange(100) < 14
    everybody = net_benefit(np.ones((100, 4), dtype=bool), truth, ODDS)[0]
    np.testing.assert_allclose(everybody, 0.14 - 0.86 * ODDS, rtol=1e-12)
    assert not net_benefit(np.zeros((100, 4), dtype=bool), truth, ODDS).any()


@pytest.mark.parametrize("horizon", [3.0, 7.0, 40.0])
def test_incidence_is_one_minus_kaplan_meier(horizon: float) -> None:
    _, time, event = followed()
    survival = KaplanMeierFitter().fit(time, event).predict(horizon)
    assert incidence_until(time, event, horizon)[0] == pytest.approx(1 - survival, abs=1e-12)


@pytest.mark.parametrize("horizon", [3.0, 7.0, 40.0])
def test_incidence_beside_another_cause_is_aalen_johansens(horizon: float) -> None:
    _, time, cause = followed(causes=2)
    moments, incidence = aalen_johansen(time, cause, 2)
    expected = incidence[0, moments <= horizon][-1]
    assert incidence_until(time, cause, horizon)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("causes", [1, 2])
def test_a_weight_is_as_many_copies(causes: int) -> None:
    risk, time, cause = followed(60, causes=causes)
    weight = np.random.default_rng(1).integers(0, 4, (6, 60))
    result = censored_net_benefit(risk[:, None] >= AT, time, cause, 7.0, ODDS, weight.astype(np.float64))
    for row, values in zip(weight, result, strict=True):
        many, *outcome = (np.repeat(values, row) for values in (risk, time, cause))
        alone = censored_net_benefit(many[:, None] >= AT, outcome[0], outcome[1], 7.0, ODDS, None)
        np.testing.assert_allclose(values, alone[0], rtol=1e-9, atol=1e-12)


def test_without_censoring_before_the_horizon_it_is_the_plain_net_benefit() -> None:
    risk, time, _ = followed()
    called = risk[:, None] >= AT
    result = censored_net_benefit(called, time, np.ones_like(time), 7.0, ODDS, None)
    np.testing.assert_allclose(result, net_benefit(called, time <= 7, ODDS), rtol=1e-10, atol=1e-12)


def test_the_censored_form_is_written_with_lifelines() -> None:
    risk, time, event = followed()
    result = censored_net_benefit(risk[:, None] >= AT, time, event, 7.0, ODDS, None)[0]
    for at, value in zip(AT, result, strict=True):
        treated = risk >= at
        survival = KaplanMeierFitter().fit(time[treated], event[treated]).predict(7.0)
        expected = (1 - survival) * treated.mean() - survival * treated.mean() * at / (1 - at)
        assert value == pytest.approx(expected, abs=1e-12)


def test_nobody_treated_is_worth_nothing() -> None:
    _, time, event = followed()
    assert not censored_net_benefit(np.zeros((150, 4), dtype=bool), time, event, 7.0, ODDS, None).any()
    assert not incidence_until(time, np.zeros(150), 7.0).any()
