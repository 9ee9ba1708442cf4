"""Two levels of aggregation, after HIPT: tiles to regions, regions to a bag.

R. J. Chen, C. Chen, Y. Li, T. Y. Chen, A. D. Trister, R. G. Krishnan, F. Mahmood: Scaling vision transformers to
gigapixel images via hierarchical self-supervised learning. CVPR 2022, arXiv:2206.02647. The authors' code is
mahmoodlab/HIPT.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.layers.attention import AttentionScore
from mil.layers.dropout import Dropout
from mil.layers.embed import Embed
from mil.layers.self_attention import SelfAttention
from mil.models.mil_model import MILModel, Output


class Regions(MILModel):
    """Gated attention pools the tiles of each square region; a small transformer and gated attention pool the regions.

    Regions are the squares of a grid that starts at each slide's origin; a region never spans two slides. The upper
    level is HIPT's: two transformer layers without positions, whose time grows with the square of the r regions of a
    bag, then gated attention.

    Departures: the features are those of any tile encoder, and the middle level, a vision transformer over a region's
    tiles pretrained by itself, is the attention pooling of HIPT's variant without transformers.
    """

    paper: ClassVar[str] = "Chen 2022"
    cost: ClassVar[str] = "n + r^2"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True
    needs_coords: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        region: int = 4096,
        layers: int = 2,
        embed_dim: int = 192,
        heads: int = 3,
        dropout: float = 0.25,
    ) -> None:
        """`region` is the side of a region in level-0 pixels."""
        super().__init__()
        if region < 1:
            raise ValueError(f"region is {region} pixels wide, expected at least one")
        self.region = region
        self.embed = Embed(in_dim, embed_dim, dropout)
        self.score = AttentionScore(embed_dim, embed_dim, 1, True, dropout)
        self.region_embed = Embed(embed_dim, embed_dim, dropout)
        self.layers = nn.ModuleList(EncoderLayer(embed_dim, heads, dropout) for _ in range(layers))
        self.region_score = AttentionScore(embed_dim, embed_dim, 1, True, dropout)
        self.last = Embed(embed_dim, embed_dim, dropout)
        self.head = nn.Linear(embed_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; attention `(n,)` is the product of the two levels'.

        `extra` holds each tile's `region` `(n,)` and the `region_attention` `(r,)`, regions in the order of their bag,
        slide, row and column.
        """
        tiles, scores = bags.tilewise(self._read)  # (n, e), (n, 1)
        region, sizes, counts = self._laid_out(bags)  # (n,)
        order = region.argsort(stable=True)
        inner = Bags(tiles[order], sizes)
        within = inner.softmax(scores[order])  # (n, 1)
        outer = Bags(self.region_embed(inner.sum(inner.features, weight=within)), counts)  # (r, e)
        for layer in self.layers:
            outer = outer.with_features(torch.cat([layer(rows) for rows in outer.split()]))
        between = outer.softmax(self.region_score(outer.features))  # (r, 1)
        embedding = self.last(outer.sum(outer.features, weight=between))  # (b, e)
        shares = (within * inner.spread(between)).squeeze(1)  # (n,)
        attention = torch.zeros_like(shares).index_copy(0, order, shares)
        return Output(
            self.head(embedding), embedding, attention, {"region": region, "region_attention": between.squeeze(1)}
        )

    def _read(self, features: Tensor) -> tuple[Tensor, Tensor]:
        tiles = self.embed(features)
        return tiles, self.score(tiles)

    def _laid_out(self, bags: Bags) -> tuple[Tensor, tuple[int, ...], tuple[int, ...]]:
        """Return each tile's region `(n,)`, the tiles of each region and the regions of each bag."""
        if bags.coords is None:
            raise ValueError("Regions groups tiles by their places: the bags have no coordinates, expected (n, 2)")
        slide = torch.zeros_like(bags.bag) if bags.slide is None else bags.slide
        cell = torch.div(bags.coords, self.region, rounding_mode="floor").long()  # (n, 2)
        key = torch.stack([bags.bag, slide, cell[:, 1], cell[:, 0]], 1)  # (n, 4)
        regions, region, sizes = torch.unique(key, dim=0, return_inverse=True, return_counts=True)
        counts = torch.bincount(regions[:, 0], minlength=len(bags))
        return region, tuple(sizes.tolist()), tuple(counts.tolist())


class EncoderLayer(nn.Module):
    """A transformer encoder layer (Vaswani et al. 2017): attention, then two linear layers, each normalised after."""

    def __init__(self, embed_dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attend = SelfAttention(embed_dim, heads)
        self.think = nn.Sequential(
            nn.Linear(embed_dim, embed_dim), nn.ReLU(), Dropout(dropout), nn.Linear(embed_dim, embed_dim)
        )
        self.after_attend, self.after_think = nn.LayerNorm(embed_dim), nn.LayerNorm(embed_dim)
        self.dropout = Dropout(dropout)

    def forward(self, rows: Tensor) -> Tensor:
        """The rows of one bag `(n, e)` to the same shape."""
        read = self.attend(rows.unsqueeze(0)).squeeze(0)
        rows = self.after_attend(rows + self.dropout(read))
        mixed: Tensor = self.after_think(rows + self.dropout(self.think(rows)))
        return mixed
