"""A transformer decoder with one query for each target, after Barspoon.

M. van Treeck: Barspoon, a transformer architecture for multilabel predictions. 2023, GitHub: FWao/barspoon-transformer
(no paper; the decoder is that of A. Vaswani et al.: Attention is all you need, NeurIPS 2017, normalised beforehand).
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.layers.cross_attention import CrossAttention
from mil.layers.dropout import Dropout
from mil.layers.embed import Embed
from mil.layers.self_attention import SelfAttention
from mil.models.mil_model import MILModel, Output


class Decoder(MILModel):
    """One learnt query for each target attends to the tiles; a separate linear layer gives the logits of the target.

    Departures: no self-attention between the tiles and no encoding of their places, which Barspoon has before the
    decoder (its author saw no gain from places; self-attention is quadratic in tiles, see the transformer). Attention
    weights have no dropout. With a single query there is no self-attention.
    """

    paper: ClassVar[str] = "van Treeck 2023"
    cost: ClassVar[str] = "n"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        groups: Sequence[int] | None = None,
        layers: int = 2,
        embed_dim: int = 512,
        heads: int = 8,
        hidden_dim: int = 2048,
        dropout: float = 0.1,
    ) -> None:
        """`groups`: the number of logits of each target, in their order; without it every logit is a target."""
        super().__init__()
        self.groups = (1,) * out_dim if groups is None else tuple(groups)
        if sum(self.groups) != out_dim or min(self.groups, default=0) < 1:
            raise ValueError(f"groups {self.groups}, expected whole numbers that sum to {out_dim} logits")
        self.embed = Embed(in_dim, embed_dim, dropout)
        self.queries = nn.Parameter(torch.rand(len(self.groups), embed_dim))
        alone = len(self.groups) == 1
        self.layers = nn.ModuleList(DecoderLayer(embed_dim, heads, hidden_dim, dropout, alone) for _ in range(layers))
        self.heads = nn.ModuleList(nn.Linear(embed_dim, size) for size in self.groups)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; the embedding is the queries side by side `(b, q * e)`.

        Attention `(n,)` is the last layer's, the mean over heads and queries; each query's lies in `extra["queries"]`
        `(n, q)`.
        """
        tiles = bags.with_features(*bags.tilewise(lambda features: (self.embed(features),)))  # (n, e)
        queries = self.queries.expand(len(bags), -1, -1)  # (b, q, e)
        for layer in self.layers:
            queries, attention = layer(queries, tiles)  # (b, q, e), (n, h, q)
        logits = [head(query) for head, query in zip(self.heads, queries.unbind(1), strict=True)]
        each = attention.mean(1)  # (n, q)
        return Output(torch.cat(logits, 1), queries.flatten(1), each.mean(1), {"queries": each})


class DecoderLayer(nn.Module):
    """Self-attention of the queries, attention to the tiles, feed-forward layers: each a normalised residual step."""

    def __init__(self, embed_dim: int, heads: int, hidden_dim: int, dropout: float, alone: bool) -> None:
        """Create the layer; `alone` means a single query, without self-attention."""
        super().__init__()
        self.exchange = None if alone else nn.Sequential(nn.LayerNorm(embed_dim), SelfAttention(embed_dim, heads))
        self.norm = nn.LayerNorm(embed_dim)
        self.attend = CrossAttention(embed_dim, embed_dim, embed_dim, heads)
        self.think = nn.Sequential(
            nn.LayerNorm(embed_dim),
            nn.Linear(embed_dim, hidden_dim),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(hidden_dim, embed_dim),
        )
        self.dropout = Dropout(dropout)

    def forward(self, queries: Tensor, tiles: Bags) -> tuple[Tensor, Tensor]:
        """Queries `(b, q, e)` to the same shape, and their attention to the tiles `(n, h, q)`."""
        if self.exchange is not None:
            queries = queries + self.dropout(self.exchange(queries))
        read, attention = self.attend(self.norm(queries), tiles)
        queries = queries + self.dropout(read)
        return queries + self.dropout(self.think(queries)), attention
