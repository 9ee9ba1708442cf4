"""Deep Sets: a function of the sum of functions of the tiles.

M. Zaheer, S. Kottur, S. Ravanbakhsh, B. Poczos, R. Salakhutdinov, A. Smola: Deep sets. NeurIPS 2017, arXiv:1703.06114.
Theorem 2: every function of a set is `rho(sum_i phi(x_i))`; here phi and rho are perceptrons with ReLU.
"""

from typing import ClassVar

from torch import Tensor, nn

from mil.bags import Bags
from mil.layers.dropout import Dropout
from mil.layers.embed import Embed
from mil.models.mil_model import MILModel, Output

POOLS = ("mean", "sum", "max")


class DeepSets(MILModel):
    """Tiles pass phi, are pooled, and rho reads the result.

    Departures: the mean over tiles is the default in place of the sum (`by="sum"`), which grows with the tissue area of
    a slide; "max" is the pooling of the paper's point clouds. Dropout follows each hidden layer.
    """

    paper: ClassVar[str] = "Zaheer 2017"
    cost: ClassVar[str] = "n"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        by: str = "mean",
        embed_dim: int = 256,
        hidden_dim: int = 256,
        dropout: float = 0.25,
    ) -> None:
        """`by` is "mean", "sum" or "max"; `embed_dim` the width of phi, `hidden_dim` that of rho."""
        super().__init__()
        if by not in POOLS:
            raise ValueError(f"pooling by {by!r}, expected one of {', '.join(POOLS)}")
        self.by = by
        self.phi = nn.Sequential(Embed(in_dim, embed_dim, dropout), nn.Linear(embed_dim, embed_dim))
        self.rho = nn.Sequential(nn.Linear(embed_dim, hidden_dim), nn.ReLU(), Dropout(dropout))
        self.head = nn.Linear(hidden_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; the embedding is rho's hidden layer `(b, h)`; no attention."""
        (tiles,) = bags.tilewise(lambda features: (self.phi(features),))  # (n, e)
        embedding = self.rho(self._pooled(bags, tiles))  # (b, h)
        return Output(self.head(embedding), embedding)

    def _pooled(self, bags: Bags, tiles: Tensor) -> Tensor:
        if self.by == "max":
            return bags.max(tiles)
        return bags.sum(tiles) if self.by == "sum" else bags.mean(tiles)
