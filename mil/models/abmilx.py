"""ABMILX: attention scores that are corrected by those of similar tiles.

W. Tang, ...: Revisiting end-to-end learning with slide-level supervision in computational pathology. NeurIPS 2025,
arXiv:2506.02408. The authors' code is DearCaat/E2E-WSI-ABMILX (`modules/abmilx.py`). Multi-head local attention scores
each tile by a part of its embedding in each head; the attention plus module adds `w softmax(Q K^T / sqrt(d)) a` to the
scores a of a head before they are normalised over the bag.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from mil.bags import Bags
from mil.layers.dropout import Dropout
from mil.models.mil_model import MILModel, Output


class ABMILX(MILModel):
    """Each head weighs its part of the tiles' embeddings by scores that tiles with similar parts share.

    The networks that score and compare are the same for all heads, as in the authors' code. The encoder of tiles is
    trained together with the model in the paper; here features are given, as in its second half. Departures: the first
    layer and the classifier have biases; the key's scores and values are padded to the width of a head, so that torch's
    attention needs memory that grows with n and not its square.
    """

    paper: ClassVar[str] = "Tang 2025"
    cost: ClassVar[str] = "n^2"
    in_blocks: ClassVar[bool] = True

    def __init__(self, in_dim: int, out_dim: int, embed_dim: int = 512, heads: int = 8, dropout: float = 0.25) -> None:
        """`embed_dim` is a multiple of `heads`."""
        super().__init__()
        if embed_dim % heads:
            raise ValueError(f"width {embed_dim} in {heads} heads, expected a multiple of them")
        width = embed_dim // heads
        self.heads = heads
        self.embed = nn.Sequential(nn.Linear(in_dim, embed_dim), nn.GELU(), Dropout(dropout))
        self.score = nn.Sequential(nn.Linear(width, width, bias=False), nn.GELU(), nn.Linear(width, 1, bias=False))
        self.norm = nn.LayerNorm(width)
        self.query_key = nn.Linear(width, 2 * width, bias=False)
        self.value = nn.Linear(1, 1, bias=False)
        self.mix = nn.Linear(embed_dim, embed_dim)
        self.head = nn.Linear(embed_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; attention `(n,)` is the mean over the heads, which lie in `extra["heads"]` `(n, h)`."""
        tiles, scores = bags.tilewise(self._read)  # (n, e), (n, h)
        shared = torch.cat([self._shared(*rows) for rows in zip(bags.split(tiles), bags.split(scores), strict=True)])
        attention = bags.softmax(scores + shared)  # (n, h)
        pooled = bags.sum(tiles, weight=attention).view(len(bags), self.heads, self.heads, -1)  # (b, h, h, w)
        embedding = self.mix(pooled.diagonal(dim1=1, dim2=2).transpose(1, 2).flatten(1))  # (b, e)
        return Output(self.head(embedding), embedding, attention.mean(1), {"heads": attention})

    def _read(self, features: Tensor) -> tuple[Tensor, Tensor]:
        tiles = self.embed(features)
        return tiles, self.score(self._split(tiles)).squeeze(2)

    def _split(self, tiles: Tensor) -> Tensor:
        """`(n, e)` to `(n, h, w)`."""
        return tiles.view(len(tiles), self.heads, -1)

    def _shared(self, tiles: Tensor, scores: Tensor) -> Tensor:
        """Return what one bag's tiles `(n, e)` take over of each other's scores `(n, h)`, `(n, h)`."""
        query, key = self.query_key(self.norm(self._split(tiles))).transpose(0, 1).chunk(2, dim=2)  # (h, n, w)
        value = pad(self.value(scores.t().unsqueeze(2)).to(query.dtype), (0, query.shape[2] - 1))  # (h, n, w)
        return scaled_dot_product_attention(query[None], key[None], value[None])[0, :, :, 0].t()
