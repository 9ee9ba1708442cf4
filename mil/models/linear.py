"""A linear model of the mean vector of a bag, solved for instead of trained.

A. E. Hoerl, R. W. Kennard: Ridge regression: biased estimation for nonorthogonal problems. Technometrics 12, 1970: the
penalty is the squared length of the weights. With Cox's partial likelihood (1972) it is ridge Cox regression.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.models.mil_model import MILModel, Output, TileTerms


class Linear(MILModel):
    """The mean of a bag's vectors, standardised, times weights with a ridge penalty.

    Training solves for the weights by L-BFGS on all training patients at once, for each of several penalties, and keeps
    the penalty with the lowest loss on the patients of model selection (`mil.training.solve`); epochs, batches and the
    optimiser's options have no part in it. Mean and spread of the training patients and the penalty are stored with
    the weights. It is meant for vectors of whole slides, of which a patient may have several; of tiles it is the
    baseline of every report.
    """

    paper: ClassVar[str] = "Hoerl 1970"
    cost: ClassVar[str] = "n"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True
    solved: ClassVar[bool] = True
    not_federated: ClassVar[str] = "its penalty is chosen with the patients of all hospitals in one place"

    middle: Tensor
    spread: Tensor
    penalty: Tensor

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.head = nn.Linear(in_dim, out_dim)
        self.register_buffer("middle", torch.zeros(in_dim))
        self.register_buffer("spread", torch.ones(in_dim))
        self.register_buffer("penalty", torch.zeros(()))

    def fit_tiles(self, tiles: Tensor) -> None:
        """Take mean and standard deviation of the training patients' vectors `(n, d)`; a constant one has spread 1."""
        spread, middle = torch.std_mean(tiles.to(self.middle.dtype), 0)
        self.middle.copy_(middle)
        self.spread.copy_(torch.where(spread > 1e-8, spread, 1.0))

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; the embedding is the standardised mean `(b, d)`; no attention."""
        (tiles,) = bags.tilewise(lambda features: (features,))  # (n, d)
        mean = bags.mean(tiles)
        weight = self.head.weight / self.spread
        # standardised in the weights, so that features of another width fail in the product as in other models
        logits = nn.functional.linear(mean, weight, self.head.bias - weight @ self.middle)
        return Output(logits, (mean - self.middle) / self.spread)

    def tile_terms(self, bags: Bags) -> TileTerms:
        """Return equal weights and the logits of each tile."""
        weight = self.head.weight / self.spread
        bias = self.head.bias - weight @ self.middle
        (logits,) = bags.tilewise(lambda features: (nn.functional.linear(features, weight, bias),))
        return TileTerms(bags.softmax(torch.zeros_like(logits[:, :1])), logits.unsqueeze(1))
