"""Masked hard instance mining: an attention model trains on the tiles that its teacher finds less salient.

W. Tang, S. Huang, X. Zhang, F. Zhou, Y. Zhang, B. Liu: Multiple instance learning framework with masked hard instance
mining for whole slide image classification. ICCV 2023, arXiv:2307.15254. A momentum teacher, an average of earlier
weights, ranks the tiles of a bag by attention; in training the tiles that it ranks first are hidden from the student,
all or some at random, also those it ranks last or random ones, and the student's bag embedding is drawn to the
teacher's. The authors' code is DearCaat/MHIM-MIL.
"""

from collections.abc import Mapping
from math import ceil
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import log_softmax

from mil.bags import Bags
from mil.models.abmil import ABMIL
from mil.models.acmil import ACMIL
from mil.models.clam import CLAM
from mil.models.dsmil import DSMIL
from mil.models.mil_model import Criterion, MILModel, Output, TileTerms
from mil.models.transformer import Transformer
from mil.models.transmil import TransMIL

INNER: dict[str, type[MILModel]] = {
    "abmil": ABMIL,
    "acmil": ACMIL,
    "clam": CLAM,
    "dsmil": DSMIL,
    "transformer": Transformer,
    "transmil": TransMIL,
}
"""Attention models that can be trained so."""


class MHIM(MILModel):
    """An attention model whose training hides tiles; in evaluation it is that model.

    The teacher has the student's first weights and follows them by `momentum` after each step; it is stored with them,
    so that training can go on.

    Departures: the teacher is not initialised by a model that was trained before; the hidden shares are constant in
    place of falling along a cosine; the student, not the teacher, is what is kept. Time grows as the inner model's.
    """

    paper: ClassVar[str] = "Tang 2023"
    cost: ClassVar[str] = "n"
    in_blocks: ClassVar[bool] = True
    not_federated: ClassVar[str] = "its teacher follows the weights of single steps, which hospitals do not share"

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        inner: str = "abmil",
        high: float = 0.03,
        drawn: float = 0.5,
        low: float = 0.0,
        random: float = 0.0,
        consistency: float = 0.1,
        temperature: float = 0.1,
        momentum: float = 0.9999,
        options: Mapping[str, object] | None = None,
    ) -> None:
        """Wrap a model.

        Args:
            in_dim: Width of the features.
            out_dim: Number of logits.
            inner: The model: abmil, acmil, clam, dsmil, transformer or transmil.
            high: Share of the tiles that is hidden among those with most attention.
            drawn: The share `high` is drawn at random from the `high / drawn` tiles with most attention.
            low: Share hidden of those with least attention.
            random: Share hidden at random.
            consistency: Weight of the difference to the teacher's embedding.
            temperature: Of the teacher's embedding.
            momentum: Of the teacher's weights.
            options: Of the inner model.
        """
        super().__init__()
        if inner not in INNER:
            raise ValueError(f"inner is {inner!r}, expected one of {', '.join(INNER)}")
        shares = (high, low, random)
        if min(shares) < 0 or sum(shares) >= 1 or not 0 < drawn <= 1 or not 0 <= momentum <= 1:
            raise ValueError(
                f"high {high}, low {low} and random {random} of the tiles, drawn {drawn}, momentum {momentum}, "
                "expected shares that sum to less than one, and fractions"
            )
        self.high, self.drawn, self.low, self.random = high, drawn, low, random
        self.consistency, self.temperature, self.momentum = consistency, temperature, momentum
        self.inner = INNER[inner](in_dim, out_dim, **(options or {}))
        for name, weight in self.inner.named_parameters():
            self.register_buffer(_teacher(name), weight.detach().clone())

    def reads_in_pieces(self) -> bool:
        """Return whether the inner model does."""
        return self.inner.reads_in_pieces()

    def forward(self, bags: Bags) -> Output:
        """Return the inner model's output, in training for the tiles that are not hidden.

        In training `extra["consistency"]` `(b,)` is the cross-entropy between the embeddings of teacher and student.
        """
        if not self.training:
            output: Output = self.inner(bags)
            return output
        teacher = self._teach(bags)
        student: Output = self.inner(_only(bags, self._visible(bags, teacher)))
        aim = (teacher.embedding.float() / self.temperature).softmax(1)
        student.extra["consistency"] = -(aim * log_softmax(student.embedding.float(), 1)).sum(1)
        return student

    def loss(self, output: Output, target: Tensor, endpoint: Criterion) -> Tensor:
        """Return the inner model's loss, in training plus the weighted difference to the teacher."""
        loss = self.inner.loss(output, target, endpoint)
        return loss + self.consistency * output.extra["consistency"].mean() if "consistency" in output.extra else loss

    def tile_terms(self, bags: Bags) -> TileTerms | None:
        """Return the terms of the inner model."""
        return self.inner.tile_terms(bags)

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the teacher's weights towards the student's."""
        for name, weight in self.inner.named_parameters():
            self.get_buffer(_teacher(name)).lerp_(weight, 1 - self.momentum)

    @torch.no_grad()
    def _teach(self, bags: Bags) -> Output:
        """Return the output of the teacher, which sees all tiles, without dropout."""
        self.inner.eval()
        weights = {name: self.get_buffer(_teacher(name)) for name, _ in self.inner.named_parameters()}
        output: Output = functional_call(self.inner, weights, (bags,))
        self.inner.train()
        return output

    def _visible(self, bags: Bags, teacher: Output) -> list[Tensor]:
        """Return the tiles of each bag that the student sees, in order, at least one."""
        attention = teacher.attention
        if attention is None:
            raise ValueError("the teacher has no attention to rank tiles by")
        return [self._remaining(rows.float()) for rows in bags.split(attention)]

    def _remaining(self, attention: Tensor) -> Tensor:
        count = len(attention)
        order = attention.argsort(descending=True, stable=True).cpu()
        most = min(count, ceil(count * self.high / self.drawn))
        first = order[:most][torch.randperm(most)[: ceil(most * self.drawn)]] if self.high else order[:0]
        last = order[count - ceil(count * self.low) :] if self.low else order[:0]
        hidden = torch.cat([first, last, torch.randperm(count)[: ceil(count * self.random) if self.random else 0]])
        visible = torch.ones(count, dtype=torch.bool).index_fill(0, hidden, False)
        if not visible.any():
            visible[order[-1]] = True
        return visible.nonzero().squeeze(1).to(attention.device)


def _teacher(name: str) -> str:
    """Return the name of the buffer that holds the teacher's weight of a name; buffers have no dots in theirs."""
    return f"teacher_{name.replace('.', '__')}"


def _only(bags: Bags, visible: list[Tensor]) -> Bags:
    """Return the bags without the tiles that are not visible."""
    starts = bags.offsets[:-1].tolist()
    rows = torch.cat([start + each for start, each in zip(starts, visible, strict=True)])
    coords, slide = (None if values is None else values[rows] for values in (bags.coords, bags.slide))
    sizes = tuple(len(each) for each in visible)
    return Bags(bags.features[rows], sizes, coords, slide, bags.covariates, bags.precision)
