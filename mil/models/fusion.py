"""Models that read a patient's clinical covariates beside the tiles."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.models.mil_model import Criterion, MILModel, Output

FUSIONS = ("late", "gated")


class Fused(MILModel):
    """Any model, to whose logits the covariates `c` of each bag's patient add.

    Late: `W c`. Where the inner model ends in a linear layer this is exactly that layer on the bag's embedding with the
    covariates beside it. Gated: `W c + H (2 sigmoid(G c) * e)`, a second linear layer on the inner model's embedding
    `e`, each feature of which the covariates turn up to twofold or down to nothing (the gate of J. Hu, L. Shen, G. Sun:
    Squeeze-and-excitation networks, CVPR 2018, scaled so that covariates which say nothing leave `e` as it is).

    W begins at zero. All logits that the inner model's loss looks at, of branches, streams and pseudo-bags too, have
    their patient's covariates added; attention and what is in `extra` are the inner model's own.
    """

    paper: ClassVar[str] = "the inner model's"
    cost: ClassVar[str] = "the inner model's"

    def __init__(
        self, inner: MILModel, width: int, out_dim: int, fusion: str = "late", embed_dim: int | None = None
    ) -> None:
        """`width` is the number of covariates k; `embed_dim` the inner model's embedding's e, for "gated"."""
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"fusion is {fusion!r}, expected one of {', '.join(FUSIONS)}")
        if fusion == "gated" and embed_dim is None:
            raise ValueError("fusion is gated, expected embed_dim, the width of the inner model's embedding")
        self.inner, self.fusion, self.embed_dim = inner, fusion, embed_dim
        self.shift = nn.Linear(width, out_dim, bias=False)
        nn.init.zeros_(self.shift.weight)
        self.gate = nn.Linear(width, embed_dim) if fusion == "gated" and embed_dim is not None else None
        self.head = nn.Linear(embed_dim, out_dim, bias=False) if fusion == "gated" and embed_dim is not None else None

    def forward(self, bags: Bags) -> Output:
        """The inner model's output with other logits; in `extra`, "inner" has its own and "added" the rest `(b, c)`."""
        if bags.covariates is None:
            raise ValueError("the model reads clinical covariates, the bags have none")
        output: Output = self.inner(bags)
        covariates = bags.covariates.to(self.shift.weight.dtype)
        added = self.shift(covariates)  # (b, c)
        if self.gate is not None and self.head is not None:
            open_by = 2 * torch.sigmoid(self.gate(covariates))  # (b, e)
            added = added + self.head(open_by * output.embedding.to(open_by.dtype))
        extra = output.extra | {"inner": output.logits, "added": added}
        return replace(output, logits=output.logits + added, extra=extra)

    def loss(self, output: Output, target: Tensor, endpoint: Criterion) -> Tensor:
        """The inner model's, under an endpoint that sees the covariates."""
        shifted = _Beside(endpoint.loss, endpoint.membership, output.extra["added"], target)
        row = torch.arange(len(target), device=target.device)
        return self.inner.loss(replace(output, logits=output.extra["inner"]), row, shifted)


@dataclass(frozen=True)
class _Beside:
    """An endpoint of which a target is a bag's row: whose logits they are tells what to add to them."""

    judge: Callable[[Tensor, Tensor], Tensor]
    members: Callable[[Tensor], Tensor | None]
    added: Tensor
    """`(b, c)`"""
    target: Tensor
    """`(b, ...)`"""

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.judge(logits + self.added[target], self.target[target])

    def membership(self, target: Tensor) -> Tensor | None:
        return self.members(self.target[target])
