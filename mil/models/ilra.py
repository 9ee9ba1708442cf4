"""ILRA-MIL: tiles exchange information through a few latent vectors.

J. Xiang, X. Wang, J. Zhang, S. Yang, X. Han, W. Yang: Exploring low-rank property in multiple instance learning for
whole slide image classification. ICLR 2023. The gated attention block is equation (16); pooling is the paper's
"non-local pooling". The authors' code is jinxixiang/low_rank_wsi.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.layers.cross_attention import CrossAttention
from mil.models.mil_model import MILModel, Output


class ILRA(MILModel):
    """Blocks of attention from `rank` latents to tiles and back again, then attention pooling by one learnt query.

    Departures: the authors' code projects keys and values twice in a row, which one matrix does here, with a bias
    where it has an effect. Ranks start at two: with the one latent of the authors' configuration the attention of tiles
    to latents is constant and its weights learn nothing. The paper's low-rank contrastive pretraining of the encoder
    is not part of a bag model.
    """

    paper: ClassVar[str] = "Xiang 2023"
    cost: ClassVar[str] = "n"
    in_pieces: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        blocks: int = 2,
        rank: int = 2,
        embed_dim: int = 256,
        heads: int = 8,
        norm: bool = True,
    ) -> None:
        """`rank` latents a block; `norm`: layer normalisation, as in the authors' configuration."""
        super().__init__()
        if rank < 2:
            raise ValueError(f"rank is {rank}, expected two latents or more")
        widths = [in_dim] + [embed_dim] * (blocks - 1)
        self.blocks = nn.ModuleList(LatentBlock(width, embed_dim, heads, rank, norm) for width in widths)
        self.pool = LatentPool(embed_dim, heads, norm)
        self.head = nn.Linear(embed_dim, out_dim)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; attention `(n,)` is the pooling's, the mean over its heads `extra["heads"]` `(n, h)`."""
        for block in self.blocks:
            bags = bags.with_features(block(bags))
        embedding, heads = self.pool(bags)  # (b, e), (n, h)
        return Output(self.head(embedding), embedding, heads.mean(1), {"heads": heads})


class Residual(nn.Module):
    """The residual step around attention: queries X and output A become `f(O + ReLU(W f(X V + A)))`, gated or not.

    f is layer normalisation or nothing; the gate multiplies by `SiLU(U X)`.
    """

    def __init__(self, in_dim: int, embed_dim: int, norm: bool, gated: bool) -> None:
        super().__init__()
        self.start = nn.Linear(in_dim, embed_dim)
        self.feed = nn.Linear(embed_dim, embed_dim)
        self.gate = nn.Linear(in_dim, embed_dim) if gated else None
        self.before = nn.LayerNorm(embed_dim) if norm else nn.Identity()
        self.after = nn.LayerNorm(embed_dim) if norm else nn.Identity()

    def forward(self, queries: Tensor, start: Tensor, read: Tensor) -> Tensor:
        """Queries `(..., d)`, `start` = `X V` and what it has read `(..., e)` to `(..., e)`."""
        mixed: Tensor = self.before(start + read)
        mixed = self.after(mixed + self.feed(mixed).relu())
        return mixed if self.gate is None else mixed * nn.functional.silu(self.gate(queries))


class LatentBlock(nn.Module):
    """The gated attention block, equation (16): tiles are projected onto the latents, and back."""

    def __init__(self, in_dim: int, embed_dim: int, heads: int, rank: int, norm: bool) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.empty(rank, embed_dim))
        nn.init.xavier_uniform_(self.latent)
        self.down = CrossAttention(embed_dim, in_dim, embed_dim, heads)
        self.latents = Residual(embed_dim, embed_dim, norm, gated=True)
        self.up = TilesToLatents(embed_dim, heads)
        self.tiles = Residual(in_dim, embed_dim, norm, gated=True)

    def forward(self, bags: Bags) -> Tensor:
        """Tiles `(n, d)` to `(n, e)`."""
        latent = self.latent.expand(len(bags), -1, -1)  # (b, r, e)
        start = self.latents.start(latent)
        latent = self.latents(latent, start, self.down(start, bags)[0])  # (b, r, e)
        return torch.cat(
            [self._written(rows, marks) for rows, marks in zip(bags.split(), latent.unbind(), strict=True)]
        )

    def _written(self, rows: Tensor, latent: Tensor) -> Tensor:
        """Return the tiles of one bag `(n, d)` after they have read its latents `(r, e)`, `(n, e)`."""

        def read(tiles: Tensor) -> tuple[Tensor]:
            start = self.tiles.start(tiles)  # (n, e)
            return (self.tiles(tiles, start, self.up(start, latent)),)

        return Bags(rows, (len(rows),)).tilewise(read)[0]


class TilesToLatents(nn.Module):
    """Multi-head attention of each tile of a bag to the bag's latents."""

    def __init__(self, embed_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(embed_dim, embed_dim)
        self.key = nn.Linear(embed_dim, embed_dim, bias=False)
        self.value = nn.Linear(embed_dim, embed_dim)
        self.out = nn.Linear(embed_dim, embed_dim)

    def forward(self, tiles: Tensor, latent: Tensor) -> Tensor:
        """Tiles `(n, e)` and latents `(r, e)` of one bag to `(n, e)`."""
        query, key, value = (
            self._split(self.query(tiles)),
            self._split(self.key(latent)),
            self._split(self.value(latent)),
        )
        read = nn.functional.scaled_dot_product_attention(query, key, value)  # (h, n, w)
        mixed: Tensor = self.out(read.transpose(0, 1).flatten(1))
        return mixed

    def _split(self, values: Tensor) -> Tensor:
        """`(k, e)` to `(h, k, w)`."""
        return values.view(len(values), self.heads, -1).transpose(0, 1)


class LatentPool(nn.Module):
    """Non-local pooling: one learnt query reads all tiles."""

    def __init__(self, embed_dim: int, heads: int, norm: bool) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(1, embed_dim))
        nn.init.xavier_uniform_(self.query)
        self.attend = CrossAttention(embed_dim, embed_dim, embed_dim, heads)
        self.residual = Residual(embed_dim, embed_dim, norm, gated=False)

    def forward(self, bags: Bags) -> tuple[Tensor, Tensor]:
        """Tiles to an embedding `(b, e)`, and the attention of each head `(n, h)`."""
        query = self.query.expand(len(bags), 1, -1)
        start = self.residual.start(query)
        read, attention = self.attend(start, bags)
        return self.residual(query, start, read).squeeze(1), attention.squeeze(2)
