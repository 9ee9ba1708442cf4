"""Chowder: the highest and the lowest scores of a bag.

P. Courtiol, E. W. Tramel, M. Sanselme, G. Wainrib: Classification and disease localization in histopathology using only
global labels: a weakly-supervised approach. arXiv:1802.02212, 2018. A linear layer scores each tile, the R highest and
the R lowest scores of the bag are kept in their order, and a perceptron of two sigmoid layers reads them.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.layers.dropout import Dropout
from mil.models.mil_model import MILModel, Output


class Chowder(MILModel):
    """The extremes of a bag's tile scores, read by a perceptron.

    Several logits: each has a tile score and a bias of its own and all share the perceptron, as in the authors' later
    code (owkin/HistoSSLscaling, where they share the bias too), which is the paper's method for one logit. The paper
    says nothing of bags smaller than R; here the last score that there is fills the row up (the lowest among the
    highest, the highest among the lowest), so that the order holds and no score is made up. Left out: the penalty on
    the scores' weights (the optimiser's weight decay stands for it) and the average of fifty such models.
    """

    paper: ClassVar[str] = "Courtiol 2018"
    cost: ClassVar[str] = "n log n"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        top: int = 5,
        bottom: int = 5,
        hidden_dims: tuple[int, int] = (200, 100),
        dropout: float = 0.5,
    ) -> None:
        """`top` and `bottom` are the paper's R; dropout falls on the perceptron's hidden layers."""
        super().__init__()
        if min(top, bottom) < 0 or top + bottom < 1:
            raise ValueError(f"top is {top} and bottom {bottom}, expected at least one of them positive")
        self.top, self.bottom = top, bottom
        self.score = nn.Linear(in_dim, out_dim)
        first, second = hidden_dims
        self.mlp = nn.Sequential(
            *(nn.Linear(top + bottom, first), nn.Sigmoid(), Dropout(dropout)),
            *(nn.Linear(first, second), nn.Sigmoid(), Dropout(dropout)),
            nn.Linear(second, 1, bias=False),
        )
        # a bias in the shared perceptron would fall out of a softmax over the logits
        self.bias = nn.Parameter(torch.zeros(out_dim))

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; embedding `(b, c * 2R)`, each logit's extremes; `extra["scores"]` `(n, c)`; no attention."""
        (scores,) = bags.tilewise(lambda features: (self.score(features),))  # (n, c)
        extremes = torch.stack([self._extremes(bags, column) for column in scores.unbind(1)], 1)  # (b, c, 2R)
        logits = self.mlp(extremes).squeeze(2) + self.bias
        return Output(logits, extremes.flatten(1), None, {"scores": scores})

    def _extremes(self, bags: Bags, scores: Tensor) -> Tensor:
        """Return the highest scores in falling order, then the lowest in rising order, `(b, 2R)`."""
        ends = [bags.topk(scores, count, largest) for count, largest in ((self.top, True), (self.bottom, False))]
        return torch.cat([_filled(end.values, end.valid) for end in ends if end.values.shape[1]], 1)


def _filled(values: Tensor, valid: Tensor) -> Tensor:
    """Fill the slots `(b, k)` without a tile with the last value of a tile."""
    last = (valid.sum(1, keepdim=True) - 1).clamp(min=0)  # a bag of NaN alone may have none
    return torch.where(valid, values, values.gather(1, last))
