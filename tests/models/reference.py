"""Outputs of other implementations, computed once: `golden/*.npz`, described in `golden/README.md`."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


def golden(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the inputs and outputs of a file, and its weights by their names in the original code."""
    with np.load(Path(__file__).parent / "golden" / f"{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    weights = {key.removeprefix("weight."): value for key, value in arrays.items() if key.startswith("weight.")}
    return {key: value for key, value in arrays.items() if not key.startswith("weight.")}, weights


def copy_parameters(layer: nn.Module, **values: Tensor) -> None:
    """Copy parameters into a layer by name."""
    for name, value in values.items():
        with torch.no_grad():
            layer.get_parameter(name).copy_(value)


def copy_linear(layer: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Copy a linear layer's weight, and its bias or zeros where the reference has none."""
    weight = weights[f"{name}.weight"]
    copy_parameters(layer, weight=weight, bias=weights.get(f"{name}.bias", weight.new_zeros(len(weight))))


def copy_gated(layer: nn.Module, weights: Mapping[str, Tensor], value: str, gate: str, score: str) -> None:
    """Copy V, U and w of a gated attention; a bias of w has no effect."""
    branches = {part: torch.cat([weights[f"{value}.{part}"], weights[f"{gate}.{part}"]]) for part in ("weight", "bias")}
    copy_parameters(layer.get_submodule("branches"), **branches)
    copy_parameters(layer.get_submodule("score"), weight=weights[f"{score}.weight"])
