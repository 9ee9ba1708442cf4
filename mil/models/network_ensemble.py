"""Several networks of one architecture, trained side by side: one model whose logits are their mean."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.models.fusion import Fused
from mil.models.mil_model import Criterion, MILModel, Output, TileTerms


class NetworkEnsemble(MILModel):
    """Members of one architecture that differ by their initial weights and dropout, by the encoder they read, or both.

    `logits = mean over members of logits` (of classes the normalised geometric mean of their probabilities, of Cox
    models the mean log hazard), attention and embeddings likewise: the mean, and side by side. Each member has the loss
    of its own logits, so that no weight of a member depends on another's; epochs are chosen for the mean.
    """

    paper: ClassVar[str] = "the members'"
    cost: ClassVar[str] = "the members'"

    def __init__(self, members: Sequence[MILModel], widths: Sequence[int] = ()) -> None:
        """Join members.

        Args:
            members: Two or more; of several encoders as many for each, those of the first encoder first.
            widths: Of each encoder's block of the features; empty where every member reads all features.

        Raises:
            ValueError: A wrong number of members, or a model that is solved for.
        """
        super().__init__()
        if len(members) < 2 or (widths and len(members) % len(widths)):
            each = f" for {len(widths)} encoders, expected as many for each and" if widths else ", expected"
            raise ValueError(f"{len(members)} members{each} two or more")
        if any(member.solved for member in members):
            raise ValueError(f"{type(members[0]).__name__} is solved for, expected a model that is trained")
        self.members = nn.ModuleList(members)
        self.widths = tuple(widths)
        self.cost, self.order_matters = members[0].cost, members[0].order_matters  # type: ignore[misc]  # the members'
        self.tiles_to_fit = max(member.tiles_to_fit for member in members)  # type: ignore[misc]  # likewise
        self.alone: int | None = None
        """the encoder whose members alone give the output, for comparisons of encoders"""

    @property
    def models(self) -> list[MILModel]:
        """The members."""
        return [member for member in self.members if isinstance(member, MILModel)]

    def blocks(self, features: Tensor) -> list[Tensor]:
        """Return the features `(n, d_i)` that each member reads.

        Those of an encoder are contiguous: products of strided rows may round otherwise.
        """
        if not self.widths:
            return [features] * len(self.members)
        ends = pairwise(accumulate(self.widths, initial=0))
        blocks = [features[:, start:stop].contiguous() for start, stop in ends]
        return [block for block in blocks for _ in range(self._each)]

    @property
    def _each(self) -> int:
        """How many members read the same features."""
        return len(self.members) // max(1, len(self.widths))

    def _seen(self, bags: Bags) -> list[Bags]:
        """Return the bags as each member reads them, in the precision that `bags` asks for."""
        return [replace(bags, features=block) for block in self.blocks(bags.features)]

    def forward(self, bags: Bags) -> Output:
        """Return the mean of the members, with what each gives in `extra`.

        With `alone` set logits and attention are the mean of that encoder's members, and the embeddings of all others
        are zero.
        """
        outputs: list[Output] = [model(seen) for model, seen in zip(self.models, self._seen(bags), strict=True)]
        counts = [self.alone in (None, at // self._each) for at in range(len(outputs))]
        chosen = [output for output, is_counted in zip(outputs, counts, strict=True) if is_counted]
        embeddings = [
            output.embedding if is_counted else torch.zeros_like(output.embedding)
            for output, is_counted in zip(outputs, counts, strict=True)
        ]
        attention = [output.attention for output in chosen if output.attention is not None]
        return Output(
            torch.stack([output.logits for output in chosen]).mean(0),
            torch.cat(embeddings, dim=1),
            torch.stack(attention).mean(0) if len(attention) == len(chosen) else None,
            {f"{at}.{name}": tensor for at, output in enumerate(outputs) for name, tensor in _tensors(output).items()},
        )

    def loss(self, output: Output, target: Tensor, endpoint: Criterion) -> Tensor:
        """Return the mean of the members' own losses."""
        outputs = [_output(output.extra, f"{at}.") for at in range(len(self.members))]
        losses = [model.loss(each, target, endpoint) for model, each in zip(self.models, outputs, strict=True)]
        return torch.stack(losses).mean()

    def trained_logits(self, output: Output) -> Tensor:
        """Return the logits of each member, `(m, b, c)`."""
        return torch.stack([output.extra[f"{at}.logits"] for at in range(len(self.members))])

    def tile_terms(self, bags: Bags) -> TileTerms | None:
        """Return the terms of all members side by side, with their shares of the mean; None where a member has none."""
        terms = [model.tile_terms(seen) for model, seen in zip(self.models, self._seen(bags), strict=True)]
        given = [term for term in terms if term is not None]
        if len(given) < len(terms):
            return None
        weight, logits = torch.cat([term.weight for term in given], 1), torch.cat([term.logits for term in given], 1)
        return TileTerms(weight, logits / len(given))

    def fit_tiles(self, tiles: Tensor) -> None:
        """Fit each member to the features that it reads."""
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

    def reads_in_blocks(self) -> bool:
        """Return whether all members do."""
        return all(model.reads_in_blocks() for model in self.models)

    def reads_in_pieces(self) -> bool:
        """Return whether all members do."""
        return all(model.reads_in_pieces() for model in self.models)

    def reads_places(self) -> bool:
        """Return whether a member does."""
        return any(model.reads_places() for model in self.models)

    def pair_bytes(self, tiles: int) -> float:
        """Return the most that a member needs: they predict one after the other."""
        return max(model.pair_bytes(tiles) for model in self.models)


def members_of(model: MILModel) -> list[MILModel]:
    """Return the networks of the features that a model consists of: those of an ensemble, or the only one."""
    inner = model.inner if isinstance(model, Fused) else model
    return inner.models if isinstance(inner, NetworkEnsemble) else [inner]


_OUTPUT = ("logits", "embedding", "attention")


def _tensors(output: Output) -> dict[str, Tensor]:
    fields = {"logits": output.logits, "embedding": output.embedding, **output.extra}
    return fields if output.attention is None else {**fields, "attention": output.attention}


def _output(extra: dict[str, Tensor], prefix: str) -> Output:
    """Return a member's output again, from what `_tensors` made of it."""
    fields = {name.removeprefix(prefix): tensor for name, tensor in extra.items() if name.startswith(prefix)}
    rest = {name: tensor for name, tensor in fields.items() if name not in _OUTPUT}
    return Output(fields["logits"], fields["embedding"], fields.get("attention"), rest)
