"""Pooling without attention: the baselines that a method has to beat.

X. Wang, Y. Yan, P. Tang, X. Bai, W. Liu: Revisiting multiple instance neural networks. Pattern Recognition 74, 2018
(MI-Net: tile embeddings are pooled, then classified). Departure: one hidden layer on the tiles, as in ABMIL, so that
the pooling alone differs between the models.
"""

from torch import nn

from mil.bags import Bags
from mil.layers.embed import Embed
from mil.models.base import MILModel, Output

POOLS = {"mean": Bags.mean, "max": Bags.max}


class Pooling(MILModel):
    """Mean: every tile counts the same. Max: the strongest tile counts, feature by feature."""

    def __init__(
        self, in_dim: int, out_dim: int, by: str = "mean", embed_dim: int = 512, dropout: float = 0.25
    ) -> None:
        """`by` is "mean" or "max"; `embed_dim` the width that is pooled; dropout stands before the pooling."""
        super().__init__()
        if by not in POOLS:
            raise ValueError(f"pooling by {by!r}, expected one of {', '.join(POOLS)}")
        self.pool = POOLS[by]
        self.embed = Embed(in_dim, embed_dim, dropout)
        self.head = nn.Linear(embed_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; no attention."""
        (tiles,) = bags.tilewise(lambda features: (self.embed(features),))  # (n, e)
        embedding = self.pool(bags, tiles)  # (b, e)
        return Output(self.head(embedding), embedding)
