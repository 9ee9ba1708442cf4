"""Weighted sums of tiles in half precision, without a copy of all tiles in single precision."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS = 512
"""Tiles that are converted at a time on a CPU: they stay in the cache."""


class WeightedSums(torch.autograd.Function):
    """Each bag's sums of tiles `(n, k)` with weights `(n, h)`, `(b, h, k)`; by matrix products within each bag.

    Sums and the gradient of the weights are computed in the precision of the weights. The gradient of the tiles is a
    product in theirs, written in place bag by bag.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, tiles: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return the sums in the precision of the weights."""
        out = weight.new_zeros(len(sizes), weight.shape[1], tiles.shape[1])
        for bag, (start, stop), rows in _blocks(tiles, sizes, weight.dtype):
            out[bag].addmm_(weight[start:stop].t(), rows)
        ctx.save_for_backward(weight, tiles)
        ctx.sizes = sizes
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Return the gradients of weights and tiles."""
        weight, tiles = ctx.saved_tensors
        of_weight = torch.empty_like(weight) if ctx.needs_input_grad[0] else None
        of_tiles = torch.empty_like(tiles) if ctx.needs_input_grad[1] else None
        if of_weight is not None:
            for bag, (start, stop), rows in _blocks(tiles, ctx.sizes, weight.dtype):
                torch.mm(rows, pull[bag].t(), out=of_weight[start:stop])
        if of_tiles is not None:
            half, sizes = tiles.dtype, list(ctx.sizes)
            pieces = (torch.split(rows, sizes) for rows in (of_tiles, weight.to(half)))
            bags = zip(*pieces, pull.to(half).unbind(), strict=True)
            for place, shares, each in bags:
                torch.mm(shares, each, out=place)
        return of_weight, of_tiles, None


def _blocks(
    tiles: Tensor, sizes: Sequence[int], precision: torch.dtype
) -> Iterator[tuple[int, tuple[int, int], Tensor]]:
    """Yield the bag of some tiles, their first and last rows, and the tiles in another precision."""
    most = ROWS if tiles.device.type == "cpu" else max(sizes)
    scratch = tiles.new_empty(min(most, max(sizes)), tiles.shape[1], dtype=precision)
    end = 0
    for bag, size in enumerate(sizes):
        first, end = end, end + size
        for start in range(first, end, most):
            stop = min(start + most, end)
            yield bag, (start, stop), scratch[: stop - start].copy_(tiles[start:stop])
