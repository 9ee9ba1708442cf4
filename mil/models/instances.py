"""Instance-level MIL: a linear classifier scores every tile, and the scores are aggregated.

A. Mammadov, L. Le Folgoc, J. Adam, A. Buronfosse, G. Hayem, G. Hocquet, P. Gori: Self-supervision enhances
instance-based multiple instance learning methods in digital pathology: a benchmark study. 2025, arXiv:2505.01109. The
authors' code is mammadov7/wsi_classification_pipeline (`mils.py`). With s the scores of a bag's tiles for one logit:

- mean, max: `mean(s)`, `max(s)`
- mix: `a max(s) + (1 - a) mean(s)`, a the sigmoid of a weight (C.-Y. Lee et al. 2016)
- auto: `sum_i softmax(a s)_i s_i`, a the softplus of a weight (B. McFee et al. 2018)
- lnp: `mean(|s|^p)^(1/p)`, p one plus the softplus of a weight (C. Gulcehre et al. 2014)
- attention: `sum_i softmax(u)_i s_i`, u a second linear layer
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mil.bags import Bags
from mil.models.mil_model import MILModel, Output, TileTerms

AGGREGATIONS = ("mean", "max", "mix", "auto", "lnp", "attention")


class InstanceMIL(MILModel):
    """The logits are aggregated scores of tiles; every tile's score has the meaning of the bag's.

    Each logit is aggregated by itself, and for one logit this is the authors' method. Departures for several: "max"
    takes the maximum of each, where the authors take all scores of the tile with the highest score of a class other
    than the first. Under "lnp" a bias is added to the norm, which is never negative and could not be the logit of a
    negative bag. The attention's score has no bias, which the softmax would remove.
    """

    paper: ClassVar[str] = "Mammadov 2025"
    cost: ClassVar[str] = "n"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True

    def __init__(self, in_dim: int, out_dim: int, by: str = "auto") -> None:
        """`by` is the aggregation: mean, max, mix, auto, lnp or attention."""
        super().__init__()
        if by not in AGGREGATIONS:
            raise ValueError(f"aggregation by {by!r}, expected one of {', '.join(AGGREGATIONS)}")
        self.by = by
        self.score = nn.Linear(in_dim, out_dim)
        self.alpha = nn.Parameter(torch.tensor(0.5 if by == "mix" else 1.0)) if by in ("mix", "auto", "lnp") else None
        self.bias = nn.Parameter(torch.zeros(out_dim)) if by == "lnp" else None
        self.attend = nn.Linear(in_dim, 1, bias=False) if by == "attention" else None

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; the embedding is the mean tile `(b, d)`; `extra["scores"]` `(n, c)`.

        Attention `(n,)` is the mean of the logits' weights under "auto", and the attention under "attention".
        """
        tiles, scores, attended = bags.tilewise(self._read)  # (n, d), (n, c), (n, 0 or 1)
        weight = self._weight(bags, scores, attended)  # (n, c or 1)
        logits = self._aggregated(bags, scores) if weight is None else bags.sum(weight * scores)
        extra = {"scores": scores} | ({} if weight is None else {"heads": weight})
        return Output(logits, bags.mean(tiles), None if weight is None else weight.mean(1), extra)

    def tile_terms(self, bags: Bags) -> TileTerms | None:
        """Return weights and scores where the logits are weighted means of tiles: mean, auto, attention."""
        if self.by not in ("mean", "auto", "attention"):
            return None
        _, scores, attended = bags.tilewise(self._read)
        weight = self._weight(bags, scores, attended)
        if weight is None:
            weight = bags.softmax(torch.zeros_like(scores[:, :1]))
        each = self.by == "auto"  # a logit's weights are its own
        return TileTerms(weight, torch.diag_embed(scores) if each else scores.unsqueeze(1))

    def _read(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores = self.score(features)
        return features, scores, scores[:, :0] if self.attend is None else self.attend(features)

    def _weight(self, bags: Bags, scores: Tensor, attended: Tensor) -> Tensor | None:
        """Return weights that sum to one in each bag, `(n, c or 1)`; None where the aggregation has none."""
        if self.by == "auto" and self.alpha is not None:
            return bags.softmax(softplus(self.alpha) * scores)
        return bags.softmax(attended) if self.by == "attention" else None

    def _aggregated(self, bags: Bags, scores: Tensor) -> Tensor:
        if self.by == "mean":
            return bags.mean(scores)
        if self.by == "max" or self.alpha is None:
            return bags.max(scores)
        if self.by == "mix":
            share = self.alpha.sigmoid()
            return share * bags.max(scores) + (1 - share) * bags.mean(scores)
        power = 1 + softplus(self.alpha)
        norm = bags.mean(scores.abs().clamp(min=1e-12) ** power) ** (1 / power)
        return norm if self.bias is None else norm + self.bias
