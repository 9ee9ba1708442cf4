"""Attention-based deep multiple instance learning.

M. Ilse, J. M. Tomczak, M. Welling: Attention-based deep multiple instance learning. ICML 2018, arXiv:1802.04712.
Attention is equation (8), gated attention equation (9), pooling equation (7).
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.layers.attention import AttentionScore
from mil.layers.embed import Embed
from mil.models.mil_model import MILModel, Output, TileTerms


class ABMIL(MILModel):
    """A bag is the attention-weighted mean of its tiles' embeddings.

    Departures: V and U have biases; dropout after the embedding and in the attention's branches (the paper has none;
    it is common since CLAM); with several heads, each weighs the tiles separately and the bag embeddings are
    concatenated.
    """

    paper: ClassVar[str] = "Ilse 2018"
    cost: ClassVar[str] = "n"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        embed_dim: int = 512,
        attention_dim: int = 256,
        heads: int = 1,
        gated: bool = False,
        dropout: float = 0.25,
    ) -> None:
        """`attention_dim` is the paper's L, `embed_dim` its M; `gated` takes equation (9) instead of (8)."""
        super().__init__()
        self.embed = Embed(in_dim, embed_dim, dropout)
        self.score = AttentionScore(embed_dim, attention_dim, heads, gated, dropout)
        self.head = nn.Linear(heads * embed_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; attention `(n,)` is the mean over the heads, which lie in `extra["heads"]` `(n, h)`."""
        tiles, scores = bags.tilewise(self._read)  # (n, e), (n, h)
        attention = bags.softmax(scores)  # (n, h)
        embedding = bags.sum(tiles, weight=attention)  # (b, h * e)
        return Output(self.head(embedding), embedding, attention.mean(1), {"heads": attention})

    def tile_terms(self, bags: Bags) -> TileTerms:
        """Return each head's attention, and its part of the last layer applied to each tile."""
        tiles, scores = bags.tilewise(self._read)  # (n, e), (n, h)
        heads = scores.shape[1]
        weight = self.head.weight.view(len(self.head.weight), heads, -1)  # (c, h, e)
        logits = torch.einsum("ne,che->nhc", tiles, weight) + self.head.bias / heads
        return TileTerms(bags.softmax(scores), logits)

    def _read(self, features: Tensor) -> tuple[Tensor, Tensor]:
        tiles = self.embed(features)
        return tiles, self.score(tiles)
