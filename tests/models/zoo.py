"""Every model of `conf/model/`, built as `mil train` does, and bags to read."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from mil import config
from mil.bags import Bags
from mil.models.mil_model import MILModel
from mil.models.network_ensemble import NetworkEnsemble
from mil.study import build
from mil.study.compose import compose

NAMES = config.choices("model")
ENSEMBLES = ("2 abmil", "2 simlp")
"""Ensembles of two networks with and without attention."""
IN_DIM = 12


@cache
def composed(name: str) -> Any:
    return compose([f"model={name}"])


def build_model(name: str, out_dim: int = 1, seed: int = 0) -> MILModel:
    """Return the model in evaluation mode with the weights of a seed; `2 abmil` is an ensemble of two networks."""
    torch.manual_seed(seed)
    amount, _, bare = name.rpartition(" ")
    members = [build.model(composed(bare), IN_DIM, out_dim) for _ in range(int(amount or 1))]
    return (NetworkEnsemble(members) if amount else members[0]).eval()


def simulated(
    sizes: Sequence[int], seed: int = 0, dtype: torch.dtype = torch.float32, slides: int = 1, width: int = IN_DIM
) -> Bags:
    """Return bags with tiles in rows of ten; several slides take the tiles in turn and share the places."""
    generator, tiles = torch.Generator().manual_seed(seed), sum(sizes)
    order = torch.cat([torch.arange(size) for size in sizes])
    rank, slide = order // slides, order % slides
    places = 512 * torch.stack([rank % 10, rank // 10], 1)
    features = torch.randn(tiles, width, generator=generator).to(dtype)
    return Bags(features, tuple(sizes), places, slide if slides > 1 else None)


def permuted(bags: Bags, seed: int) -> tuple[Bags, torch.Tensor]:
    """Return the bags with the tiles of each bag in random order, and the original index of each tile."""
    generator = torch.Generator().manual_seed(seed)
    starts = zip(bags.offsets.tolist(), bags.sizes, strict=False)
    order = torch.cat([start + torch.randperm(size, generator=generator) for start, size in starts])
    coords, slide = (None if rows is None else rows[order] for rows in (bags.coords, bags.slide))
    return Bags(bags.features[order], bags.sizes, coords, slide), order
