"""The Cox partial likelihood and baseline hazard against lifelines, scikit-survival and the definition."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv
from torch import Tensor

from mil.endpoints.cox import TIES, baseline_hazard, cox_loss

few = settings(deadline=None, max_examples=25)
both = pytest.mark.parametrize("ties", TIES)
Cohort = tuple[Tensor, Tensor, Tensor]


def simulated(seed: int, patients: int, moments: int, events: float = 0.6) -> Cohort:
    """Return log hazards, times and events in float64; fewer moments mean more ties."""
    rng = np.random.default_rng(seed)
    return (
        torch.from_numpy(2 * rng.normal(size=patients)),
        torch.from_numpy(rng.integers(1, moments + 1, patients).astype(float)),
        torch.from_numpy((rng.random(patients) < events).astype(float)),
    )


cohorts = st.builds(simulated, st.integers(0, 2**32 - 1), st.integers(1, 30), st.sampled_from([1, 3, 12, 10**6]))


def event_terms(cohort: Cohort, ties: str) -> Iterator[float]:
    """Yield each event's contribution to the negative log partial likelihood, by the definition."""
    patients = list(zip(*(values.tolist() for values in cohort), strict=True))
    for moment in sorted({time for _, time, event in patients if event}):
        at_risk = sum(math.exp(hazard) for hazard, time, _ in patients if time >= moment)
        dying = [hazard for hazard, time, event in patients if time == moment and event]
        for rank, hazard in enumerate(dying):
            gone = rank / len(dying) * sum(map(math.exp, dying)) if ties == "efron" else 0
            yield math.log(at_risk - gone) - hazard


def gradient(cohort: Cohort, ties: str) -> Tensor:
    hazard, time, event = cohort
    hazard = hazard.clone().requires_grad_()
    (derivative,) = torch.autograd.grad(cox_loss(hazard, time, event, ties), hazard)
    return derivative


@both
@few
@given(cohort=cohorts)
def test_loss_is_the_mean_of_the_event_terms(ties: str, cohort: Cohort) -> None:
    expected = list(event_terms(cohort, ties))
    mean = sum(expected) / max(1, len(expected))
    assert cox_loss(*cohort, ties=ties).item() == pytest.approx(mean, rel=1e-11, abs=1e-11)


def clinical(seed: int, moments: int, patients: int = 120) -> pd.DataFrame:
    """Return patients with two prognostic covariates and `moments` different times."""
    rng = np.random.default_rng(seed)
    covariates = rng.normal(size=(patients, 2))
    death = rng.exponential(np.exp(-covariates @ [0.8, -0.5]))
    leaving = rng.exponential(2, patients)
    time = np.minimum(death, leaving)
    tied = np.ceil(moments * time / time.max()) if moments < patients else time
    return pd.DataFrame({"a": covariates[:, 0], "b": covariates[:, 1], "time": tied, "event": death <= leaving})


def target(table: pd.DataFrame) -> tuple[Tensor, Tensor]:
    return torch.tensor(table["time"].to_numpy()), torch.tensor(table["event"].to_numpy())


@pytest.mark.parametrize(("ties", "moments"), [("efron", 5), ("efron", 30), ("efron", 1000), ("breslow", 1000)])
def test_loss_matches_lifelines_log_likelihood(ties: str, moments: int) -> None:
    table = clinical(0, moments)
    fitted = CoxPHFitter().fit(table, "time", "event", fit_options={"precision": 1e-12})
    hazard = torch.tensor(table[["a", "b"]].to_numpy() @ fitted.params_.to_numpy())
    loss = cox_loss(hazard, *target(table), ties=ties) * table["event"].sum()
    assert -loss.item() == pytest.approx(fitted.log_likelihood_, rel=1e-9)


@both
@pytest.mark.parametrize("moments", [5, 30])
def test_loss_is_minimal_at_scikit_survival_coefficients(ties: str, moments: int) -> None:
    table = clinical(1, moments)
    covariates = table[["a", "b"]].to_numpy()
    fitted = CoxPHSurvivalAnalysis(ties=ties, tol=1e-14).fit(covariates, Surv.from_dataframe("event", "time", table))
    coefficients = torch.tensor(fitted.coef_, requires_grad=True)
    slopes = {}
    for way in TIES:
        loss = cox_loss(torch.tensor(covariates) @ coefficients, *target(table), ties=way)
        slopes[way] = torch.autograd.grad(loss, coefficients)[0].abs().max().item()
    assert slopes.pop(ties) < 1e-9
    assert all(slope > 1e-3 for slope in slopes.values())  # enough ties to separate the methods


@both
@pytest.mark.parametrize("moments", [1, 3, 10**6])
def test_gradients_match_finite_differences(ties: str, moments: int) -> None:
    hazard, time, event = simulated(4, 9, moments)
    assert torch.autograd.gradcheck(lambda h: cox_loss(h, time, event, ties), (hazard.requires_grad_(),))


@both
@few
@given(cohort=cohorts, seed=st.integers(0, 99))
def test_order_of_patients_does_not_matter(ties: str, cohort: Cohort, seed: int) -> None:
    order = torch.randperm(len(cohort[0]), generator=torch.Generator().manual_seed(seed))
    shuffled = (cohort[0][order], cohort[1][order], cohort[2][order])
    torch.testing.assert_close(cox_loss(*shuffled, ties=ties), cox_loss(*cohort, ties=ties), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient(shuffled, ties), gradient(cohort, ties)[order], rtol=1e-10, atol=1e-12)


@both
@few
@given(cohort=cohorts, shift=st.floats(-1000, 1000))
def test_shift_of_all_log_hazards_changes_nothing(ties: str, cohort: Cohort, shift: float) -> None:
    hazard, time, event = cohort
    shifted = cox_loss(hazard + shift, time, event, ties)
    torch.testing.assert_close(shifted, cox_loss(*cohort, ties=ties), rtol=1e-9, atol=1e-9)
    assert gradient(cohort, ties).sum().item() == pytest.approx(0, abs=1e-12)


@both
@few
@given(cohort=cohorts)
def test_only_the_order_of_times_matters(ties: str, cohort: Cohort) -> None:
    hazard, time, event = cohort
    assert torch.equal(cox_loss(hazard, time.log() * 7, event, ties), cox_loss(hazard, time, event, ties))
    assert torch.equal(cox_loss(hazard, time, event.bool(), ties), cox_loss(hazard, time, event, ties))


@both
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("moments", [1, 4, 10**6])
def test_dtype_is_preserved_and_hazards_do_not_overflow(ties: str, dtype: torch.dtype, moments: int) -> None:
    hazard = torch.linspace(-80, 80, 50).to(dtype)
    _, time, event = simulated(0, 50, moments)
    loss = cox_loss(hazard, time, event, ties)
    assert loss.dtype == dtype
    precise = gradient((hazard, time, event), ties)
    assert precise.dtype == dtype
    exact = (hazard.double(), time, event)
    close = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(loss.double(), cox_loss(*exact, ties=ties), rtol=max(close, 1e-12), atol=0)
    torch.testing.assert_close(
        precise.double(), gradient(exact, ties), rtol=max(close, 1e-5), atol=max(close / 50, 1e-12)
    )


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_hundreds_of_ties_stay_finite_in_half_precision(ties: str, dtype: torch.dtype) -> None:
    hazard = (3 + torch.randn(600, generator=torch.Generator().manual_seed(0))).to(dtype)
    everybody = (hazard, torch.ones(600), torch.ones(600))
    expected = cox_loss(hazard.double(), *everybody[1:], ties=ties)
    assert cox_loss(*everybody, ties=ties).item() == pytest.approx(expected.item(), rel=torch.finfo(dtype).eps)
    assert gradient(everybody, ties).isfinite().all()


@both
@pytest.mark.parametrize("patients", [1, 5])
def test_loss_and_gradient_are_zero_without_events(ties: str, patients: int) -> None:
    hazard, time, _ = simulated(0, patients, 3)
    nobody = (hazard, time, torch.zeros(patients))
    assert cox_loss(*nobody, ties=ties).item() == 0
    assert gradient(nobody, ties).tolist() == [0] * patients


@both
def test_loss_of_a_single_patient_is_zero(ties: str) -> None:
    alone = (torch.tensor([3.0]), torch.tensor([2.0]), torch.tensor([1]))
    assert cox_loss(*alone, ties=ties).item() == 0
    assert gradient(alone, ties).tolist() == [0]


def test_unknown_ties_method_is_refused() -> None:
    with pytest.raises(ValueError, match="ties 'exact', expected one of efron, breslow"):
        cox_loss(*simulated(0, 3, 3), ties="exact")


@few
@given(cohorts, st.sampled_from(TIES))
def test_baseline_hazard_follows_the_formula_of_its_ties(cohort: Cohort, ties: str) -> None:
    times, hazards = baseline_hazard(*cohort, ties=ties)
    patients = list(zip(*(values.tolist() for values in cohort), strict=True))
    moments, expected = sorted({time for _, time, event in patients if event}), [0.0]
    for moment in moments:
        at_risk = sum(math.exp(hazard) for hazard, time, _ in patients if time >= moment)
        dying = [math.exp(hazard) for hazard, time, event in patients if time == moment and event]
        left = [rank / len(dying) * sum(dying) if ties == "efron" else 0.0 for rank in range(len(dying))]
        expected.append(expected[-1] + sum(1 / (at_risk - gone) for gone in left))
    assert times.tolist() == moments
    np.testing.assert_allclose(hazards, expected[1:], rtol=1e-9)


def test_with_times_in_years_efrons_baseline_is_the_truth_and_breslows_too_low() -> None:
    """A tenth to a third of the patients have the event in each year: Breslow's survival is exp(-d/n), not 1 - d/n."""
    rng = np.random.default_rng(0)
    score = rng.normal(size=20_000)
    death, left = rng.exponential(4 * np.exp(-score)), rng.uniform(0, 10, len(score))
    time = torch.tensor(np.ceil(np.minimum(death, np.ceil(left))))
    event = torch.tensor(death <= np.ceil(left))
    risks = {}
    for ties in TIES:
        times, hazards = baseline_hazard(torch.tensor(score), time, event, ties)
        reached = float(hazards[times <= 3][-1])
        risks[ties] = float(np.mean(-np.expm1(-reached * np.exp(score))))
    truth = float(np.mean(-np.expm1(-3 / 4 * np.exp(score))))
    assert risks["efron"] == pytest.approx(truth, abs=0.01)
    assert risks["breslow"] < truth - 0.03


@pytest.mark.parametrize("moments", [5, 1000])
def test_baseline_hazard_matches_lifelines(moments: int) -> None:
    table: Any = clinical(2, moments)
    fitted = CoxPHFitter().fit(table, "time", "event")
    hazard = torch.tensor(fitted.predict_log_partial_hazard(table).to_numpy())
    times, hazards = baseline_hazard(hazard, *target(table), ties="breslow")  # lifelines has no other
    expected = fitted.baseline_cumulative_hazard_["baseline cumulative hazard"]
    np.testing.assert_allclose(hazards, expected.loc[times.numpy()], rtol=1e-9)
    assert set(times.tolist()) == set(table.loc[table["event"], "time"])
