"""TransMIL: self-attention of tiles, with positions from their order.

Z. Shao, H. Bian, Y. Chen, Y. Wang, J. Zhang, X. Ji, Y. Zhang: TransMIL: transformer based correlated multiple instance
learning for whole slide image classification. NeurIPS 2021, arXiv:2106.00908 (TPT module and PPEG, section 3.3). The
authors' code is szc19990412/TransMIL.
"""

from math import isqrt
from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.layers.embed import Embed
from mil.layers.nystrom import NystromAttention
from mil.layers.positions import PPEG
from mil.layers.shares import shares
from mil.models.mil_model import MILModel, Output


class TransMIL(MILModel):
    """Two layers of Nyström attention over a class token and the tiles, with PPEG's convolutions in between.

    The order of tiles matters: they are arranged row by row in a square, which is filled with copies of the first
    tiles, and PPEG's convolutions use neighbours in that square, not in the tissue.

    Attention is the class token's in the last layer: the mean over heads of its row of the Nyström product, the shares
    of a tile's two copies added, negative ones set to zero, scaled to sum to one (departure: the paper shows it without
    saying how the approximation's negative weights are read).

    The paper does not say how a bag is divided into landmarks. The authors' code pads it with tokens of zeros and
    attends to them; `padded=False` does not.
    """

    paper: ClassVar[str] = "Shao 2021"
    cost: ClassVar[str] = "n m, m landmarks"
    in_blocks: ClassVar[bool] = True
    order_matters: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        embed_dim: int = 512,
        heads: int = 8,
        landmarks: int = 256,
        padded: bool = True,
        dropout: float = 0.1,
    ) -> None:
        """`landmarks` of the Nyström attention; `dropout` on its output."""
        super().__init__()
        self.embed = Embed(in_dim, embed_dim, dropout=0)
        self.class_token = nn.Parameter(torch.randn(embed_dim))
        self.first, self.second = (
            Layer(embed_dim, NystromAttention(embed_dim, heads, landmarks, padded=padded, dropout=dropout))
            for _ in range(2)
        )
        self.positions = PPEG(embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        self.head = nn.Linear(embed_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; attention `(n,)` is the class token's."""
        (tiles,) = bags.tilewise(lambda features: (self.embed(features),))  # (n, e)
        read = [self._read(rows) for rows in bags.split(tiles)]
        embedding = torch.stack([token for token, _ in read])  # (b, e)
        return Output(self.head(embedding), embedding, torch.cat([attention for _, attention in read]))

    def _read(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """Return the class token `(e,)` after one bag `(n, e)`, and its attention `(n,)`."""
        n, side = len(tiles), isqrt(len(tiles) - 1) + 1
        again = side**2 - n
        token = self.class_token.to(tiles.dtype).unsqueeze(0)
        tokens, _ = self.first(torch.cat([token, tiles, tiles[:again]]))  # (1 + side^2, e)
        tokens = torch.cat([tokens[:1], self.positions(tokens[1:], side)])
        tokens, weights = self.second(tokens)  # (1 + side^2, e), (h, 1 + side^2)
        weights = weights[:, 1:].mean(0)
        once = weights[:n] + nn.functional.pad(weights[n:], (0, n - again))
        return self.norm(tokens[0]), shares(once)


class Layer(nn.Module):
    """Attention of normalised tokens, added to them."""

    def __init__(self, embed_dim: int, attend: NystromAttention) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim)
        self.attend = attend

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """`(t, e)` to `(t, e)`, and the attention of the first token `(h, t)`."""
        read, weights = self.attend(self.norm(tokens))
        return tokens + read, weights
