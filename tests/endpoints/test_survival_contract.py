"""Properties of every survival endpoint, whatever its model."""

import io
import json
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines.utils import concordance_index
from torch import Tensor

from mil.endpoints.aft import LogNormal, Weibull
from mil.endpoints.competing_risks import CompetingRisks
from mil.endpoints.discrete_time import DiscreteTime
from mil.endpoints.survival import Cox, Survival
from mil.errors import CohortError, ConfigError, PredictionsError

from .patients import follow_up_targets

few = settings(deadline=None, max_examples=15)
HORIZONS = {"0": 0.0, "1y": 12.0, "3y": 36.0, "ever": 1e9}
DAY = 365.25 / 12
MAKERS: dict[str, Callable[[str, dict[str, float]], Survival]] = {
    "cox": lambda unit, horizons: Cox(unit=unit, horizons=horizons),
    "discrete": lambda unit, horizons: DiscreteTime(unit=unit, horizons=horizons, intervals=4),
    "equal": lambda unit, horizons: DiscreteTime(unit=unit, horizons=horizons, intervals=7, cuts="equal"),
    "weibull": lambda unit, horizons: Weibull(unit=unit, horizons=horizons),
    "lognormal": lambda unit, horizons: LogNormal(unit=unit, horizons=horizons),
    "competing": lambda unit, horizons: CompetingRisks(unit=unit, horizons=horizons, intervals=4),
    "deephit": lambda unit, horizons: CompetingRisks(unit=unit, horizons=horizons, intervals=4, ranking=0.5),
}
every = pytest.mark.parametrize("name", MAKERS)


def fitted_case(name: str, seed: int = 0, patients: int = 60, unit: str = "months") -> tuple[Survival, Tensor, Tensor]:
    """Return a fitted and finished endpoint, logits `(p, c)` and targets `(p, 2)`."""
    factor = {"months": 1.0, "days": DAY}[unit]
    endpoint = MAKERS[name](unit, {key: factor * time for key, time in HORIZONS.items()})
    target = follow_up_targets(seed, patients, len(endpoint.follow_up.causes), step=0.5)
    target[:, 0] *= factor
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(patients, endpoint.out_dim)))
    endpoint.fit(target)
    endpoint.finish(logits, target)
    return endpoint, logits, target


def c_index_of(endpoint: Survival, logits: Tensor, target: Tensor) -> float:
    return float(endpoint.score(logits, target)["c_index"])


@every
def test_gradients_match_finite_differences(name: str) -> None:
    endpoint, logits, target = fitted_case(name, 1)
    first_logits = logits[:7].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda values: endpoint.loss(values, target[:7]), (first_logits,))


@every
@few
@given(seed=st.integers(0, 99))
def test_order_of_patients_does_not_matter(name: str, seed: int) -> None:
    endpoint, logits, target = fitted_case(name)
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(endpoint.loss(logits[order], target[order]), endpoint.loss(logits, target))
    moved = endpoint.decode(logits[order])
    for column, values in endpoint.decode(logits).items():
        torch.testing.assert_close(moved[column], values[order], equal_nan=True)
    assert c_index_of(endpoint, logits[order], target[order]) == pytest.approx(c_index_of(endpoint, logits, target))


@every
def test_change_of_unit_changes_no_risk(name: str) -> None:
    months, logits, target = fitted_case(name)
    days, _, _ = fitted_case(name, unit="days")
    in_days = target * torch.tensor([DAY, 1.0])
    assert c_index_of(days, logits, in_days) == pytest.approx(c_index_of(months, logits, target))
    columns_in_days = days.decode(logits)
    for column, values in months.decode(logits).items():
        if column != months.rank:
            torch.testing.assert_close(columns_in_days[column], values, rtol=1e-9, atol=1e-12, equal_nan=True)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_in_lower_precision_is_close_and_always_finite(name: str, dtype: torch.dtype) -> None:
    endpoint, logits, target = fitted_case(name)
    torch.testing.assert_close(
        endpoint.loss(logits.to(dtype), target).double(),
        endpoint.loss(logits.to(dtype).double(), target),
        rtol=1e-2 if dtype == torch.bfloat16 else 1e-5,
        atol=1e-5,
    )
    for size in (30.0, 1e4):
        extreme = (size * logits).float().requires_grad_()
        loss = endpoint.loss(extreme, target)
        (gradient,) = torch.autograd.grad(loss, extreme)
        assert loss.isfinite()
        assert gradient.isfinite().all()


@every
@few
@given(seed=st.integers(0, 99))
def test_curves_fall_from_one_and_risk_is_one_minus_the_curve(name: str, seed: int) -> None:
    endpoint, logits, _ = fitted_case(name, seed)
    assert endpoint.longest is not None
    endpoint.longest = max(36.0, endpoint.longest)
    times = [0.0, 0.3, 1.0, 5.0, 12.0, 36.0, endpoint.longest]
    curve = endpoint.curve(3 * logits, times)
    assert curve.shape == (len(logits), len(times))
    assert endpoint.curve(3 * logits, [endpoint.longest + 0.1, 1e9]).isnan().all()
    assert ((curve >= 0) & (curve <= 1)).all()
    assert (curve.diff(dim=1) <= 0).all()
    assert (curve[:, 0] == 1).all()
    columns = endpoint.decode(3 * logits)
    risk = sum((columns[column] for column in columns if column.endswith("_3y")), torch.zeros(len(logits)))
    torch.testing.assert_close(risk, 1 - curve[:, 5], rtol=1e-9, atol=1e-12)


@every
def test_risks_beyond_the_follow_up_of_the_training_patients_are_missing_with_the_reason(name: str) -> None:
    _, logits, target = fitted_case(name)
    endpoint = MAKERS[name]("months", {"2y": 24, "20y": 240})
    endpoint.fit(target)
    endpoint.finish(logits, target)
    columns = endpoint.decode(logits)
    late, early = ([column for column in columns if column.endswith(end)] for end in ("_20y", "_2y"))
    assert late
    assert all(columns[column].isnan().all() for column in late)
    assert all(columns[column].isfinite().all() for column in early)
    assert endpoint.longest == float(target[:, 0].max()) <= 60
    reason = (
        f"is missing: 240 months lie beyond the follow-up: the training patients were followed for {endpoint.longest:g}"
    )
    assert endpoint.legend().count(reason) == len(late)
    old = MAKERS[name]("months", {"2y": 24, "20y": 240})
    old.load_state({key: value for key, value in endpoint.state().items() if key != "follow_up"})
    assert old.decode(logits)[late[0]].isfinite().all()  # a checkpoint that does not know its follow-up


@every
def test_c_index_of_the_rank_column_matches_lifelines(name: str) -> None:
    endpoint, logits, target = fitted_case(name)
    time, code = target.numpy().T
    risk = endpoint.decode(logits)[endpoint.rank].numpy()
    expected = concordance_index(np.where(code > 1, 1e9, time), -risk, code == 1)
    assert c_index_of(endpoint, logits, target) == pytest.approx(expected, abs=1e-12)


@every
def test_predictions_read_from_csv_rank_patients_like_the_logits(name: str) -> None:
    endpoint, logits, target = fitted_case(name)
    text = pd.DataFrame(endpoint.decode(logits)).to_csv(index=False)
    again = pd.read_csv(io.StringIO(text), float_precision="round_trip")
    unfitted = MAKERS[name]("months", HORIZONS)
    for reader in (endpoint, unfitted):
        assert c_index_of(reader, reader.recode(again), target) == c_index_of(endpoint, logits, target)
        risk = reader.risk(reader.recode(again)).numpy()
        np.testing.assert_allclose(risk, again[endpoint.rank], rtol=1e-12, atol=1e-15)
    with pytest.raises(PredictionsError, match=f"no column '{endpoint.rank}', found x$"):
        endpoint.recode(pd.DataFrame({"x": [1.0]}))


@every
def test_risk_rises_with_the_oracle_score(name: str) -> None:
    endpoint, _, target = fitted_case(name)
    scores = torch.linspace(0.01, 0.99, len(target), dtype=torch.float64).unsqueeze(1)
    risk = endpoint.risk(endpoint.from_oracle(scores))
    assert (risk.diff() > 0).all()


@every
def test_fitted_state_survives_json(name: str) -> None:
    endpoint, logits, target = fitted_case(name)
    restored = MAKERS[name]("months", HORIZONS)
    restored.load_state(json.loads(json.dumps(endpoint.state(), allow_nan=False)))
    assert torch.equal(restored.loss(logits, target), endpoint.loss(logits, target))
    for column, values in endpoint.decode(logits).items():
        torch.testing.assert_close(restored.decode(logits)[column], values, rtol=0, atol=0, equal_nan=True)
    restored.load_state({})
    assert restored.rank in restored.decode(logits)


@every
def test_legend_explains_every_column(name: str) -> None:
    endpoint, logits, _ = fitted_case(name)
    assert all(f"`{column}`" in endpoint.legend() for column in endpoint.decode(logits))


@every
def test_training_without_events_and_class_balance_are_refused(name: str) -> None:
    endpoint, _, target = fitted_case(name)
    with pytest.raises(CohortError, match="column event: all 60 training patients are censored, expected events"):
        endpoint.fit(target * torch.tensor([1, 0]))
    with pytest.raises(ConfigError, match="no classes to balance"):
        endpoint.fit(target, balance=True)


@every
def test_strata_and_counts_separate_the_event_codes(name: str) -> None:
    endpoint, _, target = fitted_case(name, patients=80)
    strata = endpoint.strata(target)
    for code in set(target[:, 1].tolist()):
        members = strata[target[:, 1] == code]
        assert not set(members.tolist()) & set(strata[target[:, 1] != code].tolist())
    counts = endpoint.counts(target)
    assert counts["n"] == 80
    assert sum(counts.values()) - 80 == int((target[:, 1] > 0).sum())


@pytest.mark.parametrize("name", ["discrete", "weibull", "lognormal", "competing"])
def test_zero_logits_minimise_the_loss_of_training_patients(name: str) -> None:
    endpoint, logits, target = fitted_case(name, patients=400)
    shifted = [endpoint.loss(torch.full_like(logits, shift), target) for shift in (-0.7, 0.0, 0.7)]
    assert shifted[1] == min(shifted)
