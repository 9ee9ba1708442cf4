"""Selective state spaces in plain torch.

A. Gu, T. Dao: Mamba: linear-time sequence modeling with selective state spaces. 2023, arXiv:2312.00752. The recurrence
is equation (2) with the discretisation of its code, `A' = exp(d A)` and `B' = d B`: a state of each channel decays by
the step d and takes up the input, and is read by C, where d, B and C depend on the token.
"""

from math import isqrt, log
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, silu, softplus
from torch.utils.checkpoint import checkpoint

SEGMENT = 512
"""Tokens whose states are held at a time; bounds memory, changes no result."""


def selective_scan(
    state: Tensor, tokens: Tensor, step: Tensor, decay: Tensor, take: Tensor, read: Tensor
) -> tuple[Tensor, Tensor]:
    """Return `y_t = sum_s read_t,s h_t,s` with `h_t = exp(step_t decay) h_(t-1) + step_t take_t tokens_t`, `(t, d)`.

    Also returns the state after the last token, `(d, s)`: tokens that follow are scanned from there. States within a
    segment are computed again for the gradient and not stored.

    Args:
        state: `(d, s)`, before the first token.
        tokens: `(t, d)`.
        step: `(t, d)`, positive.
        decay: `(d, s)`, negative.
        take: `(t, s)`, the paper's B.
        read: `(t, s)`, the paper's C.
    """
    outputs = []
    pieces = zip(*(torch.split(rows, SEGMENT) for rows in (tokens, step, take, read)), strict=True)
    for values, steps, takes, reads in pieces:
        if torch.is_grad_enabled():
            out, state = checkpoint(_segment, state, values, steps, decay, takes, reads, use_reentrant=False)
        else:
            out, state = _segment(state, values, steps, decay, takes, reads)
        outputs.append(out)
    return torch.cat(outputs), state


def _segment(
    state: Tensor, tokens: Tensor, step: Tensor, decay: Tensor, take: Tensor, read: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the outputs `(t, d)` of one segment from the state before it, and the state after it `(d, s)`.

    The segment is cut into pieces that are scanned side by side from a state of zero; what each piece receives from
    those before it is added afterwards.
    """
    count = len(tokens)
    length = isqrt(count - 1) + 1
    # padding has a step of zero: it neither decays nor takes up
    tokens, step, take, read = (
        pad(rows, (0, 0, 0, -count % length)).view(-1, length, rows.shape[1]) for rows in (tokens, step, take, read)
    )  # (p, l, d or s)
    inner = torch.zeros(len(tokens), *decay.shape, dtype=tokens.dtype, device=tokens.device)  # (p, d, s)
    taken, outputs = step * tokens, []
    for at in range(length):
        inner = (step[:, at, :, None] * decay).exp() * inner + taken[:, at, :, None] * take[:, at, None]
        outputs.append((inner * read[:, at, None]).sum(2))
    passed = step.cumsum(1)  # (p, l, d)
    before = []
    for place in range(len(tokens)):
        before.append(state)
        state = (passed[place, -1, :, None] * decay).exp() * state + inner[place]
    received = torch.stack(before)  # (p, d, s)
    outputs = [
        out + ((passed[:, at, :, None] * decay).exp() * received * read[:, at, None]).sum(2)
        for at, out in enumerate(outputs)
    ]
    return torch.stack(outputs, 1).flatten(0, 1)[:count], state


class Carried(NamedTuple):
    """What tokens receive from those before them."""

    tokens: Tensor
    """the latest ones that the convolution reads, `(kernel - 1, d)`"""
    state: Tensor
    """`(d, s)`"""


class StateSpace(nn.Module):
    """The inner part of a Mamba block: a causal convolution, the selective scan and the gate (paper, section 3.4)."""

    def __init__(self, width: int, states: int, kernel: int, rank: int) -> None:
        """`width` of the tokens, `states` of each channel, `kernel` of the convolution, `rank` of the step."""
        super().__init__()
        self.states, self.rank, self.kernel = states, rank, kernel
        self.convolve = nn.Conv1d(width, width, kernel, groups=width)
        self.select = nn.Linear(width, rank + 2 * states, bias=False)
        self.step = nn.Linear(rank, width)
        nn.init.uniform_(self.step.weight, -(rank**-0.5), rank**-0.5)
        steps = torch.empty(width).uniform_(log(0.001), log(0.1)).exp()
        with torch.no_grad():
            self.step.bias.copy_(steps + (-torch.expm1(-steps)).log())  # softplus gives the steps
        self.log_decay = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(width, 1))
        self.skip = nn.Parameter(torch.ones(width))

    def start(self) -> Carried:
        """Return what precedes the first token."""
        return Carried(self.skip.new_zeros(self.kernel - 1, len(self.skip)), torch.zeros_like(self.log_decay))

    def forward(self, tokens: Tensor, gate: Tensor, before: Carried) -> tuple[Tensor, Carried]:
        """`(t, d)` and `(t, d)` to `(t, d)`, at least in float32; also what precedes the tokens that follow."""
        with torch.autocast(tokens.device.type, enabled=False):
            dtype = self.skip.dtype
            tokens, gate = torch.cat([before.tokens, tokens.to(dtype)]), gate.to(dtype)
            latest = tokens[len(gate) :]
            tokens = silu(self.convolve(tokens.t()[None])[0].t())
            step, take, read = self.select(tokens).split([self.rank, self.states, self.states], dim=1)
            step = softplus(self.step(step))
            scanned, state = selective_scan(before.state, tokens, step, -self.log_decay.exp(), take, read)
            return (scanned + self.skip * tokens) * silu(gate), Carried(latest, state)
