"""Weibull and log-normal times against lifelines and scipy."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lifelines import LogNormalAFTFitter, WeibullAFTFitter
from scipy import stats
from torch import Tensor

from mil.endpoints.aft import AcceleratedFailure, LogNormal, Weibull

from .patients import follow_up_targets

WIDEST = math.log(5)
both = pytest.mark.parametrize("kind", [Weibull, LogNormal])


def logits_with(endpoint: AcceleratedFailure, location: Any, scale: float) -> Tensor:
    """Return logits that the endpoint reads as these locations and this scale."""
    log_scale = WIDEST * math.atanh(math.log(scale) / WIDEST)
    location = torch.as_tensor(np.asarray(location)) - endpoint.typical
    return torch.stack([location, torch.full_like(location, log_scale)], 1)


def clinical(seed: int = 0, patients: int = 150) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=patients)
    death, leaving = 30 * np.exp(-0.6 * x) * rng.weibull(1.5, patients), rng.uniform(1, 60, patients)
    return pd.DataFrame({"x": x, "time": np.minimum(death, leaving), "event": (death <= leaving).astype(float)})


def lifelines_fit(kind: type[AcceleratedFailure], table: pd.DataFrame) -> tuple[Any, Any, float]:
    """Return the fitted model of lifelines, the location of each patient and the scale."""
    if kind is Weibull:
        fitted = WeibullAFTFitter().fit(table, "time", "event")
        names, scale = ("lambda_", "rho_"), math.exp(-fitted.params_["rho_", "Intercept"])
    else:
        fitted = LogNormalAFTFitter().fit(table, "time", "event")
        names, scale = ("mu_", "sigma_"), math.exp(fitted.params_["sigma_", "Intercept"])
    location = fitted.params_[names[0], "Intercept"] + fitted.params_[names[0], "x"] * table["x"].to_numpy()
    return fitted, location, scale


@both
def test_likelihood_curves_and_medians_match_lifelines(kind: type[AcceleratedFailure]) -> None:
    table = clinical()
    fitted, location, scale = lifelines_fit(kind, table)
    endpoint = kind()
    target = endpoint.encode(table)
    endpoint.fit(target)
    logits = logits_with(endpoint, location, scale)
    assert -endpoint.loss(logits, target).item() * len(table) == pytest.approx(fitted.log_likelihood_, rel=1e-8)
    times = [0.5, 6.0, 24.0, float(target[:, 0].max())]
    expected = fitted.predict_survival_function(table, times=times).to_numpy().T
    np.testing.assert_allclose(endpoint.curve(logits, times), expected, rtol=1e-8)
    median = torch.exp(-endpoint.decode(logits)["risk"])
    np.testing.assert_allclose(median, fitted.predict_median(table), rtol=1e-8)


@both
def test_loss_is_minimal_at_lifelines_coefficients(kind: type[AcceleratedFailure]) -> None:
    table = clinical(1)
    _, location, scale = lifelines_fit(kind, table)
    endpoint = kind()
    target, logits = endpoint.encode(table), logits_with(endpoint, location, scale)
    moves = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    moved = torch.stack([logits[:, 0] + moves[0] + moves[1] * torch.tensor(table["x"]), logits[:, 1] + moves[2]], 1)
    (slopes,) = torch.autograd.grad(endpoint.loss(moved, target), moves)
    assert slopes.abs().max().item() < 1e-5


@both
def test_loss_and_curve_match_scipy_distributions(kind: type[AcceleratedFailure]) -> None:
    target, endpoint, scale, location = follow_up_targets(2, 30), kind(), 0.7, 2.5
    distribution = stats.weibull_min(1 / scale, scale=math.exp(location))
    if kind is LogNormal:
        distribution = stats.lognorm(scale, scale=math.exp(location))
    time, event = target.numpy().T
    expected = -np.where(event == 1, distribution.logpdf(time), distribution.logsf(time)).mean()
    logits = logits_with(endpoint, np.full(30, location), scale)
    assert endpoint.loss(logits, target).item() == pytest.approx(expected, rel=1e-10)
    np.testing.assert_allclose(endpoint.curve(logits[:1], [1.0, 20.0])[0], distribution.sf([1.0, 20.0]), rtol=1e-10)


@both
def test_scaling_times_shifts_locations_by_log_of_the_factor(kind: type[AcceleratedFailure]) -> None:
    target, endpoint = follow_up_targets(3, 40), kind()
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 2)))
    stretched = target * torch.tensor([7.0, 1.0])
    moved = logits + torch.tensor([math.log(7), 0.0])
    extra = math.log(7) * target[:, 1].mean().item()  # densities are per unit of time
    assert endpoint.loss(moved, stretched).item() == pytest.approx(endpoint.loss(logits, target).item() + extra)
    endpoint.fit(target)
    before = endpoint.typical
    endpoint.fit(stretched)
    assert endpoint.typical - before == pytest.approx(math.log(7))


@both
def test_scales_are_bounded_for_extreme_logits(kind: type[AcceleratedFailure]) -> None:
    alone, endpoint = torch.tensor([[10.0, 1.0]], dtype=torch.float64), kind()
    exact = [endpoint.loss(torch.tensor([[math.log(10), -scale]]), alone).item() for scale in (10.0, 1e3, 1e6)]
    assert exact[0] == pytest.approx(exact[2], abs=1e-4)
    assert endpoint.loss(torch.tensor([[-1e6, -1e6]]), alone).isfinite()
