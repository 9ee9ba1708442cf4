"""Patch-GCN: graph convolutions over the positions of tiles.

R. J. Chen, M. Y. Lu, M. Shaban, C. Chen, T. Y. Chen, D. F. K. Williamson, F. Mahmood: Whole slide images are 2D point
clouds: context-aware survival prediction using patch-based graph convolutional networks. MICCAI 2021,
arXiv:2107.13048. The convolution is GENConv of G. Li, C. Xiong, A. Thabet, B. Ghanem: DeeperGCN, arXiv:2006.07739. The
authors' code is mahmoodlab/Patch-GCN.
"""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.layers.attention import AttentionScore
from mil.layers.dropout import Dropout
from mil.layers.embed import Embed
from mil.layers.neighbours import Nearest, Places, nearest
from mil.models.mil_model import MILModel, Output
from mil.tile_rows import TileRows, computed_once, whole


class PatchGCN(MILModel):
    """Three graph convolutions with residuals, all depths concatenated, gated attention pooling.

    The neighbours of a tile are the eight nearest on its slide; of equally distant tiles the upper, then the left one
    comes first. The authors' code uses an approximate search, and a tile receives from those that have it among their
    eight nearest, which is the same inside a full grid. Lone tiles have no neighbours. torchmil's PatchGCN has other
    convolutions (GCNConv) and no residuals.

    Departure: the pooling's last layer has no bias, which would fall out of the softmax.
    """

    paper: ClassVar[str] = "Chen 2021"
    cost: ClassVar[str] = "n"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True
    needs_coords: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        embed_dim: int = 128,
        layers: int = 3,
        neighbours: int = 8,
        dropout: float = 0.25,
        graph_dropout: float = 0.1,
    ) -> None:
        """`embed_dim` of a graph layer; the bag's embedding is `layers + 1` times as wide. `graph_dropout` falls on
        each layer with a residual.
        """
        super().__init__()
        self.neighbours = neighbours
        self.embed = Embed(in_dim, embed_dim, dropout)
        self.first = GENConv(embed_dim)
        self.layers = nn.ModuleList(Residual(embed_dim, graph_dropout) for _ in range(layers - 1))
        wide = (layers + 1) * embed_dim
        self.joined = Embed(wide, wide, dropout)
        self.score = AttentionScore(wide, wide, 1, True, dropout)
        self.pooled = nn.Sequential(nn.Linear(wide, wide), nn.ReLU())
        self.head = nn.Linear(wide, out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; attention `(n,)`."""
        near = nearest(Places.of(bags), self.neighbours)
        (tiles,) = bags.tilewise(lambda features: (self.embed(features),))  # (n, e)
        depths = [tiles, computed_once(self.first(tiles, near))]
        for layer in self.layers:
            depths.append(computed_once(layer(depths[-1], near)))
        joined, scores = bags.with_features(torch.cat(depths, 1)).tilewise(self._read)  # (n, 4 e), (n, 1)
        attention = bags.softmax(scores)
        embedding = self.pooled(bags.sum(joined, weight=attention))  # (b, 4 e)
        return Output(self.head(embedding), embedding, attention.squeeze(1))

    def _read(self, depths: Tensor) -> tuple[Tensor, Tensor]:
        joined = self.joined(depths)
        return joined, self.score(joined)


class GENConv(nn.Module):
    """A tile's own features plus a softmax-weighted sum of its neighbours', feature by feature, then two layers."""

    def __init__(self, embed_dim: int, floor: float = 1e-7) -> None:
        """`floor` is added to every message."""
        super().__init__()
        self.floor = floor
        self.sharpness = nn.Parameter(torch.ones(1))
        self.mix = nn.Sequential(
            nn.Linear(embed_dim, 2 * embed_dim),
            nn.LayerNorm(2 * embed_dim),
            nn.ReLU(),
            nn.Linear(2 * embed_dim, embed_dim),
        )

    def forward(self, tiles: Tensor, near: Nearest) -> Tensor:
        """`(n, e)` to `(n, e)`."""
        if not isinstance(tiles, TileRows):
            return self._mixed(tiles, tiles.relu() + self.floor, near)
        rows: Tensor = whole(tiles)  # neighbours lie anywhere

        def reader(start: int, stop: int) -> Tensor:
            block = Nearest(near.index[start:stop], near.valid[start:stop])
            senders, block_index = torch.unique(block.index, return_inverse=True)
            return self._mixed(rows[start:stop], rows[senders].relu() + self.floor, replace(block, index=block_index))

        return TileRows(reader, rows, len(rows))

    def _mixed(self, tiles: Tensor, sent: Tensor, near: Nearest) -> Tensor:
        """Return tiles `(m, e)` with what they receive from those of `sent` `(s, e)` that are near, `(m, e)`."""
        # index_select, because the gradient of indexing with a table sorts it
        messages = sent.index_select(0, near.index.flatten()).view(*near.index.shape, -1)  # (n, k, e)
        absent = ~near.valid.unsqueeze(2)
        scores = (self.sharpness * messages).masked_fill(absent, torch.finfo(messages.dtype).min)
        weights = scores.softmax(1)
        received = (weights * messages.masked_fill(absent, 0)).sum(1).to(tiles.dtype)
        mixed: Tensor = self.mix(tiles + received)
        return mixed


class Residual(nn.Module):
    """DeepGCN's residual layer: convolution, normalisation, ReLU, added to what came in; dropout on the sum."""

    def __init__(self, embed_dim: int, dropout: float) -> None:
        super().__init__()
        self.convolve = GENConv(embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        self.dropout = Dropout(dropout)

    def forward(self, tiles: Tensor, near: Nearest) -> Tensor:
        """`(n, e)` to `(n, e)`."""
        changed: Tensor = self.dropout(tiles + self.norm(self.convolve(tiles, near)).relu())
        return changed
