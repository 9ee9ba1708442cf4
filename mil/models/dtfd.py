"""DTFD-MIL: two tiers of attention pooling over pseudo-bags.

H. Zhang, Y. Meng, Y. Zhao, Y. Qiao, X. Yang, S. E. Coupland, Y. Zheng: DTFD-MIL: Double-tier feature distillation
multiple instance learning for histopathology whole slide image classification. CVPR 2022, arXiv:2203.12081. The
authors' code is hrzhang1123/DTFD-MIL.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.layers.attention import AttentionScore
from mil.layers.embed import Embed
from mil.models.mil_model import Criterion, MILModel, Output

DISTILL = ("MaxMinS", "MaxS", "MAS", "AFS")


class DTFD(MILModel):
    """Bags are split into pseudo-bags; tier one pools each of them, tier two pools what tier one distils from them.

    `distill` is what a pseudo-bag passes to tier two: the tiles of highest and of lowest class activation (MaxMinS), of
    highest class activation (MaxS), of highest attention (MAS), or its attention-weighted mean (AFS). The class
    activation of tile k is `a_k w_c h_k`, with w_c the classifier's weights of class c. One logit ranks tiles by its
    activation itself, whatever it stands for (a positive class, a log hazard, a value: high is "Max"); of several
    logits the softmax over them at `ranking` ranks, the last one as in the authors' code.

    Tier one learns from its own loss alone, with each pseudo-bag under its bag's target, and tier two sees distilled
    features as constants: the paper minimises the two losses over separate parameters. A Cox endpoint compares all
    pseudo-bags of the batch, those of one patient being tied.

    Departures: pseudo-bags are random in training only. In evaluation the tiles of a bag are dealt out in the order of
    their attention score, highest first, so that neither chance nor the order of tiles decides a prediction (the
    authors' code splits at random there too). Nearly equal scores may change places in half precision, which is another
    split: it leaves the logits of AFS as they are, and may hand on other tiles under the three modes that choose. A bag
    with fewer tiles than pseudo-bags makes one of each tile. The embedding has a bias, and dropout as ABMIL has it; the
    authors' has neither.
    """

    paper: ClassVar[str] = "Zhang 2022"
    cost: ClassVar[str] = "n log n"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        distill: str = "AFS",
        pseudo_bags: int = 5,
        per_pseudo_bag: int = 1,
        ranking: int = -1,
        embed_dim: int = 512,
        attention_dim: int = 128,
        gated: bool = True,
        dropout: float = 0.25,
    ) -> None:
        """`per_pseudo_bag` tiles are passed on from each end of the ranking; AFS always passes on one mean."""
        super().__init__()
        if distill not in DISTILL:
            raise ValueError(f"distill is {distill!r}, expected one of {', '.join(DISTILL)}")
        if pseudo_bags < 1 or per_pseudo_bag < 1:
            raise ValueError(f"{pseudo_bags} pseudo-bags of {per_pseudo_bag} distilled tiles, expected at least one")
        if not -out_dim <= ranking < out_dim:
            raise ValueError(f"ranking is {ranking}, expected one of {out_dim} logits")
        self.distill, self.pseudo_bags = distill, pseudo_bags
        self.per_pseudo_bag, self.ranking = per_pseudo_bag, ranking
        self.embed = Embed(in_dim, embed_dim, dropout)
        self.score = AttentionScore(embed_dim, attention_dim, 1, gated, dropout)
        self.pseudo_head = nn.Linear(embed_dim, out_dim)
        self.bag_score = AttentionScore(embed_dim, attention_dim, 1, gated, dropout)
        self.head = nn.Linear(embed_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits of tier two `(b, c)`; attention `(n,)` is each tile's share of tier two's embedding.

        `extra` holds tier one: `pseudo_logits` `(m, c)`, the `parent` bag of each pseudo-bag `(m,)`, and each tile's
        `pseudo_bag` `(n,)`, `pseudo_attention` `(n,)` within it and class `activation` `(n, c)`.
        """
        tiles, scores = bags.tilewise(self._read)  # (n, e), (n, 1)
        counts = [min(self.pseudo_bags, size) for size in bags.sizes]
        order, sizes = _dealt(bags, self._ranked(tiles, scores), counts)  # (n,)
        pseudo = Bags(tiles.index_select(0, order), sizes)
        attention = pseudo.softmax(scores.index_select(0, order))  # (n, 1)
        pooled = pseudo.sum(pseudo.features, weight=attention)  # (m, e)
        activation = attention * nn.functional.linear(pseudo.features, self.pseudo_head.weight)  # (n, c)
        embedding, shares = self._second(pseudo, counts, pooled, attention, activation.detach())  # (b, e), (n,)
        parent = torch.repeat_interleave(torch.tensor(counts)).to(order.device)  # (m,)
        extra = {"pseudo_bag": pseudo.bag, "pseudo_attention": attention.squeeze(1), "activation": activation}
        extra = {name: _undo(order, values) for name, values in extra.items()}
        extra |= {"pseudo_logits": self.pseudo_head(pooled), "parent": parent}
        return Output(self.head(embedding), embedding, _undo(order, shares), extra)

    def loss(self, output: Output, target: Tensor, endpoint: Criterion) -> Tensor:
        """Return the loss of the pseudo-bags, with the targets of their bags, plus the loss of the bags."""
        pseudo_target = target[output.extra["parent"]]
        return endpoint.loss(output.extra["pseudo_logits"], pseudo_target) + endpoint.loss(output.logits, target)

    def _read(self, features: Tensor) -> tuple[Tensor, Tensor]:
        tiles = self.embed(features)
        return tiles, self.score(tiles)

    def _ranked(self, tiles: Tensor, scores: Tensor) -> Tensor:
        """Return all tiles in the order in which they are assigned to pseudo-bags, `(n,)`."""
        if self.training:
            return torch.randperm(len(scores)).to(scores.device)
        # half precision makes many scores equal: the embedding's sum orders those, and the order of tiles none
        order = tiles.float().sum(1).argsort(stable=True)
        return order[scores.squeeze(1)[order].argsort(descending=True, stable=True)]

    def _second(
        self, pseudo: Bags, counts: Sequence[int], pooled: Tensor, attention: Tensor, activation: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return tier two's embedding `(b, e)`, and each tile's share of it `(n,)`."""
        if self.distill == "AFS":
            second, shares = self._pool(pooled, counts)
            return second, (pseudo.spread(shares) * attention).squeeze(1)
        index = self._chosen(pseudo, attention, activation)  # (j,)
        ends = 2 if self.distill == "MaxMinS" else 1
        handed_on = iter(ends * min(self.per_pseudo_bag, size) for size in pseudo.sizes)
        second, shares = self._pool(pseudo.features[index], [sum(next(handed_on) for _ in range(n)) for n in counts])
        return second, shares.new_zeros(len(attention)).index_add(0, index, shares.squeeze(1))

    def _chosen(self, pseudo: Bags, attention: Tensor, activation: Tensor) -> Tensor:
        """Return the distilled tiles, pseudo-bag after pseudo-bag, `(j,)`."""
        strength = activation[:, 0] if activation.shape[1] == 1 else activation.softmax(1)[:, self.ranking]
        if self.distill == "MAS":
            strength = attention.detach().squeeze(1)
        ends = [pseudo.topk(strength, self.per_pseudo_bag)]
        if self.distill == "MaxMinS":
            ends.append(pseudo.topk(-strength, self.per_pseudo_bag))  # not largest=False, which passes over NaN
        index, valid = torch.cat([end.index for end in ends], 1), torch.cat([end.valid for end in ends], 1)
        return index[valid]

    def _pool(self, distilled: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Pool distilled features `(j, e)` to `(b, e)`, and the attention `(j, 1)`."""
        # constants in training only: explanations ask for the gradient of the whole prediction
        bags = Bags(distilled.detach() if self.training else distilled, tuple(sizes))
        shares = bags.softmax(self.bag_score(bags.features))  # (j, 1)
        return bags.sum(bags.features, weight=shares), shares


def _dealt(bags: Bags, ranked: Tensor, counts: Sequence[int]) -> tuple[Tensor, tuple[int, ...]]:
    """Return tiles, pseudo-bag after pseudo-bag `(n,)`, and the sizes of the pseudo-bags, which differ by at most one.

    The tiles of bag `i`, in the order of `ranked` `(n,)`, go to its `counts[i]` pseudo-bags in turn.
    """
    sizes = [
        size // count + (turn < size % count)
        for size, count in zip(bags.sizes, counts, strict=True)
        for turn in range(count)
    ]
    within = ranked[bags.bag[ranked].argsort(stable=True)]  # (n,), bag after bag
    place = torch.arange(len(within), device=within.device) - bags.spread(bags.offsets[:-1])
    turns = place % bags.spread(torch.tensor(counts, device=place.device))
    return within[(bags.bag * max(counts) + turns).argsort(stable=True)], tuple(sizes)


def _undo(order: Tensor, values: Tensor) -> Tensor:
    """Return values `(n, ...)` of tiles in `order` `(n,)` in the original order of the tiles."""
    return torch.zeros_like(values).index_copy(0, order, values)
