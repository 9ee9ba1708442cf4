"""Gradients of one hospital's bags at given weights, bag by bag.

Each bag is propagated alone, with dropout seeded by its name and the step: its gradient is then the same wherever the
bag lies and whichever bags are in its batch, and sums over hospitals equal sums over all patients in one place.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.endpoints.endpoint import Endpoint
from mil.features.batches import BagDataset, Batch, Draw
from mil.federation.shared_loss import SharedCriterion, SharedLoss, SumsRecorder
from mil.models.mil_model import MILModel

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Moment:
    """When a bag is propagated: it determines dropout and which tiles are drawn."""

    seed: int
    epoch: int
    step: int

    def sow(self, name: str) -> None:
        """Seed dropout for a bag."""
        text = f"{self.seed}|{self.epoch}|{self.step}|{name}"
        torch.manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1)


@dataclass(frozen=True, eq=False)
class SharedGradient:
    """Sums and gradients of a model on some bags.

    Attributes:
        model: The network; `load` sets its weights.
        endpoint: Fitted to the patients of all hospitals.
        shared: Its loss as sums.
        data: The bags.
        names: Their names, which seed dropout.
        clip: Norm to which the gradient of each bag is clipped, before it is divided by the number of bags.
    """

    model: MILModel
    endpoint: Endpoint
    shared: SharedLoss
    data: BagDataset
    names: Sequence[str]
    clip: float | None = None

    def load(self, weights: Floats) -> None:
        """Set all parameters from one vector."""
        load_vector(self.model, weights)

    def sums(self, bags: Sequence[int], moment: Moment) -> list[Floats]:
        """Return the sums of a step, one vector for each time that the model computes the endpoint's loss."""
        if not self.shared.by_logits:
            total = torch.zeros(self.shared.width, dtype=torch.float64)
            for bag in bags:
                target = self.data.target[[bag]]
                total += self.shared.sums(torch.zeros(1, self.endpoint.out_dim), target)
            return [total.numpy()]
        calls: list[Tensor] = []
        with torch.no_grad():
            for batch in self._batches(bags, moment):
                recorder = SumsRecorder(self.shared, self.endpoint)
                self.model.loss(self.model(batch.bags), batch.target, recorder)
                calls = calls or [torch.zeros_like(sums) for sums in recorder.sums]
                calls = [total + sums for total, sums in zip(calls, recorder.sums, strict=True)]
        return [total.numpy() for total in calls]

    def gradient(
        self, bags: Sequence[int], moment: Moment, totals: Sequence[Floats], amount: float
    ) -> tuple[Floats, float]:
        """Return these bags' part of the gradient of all `amount` bags, `(parameters,)`, and their part of the loss."""
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        total = torch.zeros(sum(weight.numel() for weight in weights), dtype=torch.float64)
        value, known_totals = 0.0, [torch.from_numpy(np.asarray(values, np.float64)) for values in totals]
        for batch in self._batches(bags, moment):
            criterion = SharedCriterion(self.shared, self.endpoint, known_totals, 1 / amount, len(batch.bags))
            loss = self.model.loss(self.model(batch.bags), batch.target, criterion)
            value += float(loss.detach()) / amount
            pieces = torch.autograd.grad(loss, weights, allow_unused=True)
            flat = torch.cat(
                [
                    torch.zeros(weight.numel(), dtype=torch.float64) if piece is None else piece.double().cpu().ravel()
                    for weight, piece in zip(weights, pieces, strict=True)
                ]
            )
            if self.clip is not None:
                flat = flat * min(1.0, self.clip / max(float(flat.norm()), 1e-12))
            total += flat / amount
        return np.asarray(total.numpy()), value

    def _batches(self, bags: Sequence[int], moment: Moment) -> Iterator[Batch]:
        place = next(self.model.parameters()).device
        self.model.train()
        self.model.begin_epoch(moment.epoch)
        for bag in bags:
            batch = self.data[[Draw(bag, moment.epoch)]]
            moment.sow(self.names[bag])
            yield Batch(batch.bags.to(place).cast(torch.float32), batch.target.to(place), batch.place)


def vector(model: MILModel) -> Floats:
    """Return all parameters that are trained as one vector, in double precision."""
    weights = [weight.detach().double().cpu().ravel() for weight in model.parameters() if weight.requires_grad]
    return np.asarray(torch.cat(weights).numpy())


def load_vector(model: MILModel, weights: Floats) -> None:
    """Set all parameters that are trained from one vector.

    Raises:
        ValueError: The vector has another length.
    """
    values, start = torch.from_numpy(np.array(weights, np.float64)), 0
    parameters = [weight for weight in model.parameters() if weight.requires_grad]
    if len(values) != sum(weight.numel() for weight in parameters):
        raise ValueError(f"{len(values)} weights, expected {sum(weight.numel() for weight in parameters)}")
    with torch.no_grad():
        for weight in parameters:
            weight.copy_(values[start : start + weight.numel()].reshape(weight.shape))
            start += weight.numel()


def steps_of(count: int, steps: int, seed: int, epoch: int, events: NDArray[np.bool_] | None) -> list[list[int]]:
    """Divide a hospital's bags among the steps of an epoch, as equally in size and in events as possible.

    Args:
        count: Number of bags.
        steps: Number of steps.
        seed: Of the order.
        epoch: Number of the epoch.
        events: Which bags have an event, `(count,)`; None where that does not matter.
    """
    rng = np.random.default_rng((seed, epoch))
    kinds = [np.arange(count)] if events is None else [np.flatnonzero(events), np.flatnonzero(~events)]
    groups: list[list[int]] = [[] for _ in range(steps)]
    place = int(rng.integers(steps))
    for kind in kinds:
        for bag in rng.permutation(kind):
            groups[place % steps].append(int(bag))
            place += 1
    return groups
