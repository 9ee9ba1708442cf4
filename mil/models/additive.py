"""Additive multiple instance learning.

S. A. Javed, D. Juyal, H. Padigela, A. Taylor-Weiner, L. Yu, A. Prakash: Additive MIL: intrinsically interpretable
multiple instance learning for pathology. NeurIPS 2022, arXiv:2206.01794. A bag's logits are `sum_i psi(a_i h_i)`, with
the attention `a` of Ilse et al. 2018: the contribution of a tile to each logit is exact and signed.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.layers.attention import AttentionScore
from mil.layers.embed import Embed
from mil.models.mil_model import MILModel, Output, TileTerms


class AdditiveMIL(MILModel):
    """The logits of a bag are the sums of the contributions of its tiles.

    Departure: psi has no biases. With them, as in the authors' supplementary code (`tile_bias`), every tile adds a
    constant whatever its attention, so that the logits of a large bag mostly count its tiles. Instead each logit has
    one bias, distributed by attention. Psi has one hidden layer; dropout follows the embedding and is in the attention.
    """

    paper: ClassVar[str] = "Javed 2022"
    cost: ClassVar[str] = "n"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        embed_dim: int = 512,
        attention_dim: int = 256,
        hidden_dim: int = 256,
        gated: bool = False,
        dropout: float = 0.25,
        tile_bias: bool = False,
    ) -> None:
        """`hidden_dim` is the width within psi; `tile_bias` gives psi its own biases instead of the shared one."""
        super().__init__()
        self.embed = Embed(in_dim, embed_dim, dropout)
        self.score = AttentionScore(embed_dim, attention_dim, 1, gated, dropout)
        first = nn.Linear(embed_dim, hidden_dim, bias=tile_bias)
        self.psi = nn.Sequential(first, nn.ReLU(), nn.Linear(hidden_dim, out_dim, bias=tile_bias))
        self.bias = None if tile_bias else nn.Parameter(torch.zeros(out_dim))

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; `extra["contributions"]` `(n, c)`, whose sums within bags the logits are."""
        tiles, scores = bags.tilewise(self._read)  # (n, e), (n, 1)
        attention = bags.softmax(scores)  # (n, 1)
        weighed = bags.with_features(attention * tiles)
        (contributions,) = weighed.tilewise(lambda rows: (self.psi(rows),))  # (n, c)
        if self.bias is not None:
            contributions = contributions + attention * self.bias
        embedding = weighed.sum(weighed.features)  # (b, e)
        return Output(bags.sum(contributions), embedding, attention.squeeze(1), {"contributions": contributions})

    def tile_terms(self, bags: Bags) -> TileTerms | None:
        """Return the attention and psi of each tile: without biases `psi(a h)` is `a psi(h)`; None with `tile_bias`."""
        if self.bias is None:
            return None
        tiles, scores = bags.tilewise(self._read)  # (n, e), (n, 1)
        (logits,) = bags.with_features(tiles).tilewise(lambda rows: (self.psi(rows),))
        return TileTerms(bags.softmax(scores), (logits + self.bias).unsqueeze(1))

    def _read(self, features: Tensor) -> tuple[Tensor, Tensor]:
        tiles = self.embed(features)
        return tiles, self.score(tiles)
