"""Training at one hospital between two averages: the same batches, loss and optimizer as in `mil train`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mil.endpoints.endpoint import Endpoint
from mil.features.batches import BagDataset, TrainOrder
from mil.federation.bag_gradients import load_vector, vector
from mil.layers.dropout import seed_draws
from mil.models.mil_model import MILModel
from mil.study import build
from mil.study.run_config import RunConfig
from mil.training.member_gradients import clip_gradients, restore_gradients

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SiteUpdate:
    """What a site's training made of the common weights."""

    change: Floats
    """of the weights, `(parameters,)`"""
    loss: float
    """mean over the batches"""
    steps: int


def train_at_site(
    config: RunConfig,
    model: MILModel,
    endpoint: Endpoint,
    data: BagDataset,
    weights: Floats,
    *,
    epochs: Sequence[int],
    all_epochs: int,
    pull: float = 0.0,
    correction: Floats | None = None,
) -> SiteUpdate:
    """Train for some epochs from the common weights and return the change.

    Args:
        config: All options of the run.
        model: The network.
        endpoint: Fitted to the patients of all hospitals.
        data: The training bags.
        weights: Common weights, `(parameters,)`.
        epochs: Numbers of the epochs, which determine order and dropout.
        all_epochs: Of the whole training, for the schedule.
        pull: Strength of the pull to the common weights (FedProx, Li et al., MLSys 2020, equation 2).
        correction: Added to each gradient (SCAFFOLD, Karimireddy et al., ICML 2020, equation 3).
    """
    load_vector(model, weights)
    parameters = [weight for weight in model.parameters() if weight.requires_grad]
    start = [weight.detach().clone() for weight in parameters]
    shifts = _like(parameters, correction)
    optimizer = build.optimizer(config)(parameters)
    rates = [group["lr"] for group in optimizer.param_groups]
    schedule, clip = build.make(config.schedule), config.trainer.options.gradient_clip_val
    place, losses = parameters[0].device, list[float]()
    for epoch in epochs:
        batches = list(_order(config, endpoint, data, epoch))
        model.begin_epoch(epoch)
        for number, draws in enumerate(batches):
            factor = schedule(epoch * len(batches) + number, all_epochs * len(batches))
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            batch = data[draws]
            seed_draws(hash((config.seed, epoch, number)) % 2**63, place)
            model.train()
            target = batch.target.to(place)
            loss = model.loss(model(batch.bags.to(place).cast(torch.float32)), target, endpoint)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch ships this method without types
            restore_gradients(model)
            _adjust(parameters, start, pull, shifts)
            if clip:
                clip_gradients(model, clip)
            optimizer.step()
            losses.append(float(loss.detach()))
    return SiteUpdate(vector(model) - np.asarray(weights, np.float64), float(np.mean(losses)), len(losses))


def _order(config: RunConfig, endpoint: Endpoint, data: BagDataset, epoch: int) -> TrainOrder:
    options = config.data
    sizes = np.minimum(data.sizes, options.max_tiles or np.inf).astype(int).tolist()
    weight = None
    if options.balance == "sampling":
        strata = endpoint.strata(data.target)
        weight = 1 / np.bincount(strata)[strata]
    events = None if weight is not None else endpoint.events(data.target)
    return TrainOrder(sizes, options.batch_bags, options.tiles_per_batch, weight, config.seed, epoch, events)


def _like(parameters: Sequence[torch.Tensor], values: Floats | None) -> list[torch.Tensor] | None:
    """Return a vector as tensors like the parameters."""
    if values is None:
        return None
    pieces = torch.split(torch.from_numpy(np.array(values)), [weight.numel() for weight in parameters])
    return [piece.reshape(weight.shape).to(weight) for piece, weight in zip(pieces, parameters, strict=True)]


def _adjust(
    parameters: Sequence[torch.Tensor],
    start: Sequence[torch.Tensor],
    pull: float,
    shifts: Sequence[torch.Tensor] | None,
) -> None:
    """Add FedProx' pull and SCAFFOLD's correction to the gradients."""
    for place, weight in enumerate(parameters):
        if weight.grad is None:
            continue
        if pull:
            weight.grad += pull * (weight.detach() - start[place])
        if shifts is not None:
            weight.grad += shifts[place]
