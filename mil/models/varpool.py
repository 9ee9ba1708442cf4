"""Variance pooling.

I. Carmichael, A. H. Song, R. J. Chen, D. F. K. Williamson, T. Y. Chen, F. Mahmood: Incorporating intratumoral
heterogeneity into weakly-supervised deep learning models via variance pooling. MICCAI 2022, arXiv:2206.08885.
The attention-weighted mean of Ilse et al. 2018 is concatenated with attention-weighted variances along learnt
directions `v_k`: `sum_i a_i (v_k h_i - sum_j a_j v_k h_j)^2`, under a logarithm or a root.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.layers.attention import AttentionScore
from mil.layers.embed import Embed
from mil.models.mil_model import MILModel, Output

EPSILON = 0.01
"""Added to a variance under the logarithm."""
ACTS = ("log", "sqrt")


class VarPool(MILModel):
    """A bag is the weighted mean of its tiles and their variances.

    Of the authors' functions of the variance the default here is `log(0.01 + v)`, theirs is the root: a bag of one
    tile has no variance, and the root no finite gradient there; with `act="sqrt"` variances below 1e-12 have none.
    Departures: dropout after the embedding and in the attention, directions start as any linear layer's.
    """

    paper: ClassVar[str] = "Carmichael 2022"
    cost: ClassVar[str] = "n"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        embed_dim: int = 512,
        attention_dim: int = 256,
        directions: int = 100,
        act: str = "log",
        separate: bool = False,
        gated: bool = True,
        dropout: float = 0.25,
    ) -> None:
        """`directions` are the variances a bag has; `separate` gives them an attention of their own."""
        super().__init__()
        if act not in ACTS:
            raise ValueError(f"act is {act!r}, expected one of {', '.join(ACTS)}")
        self.act = act
        self.embed = Embed(in_dim, embed_dim, dropout)
        self.score = AttentionScore(embed_dim, attention_dim, 2 if separate else 1, gated, dropout)
        self.project = nn.Linear(embed_dim, directions, bias=False)
        self.head = nn.Linear(embed_dim + directions, out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; attention `(n,)` of the mean; `extra["heads"]` `(n, 1 or 2)`: the mean's, the variances'."""
        tiles, scores, projected = bags.tilewise(self._read)  # (n, e), (n, h), (n, k)
        attention = bags.softmax(scores)  # (n, h)
        of_mean, of_variance = attention[:, :1], attention[:, -1:]
        mean = bags.sum(tiles, weight=of_mean)  # (b, e)
        variance = _variance(bags, projected, of_variance)  # (b, k)
        embedding = torch.cat([mean, self._squashed(variance)], 1)  # (b, e + k)
        return Output(self.head(embedding), embedding, of_mean.squeeze(1), {"heads": attention})

    def _read(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tiles = self.embed(features)
        return tiles, self.score(tiles), self.project(tiles)

    def _squashed(self, variance: Tensor) -> Tensor:
        return (variance + EPSILON).log() if self.act == "log" else variance.clamp(min=1e-12).sqrt()


def _variance(bags: Bags, values: Tensor, attention: Tensor) -> Tensor:
    """Return weighted variances `(b, k)` of `(n, k)`; the weights `(n, 1)` sum to one in each bag."""
    distance = values - bags.spread(bags.sum(values, weight=attention))
    return bags.sum(distance.square(), weight=attention)
