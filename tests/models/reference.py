"""What other implementations computed once: `golden/*.npz`, described in `golden/README.md`."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


def golden(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs and outputs, and the weights under the names that they have there."""
    with np.load(Path(__file__).parent / "golden" / f"{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    weights = {key.removeprefix("weight."): value for key, value in arrays.items() if key.startswith("weight.")}
    return {key: value for key, value in arrays.items() if not key.startswith("weight.")}, weights


def take(layer: nn.Module, **values: Tensor) -> None:
    """Copies weights by their name in the layer."""
    for name, value in values.items():
        with torch.no_grad():
            layer.get_parameter(name).copy_(value)


def take_linear(layer: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Copies a linear layer's weight, and its bias or zeros where the reference has none."""
    weight = weights[f"{name}.weight"]
    take(layer, weight=weight, bias=weights.get(f"{name}.bias", weight.new_zeros(len(weight))))


def take_gated(layer: nn.Module, weights: Mapping[str, Tensor], value: str, gate: str, score: str) -> None:
    """Copies a gated attention's V, U and w; a bias of w has no effect."""
    branches = {part: torch.cat([weights[f"{value}.{part}"], weights[f"{gate}.{part}"]]) for part in ("weight", "bias")}
    take(layer.get_submodule("branches"), **branches)
    take(layer.get_submodule("score"), weight=weights[f"{score}.weight"])
