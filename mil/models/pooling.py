"""Pooling without attention, as a baseline for other methods.

X. Wang, Y. Yan, P. Tang, X. Bai, W. Liu: Revisiting multiple instance neural networks. Pattern Recognition 74, 2018
(MI-Net: tile embeddings are pooled by mean, maximum or log-sum-exp, then classified). The log-sum-exp is from
J. Ramon, L. De Raedt: Multi instance neural networks. ICML workshop on attribute-value and relational learning, 2000.
Departure: one hidden layer on the tiles, as in ABMIL, so that the pooling alone differs between the models.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.layers.embed import Embed
from mil.models.mil_model import MILModel, Output, TileTerms

POOLS = ("mean", "max", "lse")


class Pooling(MILModel):
    """Mean: every tile counts the same. Max: the strongest tile counts, feature by feature. Lse: between the two."""

    paper: ClassVar[str] = "Wang 2018"
    cost: ClassVar[str] = "n"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True

    def __init__(
        self, in_dim: int, out_dim: int, by: str = "mean", embed_dim: int = 512, dropout: float = 0.25, r: float = 1.0
    ) -> None:
        """`by` is "mean", "max" or "lse"; `embed_dim` the width that is pooled; dropout stands before the pooling.

        `r` is the sharpness of "lse", `log(mean(exp(r x))) / r`: near the mean where small, near the maximum where
        large.
        """
        super().__init__()
        if by not in POOLS:
            raise ValueError(f"pooling by {by!r}, expected one of {', '.join(POOLS)}")
        if not r > 0:
            raise ValueError(f"r is {r}, expected a positive number")
        self.by, self.r = by, r
        self.embed = Embed(in_dim, embed_dim, dropout)
        self.head = nn.Linear(embed_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; no attention."""
        (tiles,) = bags.tilewise(lambda features: (self.embed(features),))  # (n, e)
        embedding = self._pooled(bags, tiles)  # (b, e)
        return Output(self.head(embedding), embedding)

    def tile_terms(self, bags: Bags) -> TileTerms | None:
        """Return equal weights and the logits of each tile for the mean; None for maximum and log-sum-exp."""
        if self.by != "mean":
            return None
        (logits,) = bags.tilewise(lambda features: (self.head(self.embed(features)),))  # (n, c)
        return TileTerms(bags.softmax(torch.zeros_like(logits[:, :1])), logits.unsqueeze(1))

    def _pooled(self, bags: Bags, tiles: Tensor) -> Tensor:
        if self.by == "lse":
            return log_mean_exp(bags, tiles, self.r)
        return bags.max(tiles) if self.by == "max" else bags.mean(tiles)


def log_mean_exp(bags: Bags, values: Tensor, r: float) -> Tensor:
    """`log(mean(exp(r x))) / r` within bags, `(n, k)` to `(b, k)`, at least in float32; no value overflows."""
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    top = bags.max(values.detach())  # (b, k); a shift has no gradient of its own
    return top + bags.mean((r * (values - bags.spread(top))).exp()).log() / r
