"""RRT-MIL: tile embeddings are re-embedded by attention within and between regions, then pooled.

W. Tang, F. Zhou, S. Huang, X. Zhu, Y. Zhang, B. Liu: Feature re-embedding: towards foundation model-level performance
in computational pathology. CVPR 2024, arXiv:2402.17228. The authors' code is DearCaat/RRT-MIL.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.layers.embed import Embed
from mil.layers.squares import CrossRegionAttention, RegionAttention, Squares
from mil.models.mil_model import MILModel, Output


class RRT(MILModel):
    """R-MSA with EPEG, CR-MSA, then attention pooling.

    The order of tiles matters: they are arranged row by row in a square, which is cut into 8 x 8 regions; neighbours in
    that square need not be neighbours in the tissue.

    The paper does not say how an incomplete square is filled. The authors' code uses zeros, which are attended to and
    included in the scores that CR-MSA scales; `padded=False` leaves them out. In a bag of up to 64 tiles
    every region is one place: each tile then attends to itself only, and CR-MSA adds nothing. Departures: torch's own
    initial weights; biases that have no effect on attention are left out.
    """

    paper: ClassVar[str] = "Tang 2024"
    cost: ClassVar[str] = "n^2 / 64"
    in_blocks: ClassVar[bool] = True
    order_matters: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        embed_dim: int = 512,
        attention_dim: int = 128,
        heads: int = 8,
        regions: int = 8,
        epeg: int = 15,
        representatives: int = 3,
        shortcut: bool = False,
        padded: bool = True,
        dropout: float = 0.25,
        attention_dropout: float = 0.1,
    ) -> None:
        """`regions` in a row of the square; `epeg` the length of its kernel, odd; `representatives` of each region in
        CR-MSA; `shortcut` adds the first embeddings once more, as the authors do on Camelyon16; `attention_dim` of the
        pooling.
        """
        super().__init__()
        self.regions, self.shortcut, self.padded = regions, shortcut, padded
        self.embed = Embed(in_dim, embed_dim, dropout)
        self.within = RegionAttention(embed_dim, heads, epeg, attention_dropout)
        self.across = CrossRegionAttention(embed_dim, heads, representatives, attention_dropout)
        self.norm_within, self.norm_across, self.norm = (nn.LayerNorm(embed_dim) for _ in range(3))
        self.score = nn.Sequential(
            nn.Linear(embed_dim, attention_dim, bias=False), nn.ReLU(), nn.Linear(attention_dim, 1, bias=False)
        )
        self.head = nn.Linear(embed_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; attention `(n,)` is the pooling's."""
        (tiles,) = bags.tilewise(lambda features: (self.embed(features),))  # (n, e)
        tiles = torch.cat([self._embed_anew(rows) for rows in bags.split(tiles)])
        attention = bags.softmax(self.score(tiles))  # (n, 1)
        embedding = bags.sum(tiles, weight=attention)  # (b, e)
        return Output(self.head(embedding), embedding, attention.squeeze(1))

    def pair_bytes(self, tiles: int) -> float:
        """Return the memory for attention within regions: scores, their convolution and their softmax."""
        return self.within.score_bytes(Squares.of(tiles, self.regions, self.padded, torch.device("cpu")).index.shape)

    def _embed_anew(self, tiles: Tensor) -> Tensor:
        """Re-embed one bag, `(n, e)` to the same shape."""
        squares = Squares.of(len(tiles), self.regions, self.padded, tiles.device)
        rows = tiles + self.within(self.norm_within(tiles), squares)
        rows = rows + self.across(self.norm_across(rows), squares)
        anew: Tensor = self.norm(rows + tiles if self.shortcut else rows)
        return anew
