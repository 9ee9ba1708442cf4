"""The Cox endpoint: from times and events to log hazards and risks."""

import io
import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from lifelines.utils import concordance_index

from mil.endpoints.cox import baseline_hazard, cox_loss
from mil.endpoints.survival import Cox
from mil.errors import CohortError, ConfigError, PredictionsError

few = settings(deadline=None, max_examples=25)
HORIZONS = {"0": 0.0, "1y": 12.0, "3y": 36.0, "5y": 60.0, "ever": 1e9}


def patients(seed: int = 0, count: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits `(p, 1)` and targets `(p, 2)`, with tied times in months."""
    rng = np.random.default_rng(seed)
    hazard = rng.normal(size=count)
    death, leaving = rng.exponential(40 * np.exp(-hazard)), rng.uniform(5, 100, count)
    target = np.stack([np.ceil(np.minimum(death, leaving)), death <= leaving], 1)
    return torch.tensor(hazard, dtype=torch.float32)[:, None], torch.tensor(target)


def finished_endpoint(seed: int = 0) -> Cox:
    endpoint = Cox(horizons=HORIZONS)
    endpoint.finish(*patients(seed))
    return endpoint


def test_training_patients_without_events_are_refused() -> None:
    with pytest.raises(CohortError, match="column dead: all 3 training patients are censored, expected events"):
        Cox(event="dead").fit(torch.tensor([[1.0, 0], [2, 0], [3, 0]]))


def test_class_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="no classes to balance"):
        Cox().fit(patients()[1], balance=True)


def test_unknown_ties_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="ties 'exact', expected one of efron, breslow"):
        Cox(ties="exact")


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_loss_is_the_partial_likelihood_with_the_chosen_ties(ties: str) -> None:
    logits, target = patients()
    assert torch.equal(Cox(ties=ties).loss(logits, target), cox_loss(logits[:, 0], target[:, 0], target[:, 1], ties))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_score_matches_lifelines_c_index(dtype: torch.dtype) -> None:
    logits, target = patients()
    score = Cox().score(logits.to(dtype), target)
    expected = concordance_index(target[:, 0], -logits.to(dtype).double()[:, 0], target[:, 1])
    assert Cox.metric in score
    assert score[Cox.metric] == pytest.approx(expected, abs=1e-12)


def test_weighted_scores_equal_scores_of_repeated_patients() -> None:
    logits, target = patients()
    weight = np.random.default_rng(0).integers(0, 3, (4, len(target)))
    expected = [
        Cox().score(logits[rows], target[rows])["c_index"] for rows in (np.repeat(range(80), row) for row in weight)
    ]
    np.testing.assert_allclose(Cox().score(logits, target, weight.astype(float))["c_index"], expected, atol=1e-12)


def test_score_is_nan_without_events() -> None:
    logits, target = patients()
    assert np.isnan(Cox().score(logits, target * torch.tensor([1, 0]))["c_index"])


@few
@given(hazards=st.lists(st.floats(-2000, 2000), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_risks_are_probabilities_rising_with_horizon_and_hazard(hazards: list[float], seed: int) -> None:
    columns = finished_endpoint(seed).decode(torch.tensor(sorted(hazards), dtype=torch.float64)[:, None])
    assert list(columns) == ["log_hazard", *(f"risk_{name}" for name in HORIZONS)]
    risks = torch.stack([columns[f"risk_{name}"] for name in HORIZONS])  # (h, p)
    assert ((risks >= 0) & (risks <= 1)).all()
    assert (risks.diff(dim=0) >= 0).all()
    assert (risks.diff(dim=1) >= 0).all()
    assert not columns["risk_0"].any()


def test_risks_are_one_minus_lifelines_survival() -> None:
    logits, target = patients()
    cohort = pd.DataFrame({"x": logits[:, 0].double(), "time": target[:, 0], "event": target[:, 1]})
    fitted = CoxPHFitter().fit(cohort, "time", "event")
    endpoint = Cox(horizons=HORIZONS, ties="breslow")  # lifelines has no other baseline
    fitted_logits = torch.tensor(fitted.predict_log_partial_hazard(cohort).to_numpy())[:, None]
    endpoint.finish(fitted_logits, target)
    survival = fitted.predict_survival_function(cohort, times=[12.0, 36.0, 60.0]).to_numpy()
    columns = endpoint.decode(fitted_logits)
    for row, name in enumerate(("1y", "3y", "5y")):
        np.testing.assert_allclose(columns[f"risk_{name}"], 1 - survival[row], rtol=1e-9, atol=1e-12)


def test_horizon_at_an_event_counts_the_event() -> None:
    endpoint = Cox(horizons={"before": 4.99, "at": 5.0})
    endpoint.finish(torch.zeros(2, 1), torch.tensor([[5.0, 1], [9, 0]]))
    risks = endpoint.decode(torch.zeros(1, 1))
    assert risks["risk_before"].item() == 0
    assert risks["risk_at"].item() == pytest.approx(1 - np.exp(-0.5))


def test_no_risks_without_a_baseline() -> None:
    assert list(Cox(horizons=HORIZONS).decode(torch.zeros(2, 1))) == ["log_hazard"]


def test_baseline_survives_json() -> None:
    endpoint, restored = finished_endpoint(), Cox(horizons=HORIZONS)
    restored.load_state(json.loads(json.dumps(endpoint.state(), allow_nan=False)))
    logits, _ = patients(1)
    for name, values in endpoint.decode(logits).items():
        assert torch.equal(restored.decode(logits)[name], values)
    assert restored.baseline is not None
    time, event = patients()[1].T
    times, hazards = baseline_hazard(patients()[0].double()[:, 0], time, event, "efron")
    assert restored.baseline == (times.tolist(), hazards.tolist())
    restored.load_state(json.loads(json.dumps(Cox().state())))
    assert restored.baseline is None  # an unfitted state replaces a fitted one


@few
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_log_hazards_survive_a_csv_round_trip_bit_for_bit(hazards: list[float]) -> None:
    logits = torch.tensor(hazards, dtype=torch.float64)[:, None]
    endpoint = finished_endpoint()
    text = pd.DataFrame(endpoint.decode(logits)).to_csv(index=False)
    again = pd.read_csv(io.StringIO(text), float_precision="round_trip")
    assert torch.equal(endpoint.recode(again), logits)


def test_predictions_without_log_hazards_are_refused() -> None:
    with pytest.raises(PredictionsError, match=r"no column 'log_hazard', found risk, x$"):
        Cox().recode(pd.DataFrame({"risk": [1], "x": [2]}))


def test_counts_give_patients_and_events() -> None:
    assert Cox().counts(torch.tensor([[1.0, 1], [2, 0], [3, 1]])) == {"n": 3, "events": 2}
    assert Cox().counts(torch.zeros(0, 2)) == {"n": 0, "events": 0}


def test_strata_halve_events_and_censored_patients_by_time() -> None:
    rows = torch.tensor([[1.0, 1], [2, 1], [8, 1], [9, 1], [3, 0], [4, 0], [5, 0], [6, 0]], dtype=torch.float64)
    target = rows.repeat_interleave(5, 0)
    assert Cox().strata(target).tolist() == np.repeat([2, 2, 3, 3, 0, 0, 1, 1], 5).tolist()
    only_events = target[:20]
    assert Cox().strata(only_events).tolist() == np.repeat([2, 2, 3, 3], 5).tolist()


def cohort_with_sites(seed: int, patients: int = 90) -> pd.DataFrame:
    """Return a cohort with a covariate `x`, three sites with different hazards, and some ties."""
    rng = np.random.default_rng(seed)
    site, x = rng.integers(0, 3, patients), rng.normal(size=patients)
    death, leaving = rng.exponential(20 * (1 + site) * np.exp(-x)), rng.uniform(2, 60, patients)
    columns = {"x": x, "time": np.ceil(np.minimum(death, leaving)), "event": (death <= leaving).astype(int)}
    return pd.DataFrame(columns | {"site": np.array(["Utrecht", "Lyon", "Oslo"])[site]})


def test_stratified_likelihood_and_baselines_match_lifelines() -> None:
    cohort = cohort_with_sites(0)
    fitted = CoxPHFitter(strata=["site"]).fit(cohort, "time", "event", fit_options={"precision": 1e-12})
    logits = torch.tensor(fitted.predict_log_partial_hazard(cohort).loc[cohort.index].to_numpy())[:, None]
    endpoint = Cox(strata="site")
    target = endpoint.encode(cohort)
    assert endpoint.columns == ("time", "event", "site")
    total = endpoint.loss(logits, target).item() * cohort["event"].sum()
    assert -total == pytest.approx(fitted.log_likelihood_, rel=1e-9)
    with_breslow = Cox(strata="site", ties="breslow")  # lifelines has no other baseline
    with_breslow.finish(logits, target)
    restored = Cox(strata="site")
    restored.load_state(json.loads(json.dumps(with_breslow.state())))
    for name, rows in cohort.groupby("site"):
        moments = sorted(rows.loc[rows["event"] == 1, "time"].unique())  # lifelines interpolates between events
        hazard = fitted.baseline_cumulative_hazard_[name].loc[moments].to_numpy()
        curve = restored.stratum_curve(torch.zeros(1, 1), moments, str(name))[0]
        np.testing.assert_allclose(-torch.log(curve), hazard, rtol=1e-9, atol=1e-12)


@few
@given(st.integers(0, 99))
def test_shift_within_a_stratum_changes_nothing(seed: int) -> None:
    cohort = cohort_with_sites(seed, 30)
    endpoint, logits = Cox(strata="site"), torch.tensor(cohort[["x"]].to_numpy(), requires_grad=True)
    target = endpoint.encode(cohort)
    loss = endpoint.loss(logits, target)
    (gradient,) = torch.autograd.grad(loss, logits)
    shift = torch.tensor(cohort["site"].map({"Utrecht": 3.0, "Lyon": -50.0, "Oslo": 0.5}).to_numpy())[:, None]
    torch.testing.assert_close(endpoint.loss(logits + shift, target), loss, rtol=1e-10, atol=1e-12)
    for site in set(cohort["site"]):
        assert gradient[(cohort["site"] == site).to_numpy()].sum().item() == pytest.approx(0, abs=1e-12)
    assert torch.equal(endpoint.encode(cohort.iloc[5:9]), target[5:9])  # codes do not depend on the other patients


def test_single_stratum_equals_none_and_unknown_one_is_pooled() -> None:
    cohort = cohort_with_sites(1).assign(site="Lyon")
    logits = torch.tensor(cohort[["x"]].to_numpy())
    plain, endpoint = Cox(), Cox(strata="site")
    assert endpoint.loss(logits, endpoint.encode(cohort)) == pytest.approx(plain.loss(logits, plain.encode(cohort)))
    several = cohort_with_sites(2)
    endpoint.finish(logits, endpoint.encode(several))
    plain.finish(logits, plain.encode(several))
    pooled = plain.curve(logits, [10.0, 30.0])
    assert torch.equal(endpoint.curve(logits, [10.0, 30.0]), pooled)
    assert torch.equal(endpoint.stratum_curve(logits, [10.0, 30.0], "Bergen"), pooled)
    assert not torch.allclose(endpoint.stratum_curve(logits, [10.0, 30.0], "Oslo"), pooled)


def test_baseline_with_unequal_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="2 times and 1 hazards"):
        Cox().load_state({"baseline_times": [1.0, 2.0], "baseline_hazard": [0.1]})


def test_no_curve_without_a_baseline() -> None:
    with pytest.raises(ValueError, match="no survival curve before it is fitted"):
        Cox().curve(torch.zeros(1, 1), [1.0])


def test_few_events_are_one_stratum_and_many_are_halved_by_time() -> None:
    for events, strata in ((19, 1), (20, 2)):
        time = torch.arange(1.0, 61.0)
        target = torch.stack([time, (torch.arange(60) < events).float()], 1)
        of_events = Cox().strata(target)[:events]
        assert len(set(of_events.tolist())) == strata
        assert len(set(Cox().strata(target)[events:].tolist())) == 2


def test_few_censored_patients_are_spread_with_the_events() -> None:
    target = torch.tensor([[float(time), float(time > 2)] for time in range(1, 41)])
    strata = Cox().strata(target)
    assert sorted(np.bincount(strata)[np.unique(strata)].tolist()) == [20, 20]
