"""What a model says of parts of a bag: the tiles of an order taken one after the other, or any sets of tiles."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from mil.bags import Bags
from mil.explain.explained_model import ExplainedModel, subset
from mil.models.mil_model import TileTerms

AT_ONCE = 2**17
"""Tiles of the parts of a bag that are read in one batch: bounds memory, changes no result."""
_LEAST = 1e-30
"""Smallest weight, so that tiles of weight zero still have proportions among themselves."""


class Coalitions:
    """The parts of one bag. Where the logits are weighted means of tiles they are computed from their terms."""

    def __init__(self, model: ExplainedModel, bag: Bags) -> None:
        self.model, self.bag = model, bag
        terms = model.terms(bag)
        self.terms = None if terms is None else TileTerms(terms.weight.clamp(min=_LEAST), terms.logits)

    @cached_property
    def empty(self) -> Tensor:
        """The outputs of no tiles, `(1, o)`: those of the reference tile."""
        return self.model(self.model.reference_bag(self.bag))

    def firsts(self, order: Tensor, counts: Sequence[int]) -> Tensor:
        """Return the outputs of the first `count` tiles of an order `(n,)` for each count, `(k, o)`."""
        if self.terms is None:
            return self._read([order[:count] for count in counts])
        weight = self.terms.weight[order]
        sums = (weight.unsqueeze(2) * self.terms.logits[order]).cumsum(0)  # (n, h, c)
        logits = (sums / weight.cumsum(0).unsqueeze(2)).sum(1)  # (n, c)
        return self._with_empty(logits, torch.tensor(counts))

    def sets(self, sets: Sequence[Tensor]) -> Tensor:
        """Return the outputs of sets of tiles, each given by its rows, `(k, o)`."""
        return self._read(sets)

    def without(self, groups: Tensor) -> Tensor:
        """Return the outputs without the tiles of each group `(g, k)`, `(g, o)`; a tile may occur twice in a row."""
        n = len(self.bag.features)
        if self.terms is None:
            everything = torch.ones(n, dtype=torch.bool)
            return self._read([everything.clone().index_fill_(0, group, False).nonzero().flatten() for group in groups])
        once = torch.ones_like(groups, dtype=torch.float64)
        ranked, at = groups.sort(1)
        once.scatter_(1, at[:, 1:], (ranked[:, 1:] != ranked[:, :-1]).double())
        weight = self.terms.weight  # (n, h)
        sums = weight.unsqueeze(2) * self.terms.logits  # (n, h, c)
        less = (weight[groups] * once.unsqueeze(2)).sum(1)  # (g, h)
        less_sums = (sums[groups] * once.unsqueeze(2).unsqueeze(3)).sum(1)  # (g, h, c)
        rest = weight.sum(0) - less
        logits = ((sums.sum(0) - less_sums) / rest.clamp(min=_LEAST).unsqueeze(2)).sum(1)
        return self._with_empty(logits, n - once.sum(1).long(), align=True)

    def _with_empty(self, logits: Tensor, counts: Tensor, align: bool = False) -> Tensor:
        """Return outputs, those of no tiles where a count is zero; `logits` are by count, or by row if `align`."""
        rows = torch.arange(len(counts)) if align else (counts - 1).clamp(min=0)
        return torch.where((counts == 0).unsqueeze(1), self.empty, self.model.outputs_of(logits[rows]))

    def _read(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the outputs of parts of the bag, each given by its rows, `(k, o)`."""
        values = torch.empty(len(parts), len(self.model.outputs), dtype=torch.float64)
        for batch in _batches([len(part) for part in parts]):
            bags = Bags.concat(subset(self.bag, parts[at].sort().values) for at in batch)
            values[batch] = self.model(bags)
        empty = [at for at, part in enumerate(parts) if not len(part)]
        values[empty] = self.empty
        return values


def _batches(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Yield the places of parts that are read together; empty parts are left out."""
    batch, tiles = list[int](), 0
    for at, size in enumerate(sizes):
        if batch and tiles + size > AT_ONCE:
            yield batch
            batch, tiles = [], 0
        if size:
            batch.append(at)
            tiles += size
    if batch:
        yield batch
