"""Weights of tiles read as attention."""

import torch
from torch import Tensor


def shares(weights: Tensor) -> Tensor:
    """Weights `(n,)` of one bag as shares that sum to one: negative ones count nothing; equal where none is positive.

    At least in float32.
    """
    positive = weights.double().clamp_min(0)
    total = positive.sum()
    equal = torch.full_like(positive, 1 / len(positive))
    scaled = torch.where(total == 0, equal, positive / total.where(total != 0, 1))
    return scaled.to(torch.promote_types(weights.dtype, torch.float32))
