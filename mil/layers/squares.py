"""Tiles arranged row by row in a square, and attention within and between its regions.

W. Tang, F. Zhou, S. Huang, X. Zhu, Y. Zhang, B. Liu: Feature re-embedding: towards foundation model-level performance
in computational pathology. CVPR 2024, arXiv:2402.17228 (R-MSA with EPEG, CR-MSA).
"""

from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor, nn

from mil.bags import sent
from mil.layers.dropout import Dropout
from mil.layers.self_attention import SelfAttention

SCORES = 2**25
"""Attention scores held at a time: bounds memory where no gradient is kept, changes no result."""


@dataclass(frozen=True, eq=False)
class Squares:
    """`r` square regions of `p` places each; the places beyond the `n` tiles are padding."""

    index: Tensor
    """`(r, p)`: the number of the tile at each place, `n` or more at padding"""
    valid: Tensor
    """`(r, p)`, bool: what is attended to"""

    @classmethod
    def of(cls, n: int, regions: int, padded: bool, device: torch.device) -> "Squares":
        """Arrange `n` tiles in `regions` rows and columns of regions; without padding, empty regions are left out."""
        side = -(-(isqrt(n - 1) + 1) // regions)
        places = torch.arange((regions * side) ** 2).view(regions, side, regions, side)
        index = places.transpose(1, 2).reshape(regions**2, side**2)
        if not padded:
            index = index[(index < n).any(1)]
        index = sent(index, device)
        return cls(index, torch.ones_like(index, dtype=torch.bool) if padded else index < n)

    def take(self, tiles: Tensor) -> Tensor:
        """Map `(n, e)` to `(r, p, e)`, with zeros at padding."""
        n = len(tiles)
        return nn.functional.pad(tiles, (0, 0, 0, 1))[self.index.clamp_max(n)]

    def give(self, places: Tensor, n: int) -> Tensor:
        """Map `(r, p, e)` back to `(n, e)`."""
        order = self.index.flatten().argsort()[:n]
        return places.flatten(0, 1)[order]


class RegionAttention(nn.Module):
    """R-MSA: attention within each region, its scores plus a convolution of them along the queries (EPEG).

    The keys and the convolution have no bias: each would add the same to all scores of a query.
    """

    def __init__(self, embed_dim: int, heads: int, kernel: int, dropout: float) -> None:
        """`kernel`, odd, is EPEG's length; `embed_dim` a multiple of `heads`."""
        super().__init__()
        if embed_dim % heads:
            raise ValueError(f"width {embed_dim} in {heads} heads, expected a multiple of them")
        self.heads = heads
        self.query = nn.Linear(embed_dim, embed_dim)
        self.key = nn.Linear(embed_dim, embed_dim, bias=False)
        self.value = nn.Linear(embed_dim, embed_dim)
        self.positions = nn.Conv2d(heads, heads, (kernel, 1), padding=(kernel // 2, 0), groups=heads, bias=False)
        self.out = nn.Sequential(nn.Linear(embed_dim, embed_dim), Dropout(dropout))

    def forward(self, tiles: Tensor, squares: Squares) -> Tensor:
        """`(n, e)` to `(n, e)`."""
        regions, width = squares.take(tiles), squares.index.shape[1]  # (r, p, e)
        some = max(1, SCORES // (self.heads * width**2))
        chunks = zip(torch.split(regions, some), torch.split(squares.valid, some), strict=True)
        read = torch.cat([self._read(places, valid) for places, valid in chunks])
        out: Tensor = self.out(squares.give(read, len(tiles)))
        return out

    def score_bytes(self, places: torch.Size) -> float:
        """Return the bytes of the four arrays of scores that exist at a time, for places `(r, p)` in regions."""
        regions, width = places
        at_once = min(regions, max(1, SCORES // (self.heads * width**2)))
        return 16.0 * at_once * self.heads * width**2

    def _read(self, places: Tensor, valid: Tensor) -> Tensor:
        """Attend within each region: `(r, p, e)` and `(r, p)` to `(r, p, e)`."""
        query, key, value = (
            layer(places).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )  # (r, h, p, w)
        scores = query @ key.mT / query.shape[3] ** 0.5  # (r, h, p, p)
        scores = scores.masked_fill(~valid[:, None, :, None], 0)
        scores = scores + self.positions(scores)
        attention = scores.masked_fill(~valid[:, None, None], -torch.inf).softmax(3)
        read: Tensor = attention.to(value.dtype) @ value
        return read.transpose(1, 2).flatten(2)


class CrossRegionAttention(nn.Module):
    """CR-MSA: each region is summarised by `k` representatives, which attend to those of other regions and are
    then distributed to the tiles of the region.
    """

    def __init__(self, embed_dim: int, heads: int, k: int, dropout: float) -> None:
        """`embed_dim` is a multiple of `heads`."""
        super().__init__()
        self.score = nn.Linear(embed_dim, k, bias=False)
        self.attend = SelfAttention(embed_dim, heads)
        self.dropout = Dropout(dropout)

    def forward(self, tiles: Tensor, squares: Squares) -> Tensor:
        """`(n, e)` to `(n, e)`."""
        places, padding = squares.take(tiles), ~squares.valid.unsqueeze(1)
        scores = self.score(places).mT  # (r, k, p)
        collect = scores.masked_fill(padding, -torch.inf).softmax(2).to(places.dtype)
        spread = scores.softmax(1).to(places.dtype)
        least = scores.masked_fill(padding, torch.inf).amin(2, keepdim=True)
        most = scores.masked_fill(padding, -torch.inf).amax(2, keepdim=True)
        scaled = (scores - least) / (most - least + 1e-8)
        representatives = (collect @ places).transpose(0, 1)  # (k, r, e)
        read = self.dropout(self.attend(representatives)).transpose(0, 1)  # (r, k, e)
        return squares.give((scaled * spread).mT @ read, len(tiles))
