"""Weighted sums of half-precision tiles: value, gradient, and what is held in single precision."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mil.bags import Bags
from mil.weighted_sums import ROWS

HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
SIZES, WIDTH, HEADS = (700, 1, 1300), 24, 3


class Longest(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Takes note of the most rows of any tensor of tiles in single precision."""

    rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype == torch.float32 and result.shape[-1:] == (WIDTH,):
            self.rows = max(self.rows, len(result))
        return result


def tiles_and_weight(dtype: torch.dtype) -> tuple[Bags, Tensor]:
    torch.manual_seed(0)
    bags = Bags(torch.randn(sum(SIZES), WIDTH).to(dtype).requires_grad_(), SIZES)
    return bags, torch.rand(sum(SIZES), HEADS).requires_grad_()


@HALVES
def test_sums_and_gradients_are_those_of_single_precision(dtype: torch.dtype) -> None:
    bags, weight = tiles_and_weight(dtype)
    pull = torch.randn(len(SIZES), HEADS * WIDTH)
    sums = bags.sum(bags.features, weight)
    expected_sums = bags.sum(bags.features.float(), weight)
    torch.testing.assert_close(sums, expected_sums, rtol=1e-5, atol=1e-4)
    gradients = torch.autograd.grad(sums, (bags.features, weight), pull)
    expected = torch.autograd.grad(expected_sums, (bags.features, weight), pull)
    assert [each.dtype for each in gradients] == [dtype, torch.float32]
    torch.testing.assert_close(gradients[0], expected[0], rtol=2e-2, atol=3e-2)
    torch.testing.assert_close(gradients[1], expected[1], rtol=1e-5, atol=1e-4)


@HALVES
def test_a_step_makes_no_single_precision_copy_of_all_tiles(dtype: torch.dtype) -> None:
    bags, weight = tiles_and_weight(dtype)
    with Longest() as longest:  # type: ignore[no-untyped-call]  # torch has no types here
        torch.autograd.backward(bags.sum(bags.features, weight).sum())
    assert 0 < longest.rows <= ROWS


def test_weights_alone_and_tiles_alone_receive_gradients() -> None:
    bags, weight = tiles_and_weight(torch.bfloat16)
    torch.autograd.backward(bags.sum(bags.features.detach(), weight).sum())
    assert weight.grad is not None
    assert bags.features.grad is None
    torch.autograd.backward(bags.sum(bags.features, weight.detach()).sum())
    assert bags.features.grad is not None
