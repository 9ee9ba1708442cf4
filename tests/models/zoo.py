"""Every model of `conf/model/`, composed and built as `mil train` does, and bags to read."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from mil import build, config
from mil.bags import Bags
from mil.models.base import MILModel

NAMES = config.choices("model")
IN_DIM = 12


@cache
def composed(name: str) -> Any:
    return config.compose(build.prepared([f"model={name}"]))


def built(name: str, out_dim: int = 1, seed: int = 0) -> MILModel:
    """In evaluation mode, with the weights of a seed."""
    torch.manual_seed(seed)
    return build.model(composed(name), IN_DIM, out_dim).eval()


def simulated(sizes: Sequence[int], seed: int = 0, dtype: torch.dtype = torch.float32) -> Bags:
    """Bags whose tiles lie in rows of ten."""
    generator, tiles = torch.Generator().manual_seed(seed), sum(sizes)
    places = torch.cat([torch.stack([torch.arange(size) % 10, torch.arange(size) // 10], 1) for size in sizes])
    return Bags(torch.randn(tiles, IN_DIM, generator=generator).to(dtype), tuple(sizes), 512 * places)
