"""ACMIL: several attention branches that are trained to differ and to use more tiles.

Y. Zhang, H. Li, Y. Sun, S. Zheng, C. Zhu, L. Yang: Attention-challenging multiple instance learning for whole slide
image classification. ECCV 2024, arXiv:2311.07125. The authors' code is dazhangyu123/ACMIL, of which this is the
variant with gated attention.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags, sent
from mil.layers.attention import AttentionScore
from mil.layers.embed import Embed
from mil.models.mil_model import Criterion, MILModel, Output, TileTerms


class ACMIL(MILModel):
    """The bag embedding is the mean of several attention branches; in training some of their best tiles are hidden.

    Multiple branch attention: each branch has a separate classifier in training, and the cosine similarity of the
    branches' attention is added to the loss. Stochastic top-K instance masking: in training `mask_share` of the
    `masked` best tiles of each branch, drawn at random, receive no attention. The paper speaks of a probability; the
    authors' code, followed here, hides a fixed number, rounded down.

    Departures: the embedding has a bias, and dropout as ABMIL has it. The branches' losses are averaged branch by
    branch, which is the authors' mean over all rows except under Cox's likelihood, where each branch ranks the
    patients by itself.
    """

    paper: ClassVar[str] = "Zhang 2024"
    cost: ClassVar[str] = "n"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        branches: int = 5,
        masked: int = 10,
        mask_share: float = 0.6,
        embed_dim: int = 512,
        attention_dim: int = 128,
        dropout: float = 0.25,
    ) -> None:
        """`masked` is the paper's K (0 hides no tile), `branches` its M."""
        super().__init__()
        if branches < 2:
            raise ValueError(f"{branches} branches, expected two or more: one has no other to differ from")
        if not 0 <= mask_share < 1 or masked < 0:
            raise ValueError(f"{mask_share} of the best {masked} tiles, expected a share in [0, 1) of a count")
        self.masked, self.mask_share = masked, mask_share
        self.embed = Embed(in_dim, embed_dim, dropout)
        self.score = AttentionScore(embed_dim, attention_dim, branches, True, dropout)
        self.branch_heads = nn.ModuleList(nn.Linear(embed_dim, out_dim) for _ in range(branches))
        self.head = nn.Linear(embed_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; attention `(n,)` is the mean over the branches, which lie in `extra["heads"]` `(n, h)`.

        `extra` also holds `branch_logits` `(b, h, c)` and the `similarity` of the branches' attention `(b,)`.
        """
        tiles, scores = bags.tilewise(self._read)  # (n, e), (n, h)
        if self.training and self.masked:
            scores = scores.masked_fill(self._hidden(bags, scores.detach()), -torch.inf)
        attention = bags.softmax(scores)  # (n, h)
        read = bags.sum(tiles, weight=attention).view(len(bags), len(self.branch_heads), -1)  # (b, h, e)
        embedding = read.mean(1)  # (b, e), pooled by the mean attention
        branches = [head(hidden) for head, hidden in zip(self.branch_heads, read.unbind(1), strict=True)]
        extra = {"heads": attention, "branch_logits": torch.stack(branches, 1), "similarity": _overlap(bags, attention)}
        return Output(self.head(embedding), embedding, attention.mean(1), extra)

    def loss(self, output: Output, target: Tensor, endpoint: Criterion) -> Tensor:
        """Return the loss of the bags, plus the mean loss of the branches, plus the similarity of the branches."""
        branches = [endpoint.loss(logits, target) for logits in output.extra["branch_logits"].unbind(1)]
        similarity = output.extra["similarity"].mean()
        return endpoint.loss(output.logits, target) + torch.stack(branches).mean() + similarity

    def tile_terms(self, bags: Bags) -> TileTerms:
        """Return each branch's attention, and its share of the last layer applied to each tile."""
        tiles, scores = bags.tilewise(self._read)  # (n, e), (n, h)
        heads = scores.shape[1]
        logits = self.head(tiles).unsqueeze(1) / heads  # (n, 1, c)
        return TileTerms(bags.softmax(scores), logits.expand(-1, heads, -1))

    def _read(self, features: Tensor) -> tuple[Tensor, Tensor]:
        tiles = self.embed(features)
        return tiles, self.score(tiles)

    def _hidden(self, bags: Bags, scores: Tensor) -> Tensor:
        """Return which tiles are hidden from each branch, `(n, h)`."""
        amounts = [int(min(self.masked, size) * self.mask_share) for size in bags.sizes]
        amount = sent(torch.tensor(amounts), scores.device).unsqueeze(1)  # (b, 1)
        return torch.stack([self._hidden_from(branch_scores, bags, amount) for branch_scores in scores.unbind(1)], 1)

    def _hidden_from(self, scores: Tensor, bags: Bags, amount: Tensor) -> Tensor:
        """Return which of one branch's `masked` best tiles are hidden at random, `(n,)`."""
        best = bags.topk(scores, self.masked)
        draws = sent(torch.rand(best.valid.shape), scores.device).masked_fill(~best.valid, torch.inf)  # (b, k)
        drawn = draws.argsort(1).argsort(1) < amount
        hidden = torch.zeros_like(scores, dtype=torch.int64).index_add(0, best.index.flatten(), drawn.long().flatten())
        return hidden > 0


def _overlap(bags: Bags, attention: Tensor) -> Tensor:
    """Return the mean cosine similarity of the attention `(n, h)` of two branches, `(b,)`."""
    heads = attention.shape[1]
    products = bags.sum(attention, weight=attention).view(-1, heads, heads)  # (b, h, h)
    lengths = products.diagonal(dim1=1, dim2=2).sqrt()  # (b, h)
    cosines: Tensor = products / (lengths.unsqueeze(1) * lengths.unsqueeze(2))
    first, second = torch.triu_indices(heads, heads, offset=1)
    return cosines[:, first, second].mean(1)
