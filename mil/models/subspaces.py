"""Attention on random subspaces of the features, averaged over subspaces in evaluation, as in nnMIL.

X. Luo, ...: nnMIL: A generalizable multiple instance learning framework for computational pathology. 2025,
arXiv:2511.14907. The authors' code is Luoxd1996/nnMIL (SimpleMIL). Gated attention of Ilse et al. 2018 reads a part of
the features only; pooling and the linear classifier read all of them.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from mil.bags import Bags
from mil.layers.dropout import Dropout
from mil.models.mil_model import MILModel, Output, TileTerms

SEED = 42
"""Of the order in which features are divided into the subspaces of evaluation, as in the authors' code."""


class Subspaces(MILModel):
    """In training attention sees `keep` features, drawn anew for each batch; in evaluation subspaces cover them all.

    The subspaces of evaluation are windows of `keep` features in a fixed random order, one every `keep / overlap`
    features; logits, attention and embedding are means over them. There is no learnt layer before the pooling, so that
    logits are weighted means of tiles.

    Departures: logits are averaged for every endpoint; the authors' code averages hazards where the loss is Cox's. The
    score has no bias, which the softmax would remove. Planning of batches and learning rates is not part of a model.
    """

    paper: ClassVar[str] = "Luo 2025"
    cost: ClassVar[str] = "n"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        keep: int = 256,
        attention_dim: int = 256,
        overlap: int = 4,
        dropout: float = 0.25,
    ) -> None:
        """`keep` features are read at a time; each feature lies in about `overlap` subspaces of evaluation."""
        super().__init__()
        if keep < 1 or overlap < 1:
            raise ValueError(f"keep is {keep} and overlap {overlap}, expected at least one")
        self.keep, self.overlap = min(keep, in_dim), overlap
        self.branches = nn.Linear(in_dim, 2 * attention_dim)  # V, with U below it
        # the branches are only ever multiplied: see AttentionScore
        self.dropout = Dropout(1 - (1 - dropout) ** 2)
        self.score = nn.Linear(attention_dim, 1, bias=False)
        self.head = nn.Linear(in_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; attention `(n,)` is the mean over subspaces, which lie in `extra["heads"]` `(n, s)`."""
        parts = self._parts()
        tiles, scores = bags.tilewise(lambda features: (features, self._scores(features, parts)))  # (n, d), (n, s)
        attention = bags.softmax(scores)  # (n, s)
        shares = attention.mean(1)
        embedding = bags.sum(tiles, weight=shares.unsqueeze(1))  # (b, d)
        return Output(self.head(embedding), embedding, shares, {"heads": attention})

    def tile_terms(self, bags: Bags) -> TileTerms:
        """Return the attention on each subspace, and an equal part of the last layer applied to each tile."""
        parts = self._parts()
        scores, logits = bags.tilewise(lambda features: (self._scores(features, parts), self.head(features)))
        count = len(parts)
        return TileTerms(bags.softmax(scores), (logits / count).unsqueeze(1).expand(-1, count, -1))

    def _parts(self) -> list[Tensor]:
        """Return the features of each subspace, `(keep,)`: one at random in training, all that cover in evaluation."""
        width, device = self.head.in_features, self.head.weight.device
        if self.keep == width:
            return [torch.arange(width, device=device)]
        if self.training:
            return [torch.randperm(width)[: self.keep].to(device)]
        order = torch.randperm(width, generator=torch.Generator().manual_seed(SEED)).to(device)
        starts = list(range(0, width - self.keep + 1, max(1, self.keep // self.overlap)))
        starts += [width - self.keep] if starts[-1] != width - self.keep else []
        return [order[start : start + self.keep] for start in starts]

    def _scores(self, features: Tensor, parts: list[Tensor]) -> Tensor:
        return torch.cat([self._score(features, part) for part in parts], 1)

    def _score(self, features: Tensor, part: Tensor) -> Tensor:
        """Return the scores of one subspace, `(n, 1)`."""
        if len(part) == self.head.in_features:
            value, gate = self.branches(features).chunk(2, dim=1)
        else:
            weight, bias = self.branches.weight[:, part], self.branches.bias
            value, gate = linear(features[:, part], weight, bias).chunk(2, dim=1)
        scores: Tensor = self.score(self.dropout(value.tanh() * gate.sigmoid()))
        return scores
