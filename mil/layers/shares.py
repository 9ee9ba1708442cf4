"""Weights of tiles as attention."""

import torch
from torch import Tensor


def shares(weights: Tensor) -> Tensor:
    """Return weights `(n,)` of one bag as shares that sum to one, at least in float32.

    Negative weights count as zero; where none is positive, all shares are equal.
    """
    positive = weights.double().clamp_min(0)
    total = positive.sum()
    equal = torch.full_like(positive, 1 / len(positive))
    scaled = torch.where(total == 0, equal, positive / total.where(total != 0, 1))
    return scaled.to(torch.promote_types(weights.dtype, torch.float32))
