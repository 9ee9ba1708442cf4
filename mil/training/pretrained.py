"""Weights that training starts from, and layers that learn slower than others."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from mil import checkpoint
from mil.errors import ConfigError
from mil.features.encoders import Encoder
from mil.models.fusion import Fused
from mil.models.mil_model import MILModel

logger = logging.getLogger(__name__)
_HEADS = ("head", "heads", "branch_heads", "pseudo_head", "instance", "shift", "gate")
"""Layers that give logits, and those of covariates: they belong to the question and start anew."""


def is_head(name: str) -> bool:
    """Return whether a weight is of a layer that gives logits, or of covariates."""
    return name.removeprefix("inner.").partition(".")[0] in _HEADS


def start_from(model: MILModel, folder: Path, encoder: Encoder) -> list[str]:
    """Copy the weights of a checkpoint, but for those of heads, and return the names of those that start anew.

    Args:
        model: Changed in place.
        folder: Of a checkpoint of the same class and options.
        encoder: Of the features.

    Raises:
        ConfigError: The checkpoint is of another model or of another encoder.
        CheckpointError: It cannot be read.
    """
    loaded = checkpoint.load(folder)
    target = model.inner if isinstance(model, Fused) else model
    source = loaded.model.inner if isinstance(loaded.model, Fused) else loaded.model
    where = f"model.pretrained={folder}"
    if type(source) is not type(target):
        raise ConfigError(f"{where} is of {type(source).__name__}, expected {type(target).__name__} as the model is")
    if (loaded.encoder.level, loaded.encoder.dim) != (encoder.level, encoder.dim) or not (
        loaded.encoder.answers_to(encoder.name) or encoder.answers_to(loaded.encoder.name)
    ):
        raise ConfigError(f"{where} reads features of '{loaded.encoder.name}', these are of '{encoder.name}'")
    weights, state = source.state_dict(), target.state_dict()
    for name, tensor in weights.items():
        if not is_head(name) and (name not in state or state[name].shape != tensor.shape):
            shape = tuple(state[name].shape) if name in state else "none"
            raise ConfigError(f"{where}: {name} is {tuple(tensor.shape)}, the model has {shape}: give the same options")
    target.load_state_dict({name: tensor for name, tensor in weights.items() if not is_head(name)}, strict=False)
    anew = [name for name in state if is_head(name) or name not in weights]
    logger.info("%d of %d tensors from %s, anew: %s", len(state) - len(anew), len(state), folder, ", ".join(anew))
    return anew


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
