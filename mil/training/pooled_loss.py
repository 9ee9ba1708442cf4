"""The loss of a batch whose bags are divided among processes, as if one process had all of them.

A loss may compare bags: Cox's partial likelihood does, and class weights make a mean of another kind. So the ranks
exchange logits, each computes the loss of all bags, and propagates the gradients of its own logits. The sum of the
gradients of all ranks is that of one process with the whole batch; an average of the ranks' losses would not be.

`MILModel.loss` is a weighted sum of the endpoint's losses and of terms that are means over bags (similarity of
branches, instance losses, entropy). It is called bag by bag with an endpoint that takes note of the logits and returns
a stand-in, whose derivative is the weight.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mil.endpoints.endpoint import Endpoint
from mil.features.batch_shares import IDLE
from mil.features.batches import Batch
from mil.models.mil_model import Criterion, MILModel
from mil.training.ranks import Ranks

_TERMS, _CALL, _SEAT, _WEIGHT, _PLACE, _HEAD = -1, 0, 1, 2, 3, 4
"""Number of the rows that hold a bag's other terms; columns of the exchanged table; how many come before the target."""


@dataclass(frozen=True)
class PooledLoss:
    """The loss of the bags of all ranks.

    Attributes:
        local: `()`, whose gradient is this rank's part of that of the loss.
        value: `()`, the loss.
        place: `(b,)`, which bags of the dataset all ranks had.
    """

    local: Tensor
    value: Tensor
    place: Tensor


@dataclass(frozen=True)
class _Call:
    """Logits and targets for which a model asked for the endpoint's loss."""

    logits: Tensor
    target: Tensor
    stand_in: Tensor


@dataclass(frozen=True)
class _Noting(Criterion):
    """An endpoint that notes the logits whose loss a model asks for, and returns a stand-in of value zero."""

    endpoint: Endpoint
    calls: list[_Call] = field(default_factory=list)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        stand_in = torch.zeros((), device=logits.device, requires_grad=True)
        self.calls.append(_Call(logits, target, stand_in))
        return stand_in

    def membership(self, target: Tensor) -> Tensor | None:
        return self.endpoint.membership(target)


@dataclass(frozen=True)
class _BagLoss:
    """What one bag adds: its calls, the weight of each, and all other terms of its loss."""

    seat: int
    place: int
    calls: Sequence[_Call]
    weights: Sequence[float]
    terms: Tensor


def pooled_loss(
    model: MILModel, endpoint: Endpoint, batch: Batch, ranks: Ranks, sow: Callable[[int], None]
) -> PooledLoss:
    """Return the loss of the bags of all ranks.

    Args:
        model: The network.
        endpoint: Its loss.
        batch: This rank's bags, in the precision of the model.
        ranks: The processes.
        sow: Seeds the draws of a bag by its seat.
    """
    bags = [_bag_loss(model, endpoint, batch, row, seat) for row, seat in seated(batch, sow)]
    table, start = ranks.gathered(_table(bags, batch.target, endpoint.out_dim))
    is_terms = table[:, _CALL] == _TERMS
    terms = table[is_terms, _WEIGHT]
    value = terms.mean()
    pull = torch.zeros(len(table), endpoint.out_dim)
    for call in range(int(table[:, _CALL].max()) + 1):
        rows = (table[:, _CALL] == call).nonzero().squeeze(1)
        rows = rows[table[rows, _SEAT].argsort(stable=True)]  # as one process has them
        logits = table[rows, -endpoint.out_dim :].float().requires_grad_()
        target = unpacked(table[rows, _HEAD : -endpoint.out_dim], batch.target)
        loss = table[rows[0], _WEIGHT].float() * endpoint.loss(logits, target)
        value = value + loss.detach()
        if loss.requires_grad:
            (gradient,) = torch.autograd.grad(loss, logits, materialize_grads=True)
            pull[rows] = gradient
    local = _local(bags, pull[start:], len(terms), batch.bags.features.device)
    return PooledLoss(local, value.float(), table[is_terms, _PLACE].long())


def seated(batch: Batch, sow: Callable[[int], None]) -> Iterator[tuple[int, int]]:
    """Yield row and seat of the bags of a batch that count, after seeding the draws of each by its seat."""
    seats = range(len(batch.bags)) if batch.seat is None else batch.seat.tolist()
    for row, seat in enumerate(seats):
        if seat != IDLE:
            sow(seat)
            yield row, seat


def packed(target: Tensor) -> Tensor:
    """Return targets as columns of a table, `(b, t)` in double precision, which holds every class and time exactly."""
    return target.detach().reshape(len(target), -1).double().cpu()


def unpacked(columns: Tensor, like: Tensor) -> Tensor:
    """Return the targets in columns `(b, t)`, in shape and type of others."""
    return columns.to(like.dtype).reshape(-1, *like.shape[1:])


def _bag_loss(model: MILModel, endpoint: Endpoint, batch: Batch, row: int, seat: int) -> _BagLoss:
    criterion = _Noting(endpoint)
    terms = model.loss(model(batch.bags[row]), batch.target[row : row + 1], criterion)
    stand_ins = [call.stand_in for call in criterion.calls]
    weights = torch.autograd.grad(terms, stand_ins, retain_graph=True, materialize_grads=True)
    return _BagLoss(seat, int(batch.place[row]), criterion.calls, [float(weight) for weight in weights], terms)


def _table(bags: Sequence[_BagLoss], target: Tensor, out_dim: int) -> Tensor:
    """Return the table that ranks exchange: for each bag one row with its terms, and the rows of its calls."""
    width = packed(target).shape[1]
    tables = [torch.zeros(0, _HEAD + width + out_dim, dtype=torch.float64)]
    for bag in bags:
        head = torch.tensor([_TERMS, bag.seat, float(bag.terms.detach()), bag.place], dtype=torch.float64)
        tables.append(torch.nn.functional.pad(head, (0, width + out_dim)).unsqueeze(0))
        for number, (call, weight) in enumerate(zip(bag.calls, bag.weights, strict=True)):
            head = torch.tensor([number, bag.seat, weight, bag.place], dtype=torch.float64)
            rows = packed(call.target), call.logits.detach().double().cpu()
            tables.append(torch.cat([head.expand(len(call.logits), -1), *rows], 1))
    return torch.cat(tables)


def _local(bags: Sequence[_BagLoss], pull: Tensor, count: int, device: torch.device) -> Tensor:
    """Return the scalar whose gradient is this rank's; `pull` begins with the first row of this rank's table."""
    total = torch.zeros((), device=device, requires_grad=True)
    row = 0
    for bag in bags:
        total = total + bag.terms / count
        row += 1
        for call in bag.calls:
            gradient = pull[row : row + len(call.logits)].to(device)
            total = total + (call.logits.float() * gradient).sum()
            row += len(call.logits)
    return total
