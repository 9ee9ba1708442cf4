"""Dual-stream multiple instance learning.

B. Li, Y. Li, K. W. Eliceiri: Dual-stream multiple instance learning network for whole slide image classification with
self-supervised contrastive learning. CVPR 2021, arXiv:2011.08939. One stream scores tiles and takes the highest, the
critical tile; the other weighs all tiles by how near their queries are to the critical one's.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.layers.dropout import Dropout
from mil.layers.embed import Embed
from mil.models.mil_model import Criterion, MILModel, Output


class DSMIL(MILModel):
    """The tile with the highest score of each class, and attention to the tiles that resemble it.

    The paper's score of a bag is the mean of both streams; the authors' code (binli123/dsmil-wsi) learns both and
    predicts by the bag stream alone (`average=False`). From the code, not in the paper: queries of two layers under a
    tanh (`deep_query=False` takes the paper's single matrix), a scale of `1 / sqrt(query_dim)` on their products, and
    values that are the embeddings themselves (`value=True` gives them a layer, the paper's W_v). Departure: an
    embedding layer with dropout before both streams, as in the other models; the paper's features come as they are.
    """

    paper: ClassVar[str] = "Li 2021"
    cost: ClassVar[str] = "n"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        embed_dim: int = 512,
        query_dim: int = 128,
        deep_query: bool = True,
        value: bool = False,
        average: bool = True,
        dropout: float = 0.25,
    ) -> None:
        """`query_dim` is the width in which tiles are compared with the critical one."""
        super().__init__()
        self.average = average
        self.embed = Embed(in_dim, embed_dim, dropout)
        self.instance = nn.Linear(embed_dim, out_dim)
        deep = (nn.ReLU(), nn.Linear(query_dim, query_dim), nn.Tanh()) if deep_query else ()
        self.query = nn.Sequential(nn.Linear(embed_dim, query_dim), *deep)
        self.value = nn.Sequential(Dropout(dropout), nn.Linear(embed_dim, embed_dim), nn.ReLU()) if value else None
        self.head = nn.Linear(out_dim * embed_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; attention `(n,)` is the mean over the classes.

        In `extra`: "heads" `(n, c)`, each class's attention; "scores" `(n, c)` of tiles; "instance" and "bag" `(b, c)`,
        the two streams' logits.
        """
        tiles, scores, queries = bags.tilewise(self._read)  # (n, v), (n, c), (n, q)
        critical = _highest(bags, scores)  # (b, c), rows of tiles
        attention = bags.softmax(_products(bags, queries, queries[critical]))  # (n, c)
        embedding = bags.sum(tiles, weight=attention)  # (b, c * v)
        instance, bag = scores.gather(0, critical), self.head(embedding)  # (b, c), (b, c)
        logits = (instance + bag) / 2 if self.average else bag
        extra = {"heads": attention, "scores": scores, "instance": instance, "bag": bag}
        return Output(logits, embedding, attention.mean(1), extra)

    def loss(self, output: Output, target: Tensor, endpoint: Criterion) -> Tensor:
        """Return half the endpoint's loss of each stream, `()`."""
        losses = [endpoint.loss(output.extra[stream], target) for stream in ("instance", "bag")]
        return (losses[0] + losses[1]) / 2

    def _read(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tiles = self.embed(features)
        values = tiles if self.value is None else self.value(tiles)
        return values, self.instance(tiles), self.query(tiles)


def _highest(bags: Bags, scores: Tensor) -> Tensor:
    """Return the tile with the highest score in each bag and class: `(n, c)` to rows `(b, c)`."""
    padded, mask = bags.pad(scores.detach())  # (b, m, c), (b, m)
    best = padded.masked_fill(~mask.unsqueeze(2), -torch.inf).argmax(1)
    rows: Tensor = best + bags.offsets[:-1, None]
    return rows


def _products(bags: Bags, queries: Tensor, critical: Tensor) -> Tensor:
    """Return scaled inner products of each tile's query `(n, q)` with its bag's critical ones `(b, c, q)`, `(n, c)`."""
    pairs = zip(bags.split(queries), critical.unbind(0), strict=True)
    return torch.cat([rows @ best.t() for rows, best in pairs]) / math.sqrt(queries.shape[1])
