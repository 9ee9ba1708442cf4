"""Discrete-time hazards against scikit-learn's log loss of person-periods, Kaplan-Meier and the paper's definition."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from sklearn.metrics import log_loss

from mil.endpoints.discrete_time import DiscreteTime
from mil.endpoints.intervals import cut
from mil.errors import CohortError, ConfigError, PredictionsError

from .patients import follow_up_targets

few = settings(deadline=None, max_examples=15)


def fitted(target: torch.Tensor, **options: object) -> DiscreteTime:
    endpoint = DiscreteTime(**options)  # type: ignore[arg-type]  # options are of many types
    endpoint.fit(target)
    return endpoint


def person_periods(endpoint: DiscreteTime, target: torch.Tensor) -> list[list[tuple[int, int]]]:
    """Return each patient's intervals at risk, each with 1 if the event was in it and 0 if not, as in the paper."""
    edges = [0.0, *(endpoint.intervals.edges or [])]
    by_patient = []
    for time, event in target.tolist():
        at_risk = []
        for at, (start, end) in enumerate(pairwise(edges)):
            if event and start < time <= end:
                at_risk.append((at, 1))
            elif time > end or (not event and time >= (start + end) / 2):
                at_risk.append((at, 0))
        by_patient.append(at_risk)
    return by_patient


@few
@given(seed=st.integers(0, 999), step=st.sampled_from([0.01, 1.0, 5.0]), cuts=st.sampled_from(["quantiles", "equal"]))
def test_loss_is_the_log_loss_of_person_periods(seed: int, step: float, cuts: str) -> None:
    target = follow_up_targets(seed, 50, step=step)
    endpoint = fitted(target, intervals=3, cuts=cuts)
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(50, 3)))
    hazards = (logits + endpoint.intervals.offset).sigmoid().tolist()
    by_patient = zip(hazards, person_periods(endpoint, target), strict=True)
    pairs = [(of_patient[index], event) for of_patient, at_risk in by_patient for index, event in at_risk]
    chance, event = zip(*pairs, strict=True)
    expected = log_loss(event, chance, labels=[0, 1], normalize=False) / 50
    assert endpoint.loss(logits, target).item() == pytest.approx(expected, rel=1e-10)


def test_curves_of_life_table_hazards_match_kaplan_meier() -> None:
    rng = np.random.default_rng(0)
    time, event = rng.integers(1, 9, 200), rng.random(200) < 0.6
    target = torch.from_numpy(np.stack([time, event], 1).astype(float))
    endpoint = fitted(target, intervals=8, cuts="equal")
    deaths, without = endpoint.intervals.ended(target).sum(0), endpoint.intervals.lived(target).sum(0)
    logits = torch.log(deaths / without) - endpoint.intervals.offset
    moments = [float(moment) for moment in range(1, 9)]
    expected = KaplanMeierFitter().fit(time, event).predict(moments)
    np.testing.assert_allclose(endpoint.curve(logits, moments)[0], expected, rtol=1e-9)
    logits.requires_grad_()
    (slope,) = torch.autograd.grad(endpoint.loss(logits.expand(200, 8), target), logits)
    assert slope.abs().max().item() < 1e-12  # the likelihood is at its maximum


def test_intervals_hold_equal_numbers_of_training_events() -> None:
    target = follow_up_targets(3, 400)
    endpoint = fitted(target, intervals=5)
    events = endpoint.intervals.ended(target).sum((0, 1))
    assert events.sum() == target[:, 1].sum()
    assert events.max() - events.min() <= 1
    assert (endpoint.intervals.edges or [0])[-1] == target[target[:, 1] == 1, 0].max()


def test_intervals_depend_only_on_patients_given_to_fit() -> None:
    endpoint = fitted(follow_up_targets(0, 60), intervals=4)
    before = endpoint.state()
    endpoint.loss(torch.zeros(90, 4, dtype=torch.float64), follow_up_targets(1, 90))
    assert endpoint.state() == before


def test_equal_intervals_end_with_the_last_event() -> None:
    assert cut(torch.tensor([3.0, 12.0, 5.0]), 4, "equal") == [3.0, 6.0, 9.0, 12.0]


def test_too_few_distinct_event_times_are_refused() -> None:
    with pytest.raises(CohortError, match=r"the 5 events of the training patients fill 2, expected 3: ask for fewer"):
        cut(torch.tensor([1.0, 1, 1, 2, 2]), 3, "quantiles")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"intervals": 0}, "intervals: 0"), ({"intervals": 2.5}, "intervals: 2.5"), ({"cuts": "x"}, "cuts: 'x'")],
)
def test_invalid_interval_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DiscreteTime(**options)  # type: ignore[arg-type]  # options are of many types


def test_hazard_is_constant_within_intervals_and_zero_after_the_last() -> None:
    endpoint = fitted(follow_up_targets(0, 60), intervals=4)
    edges = endpoint.intervals.edges or []
    logits = torch.tensor([[0.3, -1.0, 0.5, 2.0]])
    middle = (edges[0] * edges[1]) ** 0.5
    part = (middle - edges[0]) / (edges[1] - edges[0])
    times = [edges[0], middle, edges[1], edges[3], endpoint.longest or 0.0]
    first, within, second, last, later = endpoint.curve(logits, times)[0].tolist()
    assert within == pytest.approx(first ** (1 - part) * second**part)
    assert times[-1] > times[-2]
    assert later == last


def test_risks_outside_zero_to_one_are_refused() -> None:
    with pytest.raises(PredictionsError, match=r"2 of 3 values of risk are outside \[0, 1\]"):
        DiscreteTime().ranked(torch.tensor([0.5, 1.1, -0.1]))


@pytest.mark.parametrize("state", [{"edges": [1.0], "offset": [[0.0]]}, {"edges": [1.0] * 10, "offset": [[0.0]]}])
def test_state_with_another_number_of_intervals_is_refused(state: dict[str, object]) -> None:
    with pytest.raises((ValueError, RuntimeError)):
        DiscreteTime().load_state(state)
