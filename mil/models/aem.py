"""AEM: attention-based MIL that is rewarded for spreading its attention.

Y. Zhang, H. Li, Y. Sun, Z. Shui, J. Li, C. Zhu, L. Yang: AEM: Attention entropy maximization for multiple instance
learning based whole slide image classification. 2024, arXiv:2406.15303. The authors' code is dazhangyu123/AEM.
"""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from mil.bags import Bags
from mil.models.abmil import ABMIL
from mil.models.mil_model import Criterion, MILModel, Output, TileTerms


class AEM(MILModel):
    """ABMIL whose loss falls with the entropy of its attention: `loss + weight * sum_k a_k log a_k`.

    Departure: `weight` is constant, as in the authors' code; the paper's third version lets it fall along a cosine.
    """

    paper: ClassVar[str] = "Zhang 2024"
    cost: ClassVar[str] = "n"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        weight: float = 0.1,
        embed_dim: int = 512,
        attention_dim: int = 128,
        heads: int = 1,
        gated: bool = True,
        dropout: float = 0.25,
    ) -> None:
        """`weight` is the paper's lambda; the other options are ABMIL's."""
        super().__init__()
        if not weight >= 0:
            raise ValueError(f"weight of the entropy is {weight}, expected zero or more")
        self.weight = weight
        self.abmil = ABMIL(in_dim, out_dim, embed_dim, attention_dim, heads, gated, dropout)

    def forward(self, bags: Bags) -> Output:
        """Return ABMIL's output with `extra["entropy"]` `(b,)`, the entropy of attention in nats, mean of heads."""
        output: Output = self.abmil(bags)
        # x log x is nothing below 1e-30, but its slope there is infinite at zero
        entropy = torch.special.entr(output.extra["heads"].clamp(min=1e-30))  # (n, h)
        return replace(output, extra=output.extra | {"entropy": bags.sum(entropy).mean(1)})

    def tile_terms(self, bags: Bags) -> TileTerms | None:
        """Return the terms of the ABMIL within."""
        return self.abmil.tile_terms(bags)

    def loss(self, output: Output, target: Tensor, endpoint: Criterion) -> Tensor:
        """Return the loss of the endpoint minus the weighted mean entropy."""
        return endpoint.loss(output.logits, target) - self.weight * output.extra["entropy"].mean()
