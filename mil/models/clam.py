"""Clustering-constrained attention multiple instance learning.

M. Y. Lu, D. F. K. Williamson, T. Y. Chen, R. J. Chen, M. Barbieri, F. Mahmood: Data-efficient and weakly supervised
computational pathology on whole-slide images. Nature Biomedical Engineering 5, 2021, arXiv:2004.09666. Gated attention
of Ilse et al. 2018, one for all classes (CLAM-SB) or one for each (CLAM-MB); the tiles that it ranks first and last
teach a classifier of tiles for each class, by the smooth top-1 SVM loss of L. Berrada, A. Zisserman, M. P. Kumar:
Smooth loss functions for deep top-k classification. ICLR 2018, arXiv:1802.07595, with alpha = tau = 1.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.layers.attention import AttentionScore
from mil.layers.embed import Embed
from mil.models.mil_model import Criterion, MILModel, Output, TileTerms

LOSSES = ("svm", "cross_entropy")


class CLAM(MILModel):
    """Attention MIL whose attention also labels tiles for a classifier of tiles.

    In a bag of a class, the k tiles with the most attention are taken to be of it, the k with the least not to be. In a
    bag known not to be of the class the k with the most are taken not to be, where `subtyping` says that classes
    exclude each other; otherwise such a bag teaches that class's tiles nothing. The loss on tiles is the mean over the
    classes that a bag teaches, then over the bags; where a label is not known it teaches nothing.

    One logit is one class, the positive one, of which negative bags are known not to be: with `subtyping` their tiles
    with the most attention are negative, which is right wherever one positive tile makes a bag positive. The paper's
    two-class model has a tile classifier for the negative class too; one logit leaves it out.

    Departures: a bag of fewer than 2k tiles is halved, so that no tile is taken for both (the authors' code has no
    answer below k tiles); dropout after the embedding and in the attention's branches, as in the code; the smooth loss
    is used at every margin, where Berrada's code takes the hard one once the scores differ by more than 6.9 (they
    differ by less than 0.003 there).
    """

    paper: ClassVar[str] = "Lu 2021"
    cost: ClassVar[str] = "n log n"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        embed_dim: int = 512,
        attention_dim: int = 256,
        multi_branch: bool = False,
        gated: bool = True,
        k: int = 8,
        subtyping: bool = False,
        instance_loss: str = "svm",
        bag_weight: float = 0.7,
        dropout: float = 0.25,
    ) -> None:
        """`bag_weight` is the endpoint's share of the loss; with 1 there is no loss on tiles, nor their classifiers.

        `instance_loss` is "svm" or "cross_entropy".
        """
        super().__init__()
        if instance_loss not in LOSSES:
            raise ValueError(f"instance_loss is {instance_loss!r}, expected one of {', '.join(LOSSES)}")
        if not 0 <= bag_weight <= 1 or k < 1:
            raise ValueError(f"bag_weight is {bag_weight} and k {k}, expected one in [0, 1] and one of at least 1")
        self.k, self.subtyping, self.instance_loss, self.bag_weight = k, subtyping, instance_loss, bag_weight
        self.embed = Embed(in_dim, embed_dim, dropout)
        self.score = AttentionScore(embed_dim, attention_dim, out_dim if multi_branch else 1, gated, dropout)
        self.head = nn.Linear(embed_dim, out_dim)
        # each class's two scores one after the other: not of the class, of the class
        self.instance = nn.Linear(embed_dim, 2 * out_dim) if bag_weight < 1 else None

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; attention `(n,)` is the mean over the branches, which lie in `extra["heads"]` `(n, h)`.

        Where tiles are taught, `extra["instances"]` `(b, c, 2k)` is how far the first and last k tiles' scores speak
        for the class, and `extra["valid"]` `(b, 2k)` which of these slots hold a tile.
        """
        tiles, scores = bags.tilewise(self._read)  # (n, e), (n, h)
        attention = bags.softmax(scores)  # (n, h)
        embedding = bags.sum(tiles, weight=attention)  # (b, h * e)
        branches = embedding.view(len(bags), scores.shape[1], -1)  # (b, h, e), h is 1 or c
        logits = (branches * self.head.weight).sum(2) + self.head.bias  # (b, c)
        extra = {"heads": attention} | self._instances(bags, tiles, scores)
        return Output(logits, embedding, attention.mean(1), extra)

    def loss(self, output: Output, target: Tensor, endpoint: Criterion) -> Tensor:
        """Return the weighted sum of the endpoint's loss and the loss on tiles, `()`.

        Raises:
            ValueError: the endpoint has no classes (survival, regression) that tiles could be of.
        """
        bag = endpoint.loss(output.logits, target)
        if self.instance is None:
            return bag
        membership = endpoint.membership(target)
        if membership is None:
            raise ValueError("CLAM teaches tiles the classes of their bag, this endpoint has none: give bag_weight=1")
        instances = self._instance_loss(output.extra["instances"], output.extra["valid"], membership)
        return self.bag_weight * bag + (1 - self.bag_weight) * instances

    def tile_terms(self, bags: Bags) -> TileTerms:
        """Return the attention of each branch, and the logits of each tile; a class's branch has that class alone."""
        tiles, scores = bags.tilewise(self._read)  # (n, e), (n, h)
        logits = self.head(tiles)  # (n, c)
        branches = torch.diag_embed(logits) if scores.shape[1] > 1 else logits.unsqueeze(1)
        return TileTerms(bags.softmax(scores), branches)

    def _read(self, features: Tensor) -> tuple[Tensor, Tensor]:
        tiles = self.embed(features)
        return tiles, self.score(tiles)

    def _instances(self, bags: Bags, tiles: Tensor, scores: Tensor) -> dict[str, Tensor]:
        if self.instance is None:
            return {}
        ends = [_ends(bags, branch.detach(), self.k) for branch in scores.unbind(1)]
        chosen = tiles[torch.stack(ends, 1)]  # (b, h, 2k, e)
        scored: Tensor = self.instance(chosen)  # (b, h, 2k, 2c)
        scored = scored.view(*chosen.shape[:3], -1, 2)  # (b, h, 2k, c, 2)
        speaks = (scored[..., 1] - scored[..., 0]).transpose(2, 3)  # (b, h, c, 2k)
        # each class's own branch's tiles; with one branch every class has the same
        own_class = speaks.diagonal(dim1=1, dim2=2).movedim(-1, 1) if len(ends) > 1 else speaks.squeeze(1)
        return {"instances": own_class, "valid": _halved(bags, self.k)}

    def _instance_loss(self, instances: Tensor, valid: Tensor, membership: Tensor) -> Tensor:
        first = torch.arange(2 * self.k, device=instances.device) < self.k  # (2k,)
        inside, outside = (membership == 1).unsqueeze(2), (membership == 0).unsqueeze(2)  # (b, c, 1)
        taught = valid.unsqueeze(1) & (inside | outside & first & self.subtyping)  # (b, c, 2k)
        wide = instances.to(torch.promote_types(instances.dtype, torch.float32))
        gap = torch.where(inside & first, -wide, wide)  # the wrong score less the right one
        losses = smooth_svm(gap) if self.instance_loss == "svm" else nn.functional.softplus(gap)
        by_class, classes = _mean(losses, taught)  # (b, c), (b, c)
        by_bag, _ = _mean(by_class, classes)  # (b,)
        return by_bag.mean()


def smooth_svm(gap: Tensor, alpha: float = 1.0, tau: float = 1.0) -> Tensor:
    """Berrada's smooth top-1 loss of two classes: `tau log(1 + exp((alpha + gap) / tau))`.

    `gap` is the wrong class's score less the right one's, `alpha` the margin, `tau` the temperature.
    """
    return tau * nn.functional.softplus((alpha + gap) / tau)


def _ends(bags: Bags, scores: Tensor, k: int) -> Tensor:
    """Return the rows `(b, 2k)` of the k tiles with the highest scores `(n,)` and of the k lowest."""
    return torch.cat([bags.topk(scores, k, largest).index for largest in (True, False)], 1)


def _halved(bags: Bags, k: int) -> Tensor:
    """Return which slots are used, `(b, 2k)`; of fewer than 2k tiles half count as highest, the others as lowest."""
    sizes, slot = torch.diff(bags.offsets).unsqueeze(1), torch.arange(k, device=bags.features.device)
    return torch.cat([2 * slot < sizes, 2 * slot + 1 < sizes], 1)


def _mean(values: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
    """Return means of the used entries over the last dimension, zero where there are none, and where there are any."""
    amount = used.sum(-1)
    return torch.where(used, values, 0).sum(-1) / amount.clamp(min=1), amount > 0
