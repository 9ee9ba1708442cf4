"""One model for each of several encoders of the same tiles, trained side by side."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.models.mil_model import Criterion, MILModel, Output


class EncoderEnsemble(MILModel):
    """Members of one architecture, each of which reads the features of one encoder.

    `logits = mean over members of logits` (of classes the normalised geometric mean of their probabilities, of Cox
    models the mean log hazard), attention and embeddings likewise: the mean, and side by side. Each member has the loss
    of its own logits, so that no weight of a member depends on another's; epochs are chosen for the mean.
    """

    paper: ClassVar[str] = "the members'"
    cost: ClassVar[str] = "the members'"

    def __init__(self, members: Sequence[MILModel], widths: Sequence[int]) -> None:
        """`widths` are those of the encoders' blocks of the features, in the order of the members."""
        super().__init__()
        if len(members) != len(widths) or len(members) < 2:
            raise ValueError(f"{len(members)} members for {len(widths)} encoders, expected one each of two or more")
        if any(member.solved for member in members):
            raise ValueError(f"{type(members[0]).__name__} is solved for, expected a model that is trained")
        self.members = nn.ModuleList(members)
        self.widths = tuple(widths)
        self.tiles_to_fit = max(member.tiles_to_fit for member in members)  # type: ignore[misc]  # the members'
        self.alone: int | None = None

    @property
    def models(self) -> list[MILModel]:
        """The members."""
        return [member for member in self.members if isinstance(member, MILModel)]

    def blocks(self, features: Tensor) -> list[Tensor]:
        """Return the features `(n, d_i)` of each encoder, contiguous: products of strided rows may round otherwise."""
        return [features[:, start:stop].contiguous() for start, stop in pairwise(accumulate(self.widths, initial=0))]

    def forward(self, bags: Bags) -> Output:
        """Return the mean of the members, with what each gives in `extra`; with `alone` set that member's output."""
        parts = [bags.with_features(block) for block in self.blocks(bags.features)]
        if self.alone is not None:
            only: Output = self.models[self.alone](parts[self.alone])
            return only
        outputs: list[Output] = [model(part) for model, part in zip(self.models, parts, strict=True)]
        attention = [output.attention for output in outputs if output.attention is not None]
        return Output(
            torch.stack([output.logits for output in outputs]).mean(0),
            torch.cat([output.embedding for output in outputs], dim=1),
            torch.stack(attention).mean(0) if len(attention) == len(outputs) else None,
            {f"{at}.{name}": tensor for at, output in enumerate(outputs) for name, tensor in _tensors(output).items()},
        )

    def loss(self, output: Output, target: Tensor, endpoint: Criterion) -> Tensor:
        """Return the mean of the members' own losses."""
        outputs = [_output(output.extra, f"{at}.") for at in range(len(self.members))]
        losses = [model.loss(each, target, endpoint) for model, each in zip(self.models, outputs, strict=True)]
        return torch.stack(losses).mean()

    def fit_tiles(self, tiles: Tensor) -> None:
        """Fit each member to its encoder's features."""
        for model, block in zip(self.models, self.blocks(tiles), strict=True):
            model.fit_tiles(block)

    def begin_epoch(self, epoch: int) -> None:
        """Tell the members."""
        for model in self.models:
            model.begin_epoch(epoch)

    def after_step(self) -> None:
        """Tell the members."""
        for model in self.models:
            model.after_step()

    def reads_places(self) -> bool:
        """Return whether a member does."""
        return any(model.reads_places() for model in self.models)

    def pair_bytes(self, tiles: int) -> float:
        """Return the members' together."""
        return sum(model.pair_bytes(tiles) for model in self.models)


_OUTPUT = ("logits", "embedding", "attention")


def _tensors(output: Output) -> dict[str, Tensor]:
    fields = {"logits": output.logits, "embedding": output.embedding, **output.extra}
    return fields if output.attention is None else {**fields, "attention": output.attention}


def _output(extra: dict[str, Tensor], prefix: str) -> Output:
    """Return a member's output again, from what `_tensors` made of it."""
    fields = {name.removeprefix(prefix): tensor for name, tensor in extra.items() if name.startswith(prefix)}
    rest = {name: tensor for name, tensor in fields.items() if name not in _OUTPUT}
    return Output(fields["logits"], fields["embedding"], fields.get("attention"), rest)
