"""Dropout masks from random bytes: rate, scale, seed and gradient."""

import pytest
import torch

from mil.layers.dropout import Dropout, seed_draws


def drop(values: torch.Tensor, rate: float, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    dropped: torch.Tensor = Dropout(rate)(values)
    return dropped


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.1, 0.3, 0.999, 0.001])
def test_every_rate_is_exact(rate: float) -> None:
    count = 2_000_000
    dropped = drop(torch.ones(count, dtype=torch.float64), rate)
    four_deviations = 4 * (rate * (1 - rate) / count) ** 0.5  # of 0.1: half its distance from the nearest 256th
    assert (dropped == 0).double().mean().item() == pytest.approx(rate, abs=four_deviations)
    assert torch.equal(dropped[dropped != 0], dropped.max().expand(int((dropped != 0).sum())))
    assert dropped.max().item() == 1 / (1 - rate)
    assert dropped.mean().item() == pytest.approx(1, abs=four_deviations / (1 - rate))


def test_the_byte_that_a_rate_cuts_is_decided_in_the_same_way_for_one_seed() -> None:
    assert torch.equal(drop(torch.ones(10_000), 0.1, seed=3), drop(torch.ones(10_000), 0.1, seed=3))


def test_adjacent_elements_are_dropped_independently() -> None:
    dropped = drop(torch.ones(125_000, 8), 0.5) != 0
    correlation = torch.corrcoef(dropped.T.double())
    torch.testing.assert_close(correlation, torch.eye(8, dtype=torch.float64), rtol=0, atol=5 / 125_000**0.5)


def test_evaluation_is_the_identity() -> None:
    values = torch.randn(5, 3)
    assert Dropout(0.5).eval()(values) is values


def test_rate_zero_drops_nothing() -> None:
    values = torch.randn(5, 3)
    assert Dropout(0).train()(values) is values


def test_mask_depends_on_the_seed_of_torch() -> None:
    values = torch.randn(40, 30)
    assert torch.equal(drop(values, 0.5, seed=1), drop(values, 0.5, seed=1))
    assert not torch.equal(drop(values, 0.5, seed=1), drop(values, 0.5, seed=2))
    torch.manual_seed(1)
    layer = Dropout(0.5)
    assert not torch.equal(layer(values), layer(values))


def test_draws_are_seeded_as_by_torch() -> None:
    torch.manual_seed(7)
    expected = torch.randn(5)
    seed_draws(7, torch.device("cpu"))
    assert torch.equal(torch.randn(5), expected)


def test_gradient_has_the_same_mask() -> None:
    values = torch.randn(40, 30, requires_grad=True)
    dropped = drop(values, 0.25)
    (gradient,) = torch.autograd.grad(dropped.sum(), values)
    torch.testing.assert_close(gradient, torch.where(dropped == 0, 0.0, 4 / 3), rtol=1e-7, atol=0)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 3), (0, 4), (2, 3, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shape_and_dtype_are_preserved(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    dropped = drop(torch.ones(shape, dtype=dtype), 0.5)
    assert dropped.shape == shape
    assert dropped.dtype == dtype
    assert set(dropped.flatten().tolist()) <= {0, 2}


def test_last_elements_of_an_odd_count_are_dropped_too() -> None:
    survives = torch.stack([drop(torch.ones(11), 0.5, seed) for seed in range(400)]) != 0
    assert ((survives.double().mean(0) - 0.5).abs() < 4 * 0.5 / 400**0.5).all()


def test_fused_kernel_is_used_off_the_cpu() -> None:
    values = torch.empty(4, 5, device="meta")
    dropped = drop(values, 0.5)
    assert dropped.device.type == "meta"
    assert dropped.shape == (4, 5)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_rates_outside_zero_to_one_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"dropout rate is .*, expected a number in \[0, 1\)"):
        Dropout(rate)
