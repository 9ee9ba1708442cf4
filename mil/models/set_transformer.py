"""Set Transformer: tiles exchange information through inducing points, and seeds read the set.

J. Lee, Y. Lee, J. Kim, A. R. Kosiorek, S. Choi, Y. W. Teh: Set transformer: a framework for attention-based
permutation-invariant neural networks. ICML 2019, arXiv:1810.00825. MAB is equations (6) and (7), ISAB (9) and (10), PMA
(11). The authors' code is juho-lee/set_transformer.
"""

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from mil.bags import Bags
from mil.models.mil_model import MILModel, Output
from mil.tile_rows import TileRows, blocks, mapped


class SetTransformer(MILModel):
    """Blocks of induced self-attention (ISAB), then pooling by multi-head attention of learnt seeds (PMA).

    Attention is that of the seeds to the tiles, the mean over heads and seeds. Departures: a linear layer brings tiles
    to the width of the blocks. As in the authors' code, what is added to the attention is the projected query, scores
    are divided by the root of the whole width, and PMA has no feed-forward layer before it. Keys have no bias, which
    the softmax would remove. Seeds attend to each other (SAB) where there are two or more.
    """

    paper: ClassVar[str] = "Lee 2019"
    cost: ClassVar[str] = "n m, m points"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        embed_dim: int = 256,
        heads: int = 4,
        blocks: int = 2,
        inducing: int = 16,
        seeds: int = 1,
        norm: bool = True,
    ) -> None:
        """`inducing` points m of each of the `blocks`; `seeds` is the paper's k; `norm`: layer normalisation."""
        super().__init__()
        if inducing < 2 or seeds < 1:
            raise ValueError(f"{inducing} inducing points and {seeds} seeds, expected two or more, and one or more")
        self.start = nn.Linear(in_dim, embed_dim)
        self.points = nn.ParameterList(_drawn(inducing, embed_dim) for _ in range(blocks))
        self.down = nn.ModuleList(AttentionBlock(embed_dim, heads, norm) for _ in range(blocks))
        self.up = nn.ModuleList(AttentionBlock(embed_dim, heads, norm) for _ in range(blocks))
        self.seeds = _drawn(seeds, embed_dim)
        self.pool = AttentionBlock(embed_dim, heads, norm)
        self.exchange = AttentionBlock(embed_dim, heads, norm) if seeds > 1 else None
        self.head = nn.Linear(seeds * embed_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; the embedding is the seeds side by side `(b, k * e)`; attention `(n,)`.

        `extra["heads"]` `(n, h * k)` is the attention of each head and seed.
        """
        (tiles,) = bags.tilewise(lambda features: (self.start(features),))  # (n, e)
        read = [self._read(rows) for rows in bags.split(tiles)]
        pooled = torch.stack([seeds for seeds, _ in read])  # (b, k, e)
        scores = torch.cat([scores for _, scores in read])  # (n, h * k)
        attention = bags.softmax(scores)
        embedding = pooled.flatten(1)
        return Output(self.head(embedding), embedding, attention.mean(1), {"heads": attention})

    def _read(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """Return the seeds `(k, e)` after reading one bag `(n, e)`, and their scores of its tiles `(n, h * k)`."""
        for points, down, up in zip(self.points, self.down, self.up, strict=True):
            tiles = mapped(partial(up, others=down(points.to(tiles.dtype), tiles)), tiles)
        seeds = self.seeds.to(tiles.dtype)
        scores = mapped(lambda rows: self.pool.attend.scores(seeds, rows).flatten(0, 1).t(), tiles)  # (n, h * k)
        pooled: Tensor = self.pool(seeds, tiles)
        if self.exchange is not None:
            pooled = self.exchange(pooled, pooled)
        return pooled, scores


class AttentionBlock(nn.Module):
    """MAB: attention of rows to others, added to them, then a linear layer with ReLU, added again."""

    def __init__(self, embed_dim: int, heads: int, norm: bool) -> None:
        super().__init__()
        self.attend = Attention(embed_dim, heads)
        self.feed = nn.Linear(embed_dim, embed_dim)
        self.before = nn.LayerNorm(embed_dim) if norm else nn.Identity()
        self.after = nn.LayerNorm(embed_dim) if norm else nn.Identity()

    def forward(self, rows: Tensor, others: Tensor) -> Tensor:
        """`(q, e)` and `(k, e)` to `(q, e)`."""
        read: Tensor = self.before(self.attend(rows, others))
        fed: Tensor = self.after(read + self.feed(read).relu())
        return fed


class Attention(nn.Module):
    """Multi-head attention, to which the projected queries are added."""

    def __init__(self, embed_dim: int, heads: int) -> None:
        super().__init__()
        if embed_dim % heads:
            raise ValueError(f"width {embed_dim} in {heads} heads, expected a multiple of them")
        self.heads, self.scale = heads, embed_dim**-0.5
        self.query = nn.Linear(embed_dim, embed_dim)
        self.key = nn.Linear(embed_dim, embed_dim, bias=False)
        self.value = nn.Linear(embed_dim, embed_dim)

    def forward(self, rows: Tensor, others: Tensor) -> Tensor:
        """`(q, e)` and `(k, e)` to `(q, e)`."""
        query = self._split(self.query(rows))
        if isinstance(others, TileRows):
            read = self._read_in_blocks(query, others)
        else:
            key, value = self._split(self.key(others)), self._split(self.value(others))
            read = scaled_dot_product_attention(query[None], key[None], value[None], scale=self.scale)[0]  # (h, q, w)
        added: Tensor = (query + read).transpose(0, 1).flatten(1)
        return added

    def _read_in_blocks(self, query: Tensor, others: Tensor) -> Tensor:
        """Return what queries `(h, q, w)` read of rows that are computed in blocks, in one pass over them.

        The softmax is that of M. Milakov, N. Gimelshein: Online normalizer calculation for softmax. 2018,
        arXiv:1805.02867: sums so far are scaled anew whenever a larger score is met.
        """
        most = query.new_full((*query.shape[:2], 1), -torch.inf)
        total = torch.zeros_like(most, dtype=torch.float64)  # many sums of blocks are added
        read = torch.zeros_like(query, dtype=torch.float64)
        for block in blocks(others):
            scores = self.scale * query @ self._split(self.key(block)).mT  # (h, q, r)
            larger = torch.maximum(most, scores.amax(2, keepdim=True))
            shares, before = (scores - larger).exp(), (most - larger).exp()
            total = before * total + shares.sum(2, keepdim=True)
            read = before * read + shares @ self._split(self.value(block))
            most = larger
        return (read / total).to(query.dtype)

    def scores(self, rows: Tensor, others: Tensor) -> Tensor:
        """Return what the softmax is taken of, `(h, q, k)`."""
        scores: Tensor = self.scale * self._split(self.query(rows)) @ self._split(self.key(others)).mT
        return scores

    def _split(self, rows: Tensor) -> Tensor:
        """`(q, e)` to `(h, q, w)`."""
        return rows.view(len(rows), self.heads, -1).transpose(0, 1)


def _drawn(count: int, width: int) -> nn.Parameter:
    rows = torch.empty(count, width)
    nn.init.xavier_uniform_(rows)
    return nn.Parameter(rows)
