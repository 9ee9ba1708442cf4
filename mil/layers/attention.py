"""Attention scores of tiles."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mil.layers.dropout import Dropout


class AttentionScore(nn.Module):
    """Unnormalised attention of Ilse et al. 2018: `w tanh(V h)`, gated `w (tanh(V h) * sigmoid(U h))`."""

    def __init__(self, embed_dim: int, attention_dim: int, heads: int, gated: bool, dropout: float) -> None:
        super().__init__()
        self.gated = gated
        # V, with U below it where gated: one product reads the tiles once
        self.branches = nn.Linear(embed_dim, 2 * attention_dim if gated else attention_dim)
        # The branches are only ever multiplied: a mask in each, kept with probability k, is one mask kept with k * k.
        self.dropout = Dropout(1 - (1 - dropout) ** 2 if gated else dropout)
        # A constant added to all scores falls out of the softmax: a bias here would never receive a gradient.
        self.score = nn.Linear(attention_dim, heads, bias=False)

    def forward(self, tiles: Tensor) -> Tensor:
        """`(n, e)` to `(n, h)`; `dropout` falls on each branch."""
        hidden = _gated(self.branches(tiles)) if self.gated else self.branches(tiles).tanh()
        scores: Tensor = self.score(self.dropout(hidden))
        return scores


def _gated(branches: Tensor) -> Tensor:
    """Return `tanh(v) * sigmoid(u)` of v and u side by side, `(n, 2 a)` to `(n, a)`."""
    if torch.is_grad_enabled() and branches.requires_grad:
        hidden: Tensor = _Gated.apply(branches)  # type: ignore[no-untyped-call]
        return hidden
    value, gate = branches.chunk(2, dim=1)
    return value.tanh() * gate.sigmoid()


class _Gated(torch.autograd.Function):
    """The gate in training: the gradients of both branches are written side by side, and not joined afterwards."""

    @staticmethod
    def forward(ctx: Any, branches: Tensor) -> Tensor:
        value, gate = branches.chunk(2, dim=1)
        value, gate = _tanh(value), gate.sigmoid()
        ctx.save_for_backward(value, gate)
        return value * gate

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> Tensor:
        value, gate = ctx.saved_tensors
        out: Tensor = value.new_empty(len(value), 2 * value.shape[1])
        of_value, of_gate = out.chunk(2, dim=1)
        torch.ops.aten.tanh_backward.grad_input(pull * gate, value, grad_input=of_value)
        torch.ops.aten.sigmoid_backward.grad_input(pull * value, gate, grad_input=of_gate)
        return out


def _tanh(values: Tensor) -> Tensor:
    """Return `tanh`, in half precision as `2 sigmoid(2 x) - 1` computed in float32: in half of the time on a CPU."""
    if values.dtype not in (torch.float16, torch.bfloat16):
        return values.tanh()
    return values.float().mul_(2).sigmoid_().mul_(2).sub_(1).to(values.dtype)
