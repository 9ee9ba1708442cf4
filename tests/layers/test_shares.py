"""Weights normalised to attention."""

import pytest
import torch

from mil.layers.shares import shares


@pytest.mark.parametrize(
    ("weights", "expected"),
    [([1, 3], [0.25, 0.75]), ([2, -7, 2], [0.5, 0, 0.5]), ([0, 0], [0.5, 0.5]), ([-1, -2], [0.5, 0.5]), ([9], [1])],
)
def test_weights_are_scaled_to_sum_to_one(weights: list[float], expected: list[float]) -> None:
    assert shares(torch.tensor(weights, dtype=torch.float32)).tolist() == expected


def test_bfloat16_weights_become_float32() -> None:
    assert shares(torch.ones(3, dtype=torch.bfloat16)).dtype == torch.float32


def test_gradient_is_finite_if_no_weight_is_positive() -> None:
    weights = torch.tensor([-1.0, -2], requires_grad=True)
    (gradient,) = torch.autograd.grad((shares(weights) * torch.tensor([1.0, 2])).sum(), weights)
    assert gradient.tolist() == [0, 0]
