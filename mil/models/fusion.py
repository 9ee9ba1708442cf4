"""Models that use clinical covariates in addition to the tiles."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.models.mil_model import Criterion, MILModel, Output, TileTerms

FUSIONS = ("late", "gated")


class Fused(MILModel):
    """A model whose logits are shifted by the covariates `c` of each bag's patient.

    Late: `W c`. Where the inner model ends in a linear layer, this equals that layer on the bag's embedding
    concatenated with the covariates. Gated: `W c + H (2 sigmoid(G c) * e)`, a second linear layer on the inner model's
    embedding `e`, each feature of which the covariates scale by 0 to 2 (the gate of J. Hu, L. Shen, G. Sun:
    Squeeze-and-excitation networks, CVPR 2018, scaled so that covariates without effect leave `e` unchanged).

    W starts at zero. The shift is added to all logits in the inner model's loss, including those of branches, streams
    and pseudo-bags; attention and `extra` are the inner model's.
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
        self.tiles_to_fit = inner.tiles_to_fit  # type: ignore[misc]  # the inner model's
        self.solved = inner.solved  # type: ignore[misc]  # likewise
        self.shift = nn.Linear(width, out_dim, bias=False)
        nn.init.zeros_(self.shift.weight)
        self.gate = nn.Linear(width, embed_dim) if fusion == "gated" and embed_dim is not None else None
        self.head = nn.Linear(embed_dim, out_dim, bias=False) if fusion == "gated" and embed_dim is not None else None

    def forward(self, bags: Bags) -> Output:
        """Return shifted logits; in `extra`, "inner" are those of the inner model and "added" the shift `(b, c)`."""
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

    def fit_tiles(self, tiles: Tensor) -> None:
        """Fit the inner model."""
        self.inner.fit_tiles(tiles)

    def begin_epoch(self, epoch: int) -> None:
        """Tell the inner model."""
        self.inner.begin_epoch(epoch)

    def after_step(self) -> None:
        """Tell the inner model."""
        self.inner.after_step()

    def reads_in_blocks(self) -> bool:
        """Return whether the inner model does."""
        return self.inner.reads_in_blocks()

    def reads_places(self) -> bool:
        """Return whether the inner model does."""
        return self.inner.reads_places()

    def reads_in_pieces(self) -> bool:
        """Return whether the inner model does."""
        return self.inner.reads_in_pieces()

    def tile_terms(self, bags: Bags) -> TileTerms | None:
        """Return the inner model's terms with the late shift added to every tile; None where the fusion is gated."""
        terms = self.inner.tile_terms(bags)
        if terms is None or self.fusion == "gated" or bags.covariates is None:
            return None
        shift = self.shift(bags.covariates.to(self.shift.weight.dtype)) / terms.weight.shape[1]  # (b, c)
        return TileTerms(terms.weight, terms.logits + bags.spread(shift).unsqueeze(1))

    def trained_logits(self, output: Output) -> Tensor:
        """Return the inner model's with the shift added to each."""
        return self.inner.trained_logits(replace(output, logits=output.extra["inner"])) + output.extra["added"]

    def loss(self, output: Output, target: Tensor, endpoint: Criterion) -> Tensor:
        """Return the inner model's loss with shifted logits."""
        shifted = _Shifted(endpoint.loss, endpoint.membership, output.extra["added"], target)
        row = torch.arange(len(target), device=target.device)
        return self.inner.loss(replace(output, logits=output.extra["inner"]), row, shifted)


@dataclass(frozen=True)
class _Shifted:
    """An endpoint whose target is the row of a bag, so that the shift of that bag can be added to the logits."""

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
