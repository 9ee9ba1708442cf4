"""Weights that training starts from, and layers that learn slower than others."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from mil import checkpoint
from mil.errors import ConfigError
from mil.features.encoders import Encoder
from mil.models.mil_model import MILModel
from mil.models.network_ensemble import members_of

logger = logging.getLogger(__name__)
_HEADS = ("head", "heads", "branch_heads", "pseudo_head", "instance", "shift", "gate")
"""Layers that give logits, and those of covariates: they belong to the question and start anew."""
_WITHIN = r"^(inner\.)?(members\.\d+\.)?(inner\.)?"
"""Where a network lies in the fusion with covariates, an ensemble, or masked training."""


def is_head(name: str) -> bool:
    """Return whether a weight is of a layer that gives logits, or of covariates."""
    return re.sub(_WITHIN, "", name).partition(".")[0] in _HEADS


def start_from(model: MILModel, folder: Path, encoder: Encoder) -> list[str]:
    """Copy the weights of a checkpoint, but for those of heads, and return the names of those that start anew.

    All members of an ensemble start from a single network, or each from the member in its place of an ensemble.

    Args:
        model: Changed in place.
        folder: Of a checkpoint of the same class and options.
        encoder: Of the features.

    Raises:
        ConfigError: The checkpoint is of another model or of another encoder.
        CheckpointError: It cannot be read.
    """
    loaded = checkpoint.load(folder)
    targets, sources = members_of(model), members_of(loaded.model)
    where = f"model.pretrained={folder}"
    if type(sources[0]) is not type(targets[0]):
        kinds = type(sources[0]).__name__, type(targets[0]).__name__
        raise ConfigError(f"{where} is of {kinds[0]}, expected {kinds[1]} as the model is")
    if len(sources) not in (1, len(targets)):
        raise ConfigError(f"{where} has {len(sources)} networks, expected 1 or model.members={len(sources)}")
    if (loaded.encoder.level, loaded.encoder.dim) != (encoder.level, encoder.dim) or not (
        loaded.encoder.answers_to(encoder.name) or encoder.answers_to(loaded.encoder.name)
    ):
        raise ConfigError(f"{where} reads features of '{loaded.encoder.name}', these are of '{encoder.name}'")
    for at, target in enumerate(targets):
        anew = _copy(sources[at % len(sources)], target, where)
    total = len(targets[0].state_dict())
    logger.info("%d of %d tensors from %s, anew: %s", total - len(anew), total, folder, ", ".join(anew))
    return anew


def _copy(source: MILModel, target: MILModel, where: str) -> list[str]:
    """Copy the weights of a network, but for those of heads, and return the names of those that start anew."""
    weights, state = source.state_dict(), target.state_dict()
    for name, tensor in weights.items():
        if not is_head(name) and (name not in state or state[name].shape != tensor.shape):
            shape = tuple(state[name].shape) if name in state else "none"
            raise ConfigError(f"{where}: {name} is {tuple(tensor.shape)}, the model has {shape}: give the same options")
    target.load_state_dict({name: tensor for name, tensor in weights.items() if not is_head(name)}, strict=False)
    return [name for name in state if is_head(name) or name not in weights]


def groups(model: nn.Module, trunk_lr: float, rate: float) -> Iterator[dict[str, Any]]:
    """Yield the groups of weights with their learning rates: heads at `rate`, all others at a part of it.

    With a part of zero the others are frozen: the heads are a linear probe.

    Raises:
        ConfigError: The model has no layer that is known to give logits.
    """
    named = list(model.named_parameters())
    heads = [weight for name, weight in named if is_head(name)]
    if not heads:
        raise ConfigError(f"model.trunk_lr={trunk_lr:g}: the model has no layer of its own for logits")
    yield {"params": heads, "lr": rate}
    trunk = [weight for name, weight in named if not is_head(name)]
    for weight in trunk:
        weight.requires_grad_(trunk_lr > 0)
    if trunk_lr > 0:
        yield {"params": trunk, "lr": rate * trunk_lr}
