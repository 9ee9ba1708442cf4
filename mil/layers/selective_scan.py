"""Selective state spaces in plain torch.

A. Gu, T. Dao: Mamba: linear-time sequence modeling with selective state spaces. 2023, arXiv:2312.00752. The recurrence
is equation (2) with the discretisation of its code, `A' = exp(d A)` and `B' = d B`: a state of each channel decays by
the step d and takes up the input, and is read by C, where d, B and C depend on the token.
"""

from collections.abc import Iterator, Sequence
from math import log
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu, softplus

from mil.bags import sent

SEGMENT = 64
"""Tokens whose states are held at a time: as many as a processor's cache holds; changes no result."""


def selective_scan(
    state: Tensor, tokens: Tensor, step: Tensor, decay: Tensor, take: Tensor, read: Tensor, lengths: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return `y_t = sum_s read_t,s h_t,s` with `h_t = exp(step_t decay) h_(t-1) + step_t take_t tokens_t`, `(n, d)`.

    Also returns the states after the last tokens, `(b, s, d)`: tokens that follow are scanned from there. States are
    computed again for the gradient and not stored.

    Args:
        state: `(b, s, d)`, before the first token of each sequence.
        tokens: `(n, d)`, those of the first sequence, then those of the second one, and so on.
        step: `(n, d)`, positive.
        decay: `(s, d)`, negative.
        take: `(n, s)`, the paper's B.
        read: `(n, s)`, the paper's C.
        lengths: Number of tokens of each of the b sequences.
    """
    if len(lengths) == 1:
        scanned, last = _Scan.apply(state, tokens, step, decay, take, read, [1] * len(tokens))  # type: ignore[no-untyped-call]
        return scanned, last
    counts = torch.tensor(lengths)
    longest = counts.argsort(descending=True, stable=True)  # sequences
    time = torch.cat([torch.arange(length) for length in lengths])  # (n,)
    place = longest.argsort().repeat_interleave(counts)
    order = (time * len(lengths) + place).argsort()  # time by time, in each the longest sequences first
    active = torch.bincount(time).tolist()
    orders = (order, order.argsort(), longest, longest.argsort())
    rows, back, sequences, back_again = (sent(numbers, tokens.device) for numbers in orders)
    inputs = (state[sequences], tokens[rows], step[rows], decay, take[rows], read[rows])
    scanned, last = _Scan.apply(*inputs, active)  # type: ignore[no-untyped-call]
    return scanned[back], last[back_again]


class _Scan(torch.autograd.Function):
    """The scan of rows that come time by time: `active[t]` sequences have a token at time t, always the first ones."""

    @staticmethod
    def forward(
        ctx: Any,
        state: Tensor,
        tokens: Tensor,
        step: Tensor,
        decay: Tensor,
        take: Tensor,
        read: Tensor,
        active: list[int],
    ) -> tuple[Tensor, Tensor]:
        """Return the outputs `(n, d)` and the last states `(b, s, d)`; keeps the states before each segment."""
        outputs, starts = torch.empty_like(tokens), []
        for rows, counts in _segments(active):
            starts.append(state)
            _, states = _states(state, tokens[rows], step[rows], decay, take[rows], counts)
            state = _after(state, states, counts)
            torch.matmul(read[rows].unsqueeze(1), states, out=outputs[rows].unsqueeze(1))
        ctx.active = active
        ctx.save_for_backward(tokens, step, decay, take, read, *starts)
        return outputs, state if active else state.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, flow: Tensor) -> tuple[Tensor | None, ...]:
        """`grad` is that of the outputs, `flow` that of the states, which goes back from token to token."""
        tokens, step, decay, take, read, *starts = ctx.saved_tensors
        of_tokens, of_step, of_take, of_read = (torch.empty_like(rows) for rows in (tokens, step, take, read))
        of_decay, flow = torch.zeros_like(decay), flow.clone()
        for (rows, counts), start in zip(reversed(list(_segments(ctx.active))), reversed(starts), strict=True):
            value, width = tokens[rows], step[rows]
            factors, states = _states(start, value, width, decay, take[rows], counts)  # (r, s, d) each
            torch.matmul(states, grad[rows].unsqueeze(2), out=of_read[rows].unsqueeze(2))
            pull = grad[rows].unsqueeze(1) * read[rows].unsqueeze(2)  # (r, s, d)
            backwards = zip(torch.split(pull, counts)[::-1], torch.split(factors, counts)[::-1], strict=True)
            for part, factor in backwards:
                torch.mul(part.add_(flow[: len(part)]), factor, out=flow[: len(part)])
            torch.matmul(pull, (value * width).unsqueeze(2), out=of_take[rows].unsqueeze(2))
            taken = (take[rows].unsqueeze(1) @ pull).squeeze(1)  # (r, d)
            exponent = factors.mul_(_before(start, states, counts)).mul_(pull)
            of_decay += (exponent * width.unsqueeze(1)).sum(0)
            torch.mul(taken, width, out=of_tokens[rows])
            torch.add(taken * value, (exponent * decay).sum(1), out=of_step[rows])
        return flow, of_tokens, of_step, of_decay, of_take, of_read, None


def _segments(active: Sequence[int]) -> Iterator[tuple[slice, list[int]]]:
    """Yield rows of some times, about `SEGMENT`, and the number of rows of each of these times."""
    row, size = 0, 0
    counts: list[int] = []
    for count in active:
        if counts and size + count > SEGMENT:
            yield slice(row, row + size), counts
            row, counts, size = row + size, [], 0
        counts.append(count)
        size += count
    if counts:
        yield slice(row, row + size), counts


def _states(
    state: Tensor, tokens: Tensor, step: Tensor, decay: Tensor, take: Tensor, counts: list[int]
) -> tuple[Tensor, Tensor]:
    """Return by what each token multiplies the state before it, and the states after it, `(r, s, d)` each."""
    factors = (step.unsqueeze(1) * decay).exp_()
    states = (step * tokens).unsqueeze(1) * take.unsqueeze(2)
    for part, factor in zip(torch.split(states, counts), torch.split(factors, counts), strict=True):
        part.addcmul_(factor, state[: len(part)])
        state = part
    return factors, states


def _after(state: Tensor, states: Tensor, counts: list[int]) -> Tensor:
    """Return the states of all sequences after a segment, `(b, s, d)`."""
    parts, following = torch.split(states, counts), [*counts[1:], 0]
    ends = [part[count:] for part, count in zip(parts, following, strict=True) if len(part) > count]
    return torch.cat([*reversed(ends), state[counts[0] :]])


def _before(state: Tensor, states: Tensor, counts: list[int]) -> Tensor:
    """Return the state before each token of a segment, `(r, s, d)`."""
    parts = torch.split(states, counts)
    return torch.cat([state[: counts[0]], *(part[:count] for part, count in zip(parts, counts[1:], strict=False))])


class Carried(NamedTuple):
    """What the tokens of each sequence receive from those before them."""

    tokens: Tensor
    """the latest ones that the convolution reads, `(b, kernel - 1, d)`"""
    state: Tensor
    """`(b, s, d)`"""


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

    def start(self, sequences: int = 1) -> Carried:
        """Return what precedes the first token of each sequence."""
        width = len(self.skip)
        return Carried(
            self.skip.new_zeros(sequences, self.kernel - 1, width), self.skip.new_zeros(sequences, self.states, width)
        )

    def forward(self, tokens: Tensor, gate: Tensor, before: Carried, lengths: Sequence[int]) -> tuple[Tensor, Carried]:
        """Read sequences of tokens that follow each other in `tokens`.

        Args:
            tokens: `(n, d)`.
            gate: `(n, d)`.
            before: What precedes each of the sequences.
            lengths: Number of tokens of each sequence.

        Returns:
            `(n, d)`, at least in float32, and what precedes the tokens that follow each sequence.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            dtype = self.skip.dtype
            tokens, latest = self._convolved(tokens.to(dtype), before.tokens, lengths)
            step, take, read = torch.split(self.select(tokens), [self.rank, self.states, self.states], dim=1)
            step = softplus(self.step(step))
            decay = -self.log_decay.t().exp()
            scanned, state = selective_scan(before.state, tokens, step, decay, take, read, lengths)
            return (scanned + self.skip * tokens) * silu(gate.to(dtype)), Carried(latest, state)

    def _convolved(self, tokens: Tensor, before: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the convolved tokens `(n, d)` and the last ones of each sequence `(b, kernel - 1, d)`."""
        reach, weight = self.kernel - 1, self.convolve.weight[:, 0].t()
        rows = [torch.cat(parts) for parts in zip(before, torch.split(tokens, list(lengths)), strict=True)]
        joined = torch.cat(rows)  # (b reach + n, d)
        read = joined[reach:] * weight[reach] + cast(Tensor, self.convolve.bias)
        for back in range(1, self.kernel):
            read = torch.addcmul(read, joined[reach - back : -back], weight[reach - back])
        # what lies across the start of the next sequence goes
        parts = torch.split(read, [length + reach for length in lengths[:-1]] + [lengths[-1]])
        read = torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])
        return silu(read), torch.stack([part[len(part) - reach :] for part in rows])
