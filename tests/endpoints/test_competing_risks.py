"""Competing risks against DeepHit's definition, scikit-survival, and discrete time with a single cause."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sksurv.nonparametric import cumulative_incidence_competing_risks

from mil.endpoints.competing_risks import CompetingRisks
from mil.endpoints.discrete_time import DiscreteTime
from mil.errors import CohortError, ConfigError

from .patients import follow_up_targets, table

few = settings(deadline=None, max_examples=15)
CAUSES = ("relapse", "death", "other")


def fitted(target: torch.Tensor, **options: object) -> CompetingRisks:
    endpoint = CompetingRisks(causes=CAUSES, intervals=4, **options)  # type: ignore[arg-type]  # of many types
    endpoint.fit(target)
    return endpoint


def random_case(seed: int, patients: int = 50) -> tuple[CompetingRisks, torch.Tensor, torch.Tensor]:
    target = follow_up_targets(seed, patients, causes=3, step=1.0)
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(patients, 12)))
    return fitted(target), logits, target


def first_hit_probabilities(endpoint: CompetingRisks, logits: torch.Tensor) -> NDArray[np.float64]:
    """Return DeepHit's probability of each cause in each interval, `(p, k, m)`, by loops over the definition."""
    scores = (logits.reshape(-1, 3, 4) + endpoint.intervals.offset).numpy()
    expected: NDArray[np.float64] = np.zeros_like(scores)
    for row, patient_scores in enumerate(scores):
        left = 1.0
        for at in range(4):
            odds = np.exp(patient_scores[:, at])
            expected[row, :, at] = left * odds / (1 + odds.sum())
            left *= 1 / (1 + odds.sum())
    return expected


@few
@given(st.integers(0, 999))
def test_loss_is_deephit_likelihood(seed: int) -> None:
    endpoint, logits, target = random_case(seed)
    edges, chance = [0.0, *(endpoint.intervals.edges or [])], first_hit_probabilities(endpoint, logits)
    total = 0.0
    for row, (time, code) in enumerate(target.tolist()):
        if code:
            at = next(at for at in range(4) if edges[at] < time <= edges[at + 1])
            total -= math.log(chance[row, int(code) - 1, at])
        else:
            seen = sum(time >= (edges[at] + edges[at + 1]) / 2 for at in range(4))
            total -= math.log(1 - chance[row, :, :seen].sum())
    assert endpoint.loss(logits, target).item() == pytest.approx(total / len(target), rel=1e-10)


@few
@given(st.integers(0, 999))
def test_incidences_rise_and_sum_to_one_with_survival(seed: int) -> None:
    endpoint, logits, _ = random_case(seed)
    times = [0.0, 0.5, 3.0, 17.0, endpoint.longest or 0.0]
    incidence, curve = endpoint.incidence(2 * logits, times), endpoint.curve(2 * logits, times)
    torch.testing.assert_close(incidence.sum(1) + curve, torch.ones_like(curve))
    assert (incidence.diff(dim=2) >= 0).all()
    at_edges = endpoint.incidence(logits, endpoint.intervals.edges or [])
    np.testing.assert_allclose(at_edges, first_hit_probabilities(endpoint, logits).cumsum(2), rtol=1e-10)


def test_incidences_of_life_table_hazards_match_aalen_johansen() -> None:
    rng = np.random.default_rng(1)
    time, code = rng.integers(1, 9, 300), rng.integers(0, 4, 300)
    target = torch.from_numpy(np.stack([time, code], 1).astype(float))
    endpoint = CompetingRisks(causes=CAUSES, intervals=8, cuts="equal")
    endpoint.fit(target)
    events, without = endpoint.intervals.ended(target).sum(0), endpoint.intervals.lived(target).sum(0)
    logits = (torch.log(events / without) - endpoint.intervals.offset).flatten()[None]
    moments, expected = cumulative_incidence_competing_risks(code, time)
    incidences = endpoint.incidence(logits, [float(moment) for moment in moments])[0]
    np.testing.assert_allclose(incidences, expected[1:], rtol=1e-9)


def test_one_cause_equals_discrete_time() -> None:
    target = follow_up_targets(4, 60)
    endpoint, single = CompetingRisks(intervals=4), DiscreteTime(intervals=4)
    single.fit(target)
    endpoint.load_state({"edges": single.state()["edges"], "offset": [single.state()["offset"][0], [-700.0] * 4]})
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(60, 4)))
    both = torch.cat([logits, torch.zeros(60, 4)], 1)
    torch.testing.assert_close(endpoint.loss(both, target), single.loss(logits, target))
    torch.testing.assert_close(endpoint.risk(both), single.risk(logits))
    torch.testing.assert_close(endpoint.curve(both, [5.0, 30.0]), single.curve(logits, [5.0, 30.0]))


def test_ranking_loss_is_the_mean_over_comparable_pairs() -> None:
    endpoint, logits, target = random_case(5, 25)
    ranked = fitted(target, ranking=2.0, sigma=0.3)
    incidence = first_hit_probabilities(endpoint, logits).cumsum(2)
    penalties = []
    for i, (time, code) in enumerate(target.tolist()):
        for j in range(25):
            if code and time < target[j, 0]:
                at = np.searchsorted(endpoint.intervals.edges or [], time)
                penalties.append(math.exp((incidence[j, int(code) - 1, at] - incidence[i, int(code) - 1, at]) / 0.3))
    gained = ranked.loss(logits, target) - endpoint.loss(logits, target)
    assert gained.item() == pytest.approx(2 * np.mean(penalties), rel=1e-9)


def test_one_risk_column_per_cause_and_horizon() -> None:
    target = follow_up_targets(0, 60, causes=2)
    endpoint = CompetingRisks(causes=("relapse", "death"), intervals=3, horizons={"1y": 12, "3y": 36})
    assert list(endpoint.decode(torch.zeros(2, 6))) == ["risk"]
    endpoint.fit(target)
    columns = endpoint.decode(torch.zeros(2, 6))
    names = ["risk_relapse_1y", "risk_relapse_3y", "risk_death_1y", "risk_death_3y"]
    assert list(columns) == ["risk", *names]
    values = endpoint.incidence(torch.zeros(2, 6), [12.0, 36.0])
    torch.testing.assert_close(torch.stack([columns[name] for name in names], 1), values.flatten(1))


def test_causes_are_coded_in_declared_order() -> None:
    target = CompetingRisks(causes=CAUSES).encode(table(time=[1, 2, 3, 4], event=["death", "censored", "Relapse", "3"]))
    assert target[:, 1].tolist() == [2, 0, 1, 3]


def test_counts_and_strata_separate_the_causes() -> None:
    rows = torch.tensor([[1.0, 0], [9, 0], [1, 1], [2, 1], [5, 2], [6, 3]], dtype=torch.float64)
    target = rows.repeat_interleave(10, 0)
    endpoint = CompetingRisks(causes=CAUSES)
    assert endpoint.counts(target) == {"n": 60, "events": 20, "death": 10, "other": 10}
    assert endpoint.strata(target).tolist() == np.repeat([0, 1, 2, 3, 4, 5], 10).tolist()
    few, kinds = rows.repeat_interleave(6, 0), np.repeat([0, 2, 4, 5], [12, 12, 6, 6])
    assert endpoint.strata(few).tolist() == kinds.tolist(), "few patients of a kind are not halved by time"
    assert endpoint.strata(rows).tolist() == [2, 2, 2, 2, 4, 5], "very few censored ones are spread with the events"


def test_invalid_causes_and_ranking_options_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"causes \['relapse'\], expected two or more"):
        CompetingRisks(causes=("relapse",))
    with pytest.raises(ConfigError, match=r"ranking -1 and sigma 0\.1"):
        CompetingRisks(ranking=-1)
    with pytest.raises(CohortError, match="all 2 training patients lack the first event"):
        CompetingRisks().fit(torch.tensor([[1.0, 2], [3, 0]]))
