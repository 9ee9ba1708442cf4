"""Cluster centres of rows.

S. P. Lloyd: Least squares quantization in PCM. IEEE Transactions on Information Theory 28, 1982. First centres are
drawn as by D. Arthur, S. Vassilvitskii: k-means++: the advantages of careful seeding. SODA 2007.
"""

import torch
from torch import Tensor


def kmeans(rows: Tensor, count: int, iterations: int = 50, seed: int = 0) -> Tensor:
    """Return `count` centres `(count, d)` of rows `(n, d)`; the same rows and seed give the same centres.

    Raises:
        ValueError: There are fewer rows than centres.
    """
    if len(rows) < count:
        raise ValueError(f"{len(rows)} tiles, expected at least one for each of {count} prototypes")
    generator = torch.Generator().manual_seed(seed)
    centres = _spread(rows, count, generator)
    for _ in range(iterations):
        nearest = torch.cdist(rows, centres).argmin(1)  # (n,)
        amount = torch.bincount(nearest, minlength=count).unsqueeze(1)  # (count, 1)
        sums = torch.zeros_like(centres).index_add(0, nearest, rows)
        moved = torch.where(amount > 0, sums / amount.clamp(min=1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def _spread(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw centres among the rows, each with a probability that grows with the squared distance to those drawn."""
    centres = [rows[int(torch.randint(len(rows), (), generator=generator))]]
    squared = torch.full((len(rows),), torch.inf, dtype=rows.dtype)
    for _ in range(count - 1):
        squared = torch.minimum(squared, (rows - centres[-1]).square().sum(1))
        weight = squared if squared.sum() > 0 else torch.ones_like(squared)
        centres.append(rows[int(torch.multinomial(weight, 1, generator=generator))])
    return torch.stack(centres)
