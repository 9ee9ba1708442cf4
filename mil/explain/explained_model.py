"""A model as the methods see it: bags in, the explained outputs out, and the tile that stands for nothing special."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from mil.bags import Bags
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.explained import Explained
from mil.inference.forward import device
from mil.models.fusion import Fused
from mil.models.mil_model import MILModel, Output, TileTerms
from mil.tile_rows import blocks

TILES_AT_ONCE = 8192
"""Tiles of small bags that are read at a time: bounds memory, changes no result."""


@dataclass(frozen=True, eq=False)
class ExplainedModel:
    """A model with what its logits mean and the reference tile that every tile is compared with.

    Attributes:
        model: In evaluation mode.
        endpoint: What the logits mean; None explains the logits themselves.
        reference: Features of the reference tile, `(d,)`: the mean of the training tiles.
    """

    model: MILModel
    endpoint: Endpoint | None
    reference: Tensor

    @cached_property
    def outputs(self) -> tuple[Explained, ...]:
        """The explained outputs."""
        if self.endpoint is not None:
            return self.endpoint.explained()
        width = self.logits(self.reference_bag(None)).shape[1]
        return tuple(Explained(f"logit {k + 1}", f"raises logit {k + 1}", "logit") for k in range(width))

    def outputs_of(self, logits: Tensor) -> Tensor:
        """Return the explained outputs `(b, o)` of logits `(b, c)`; it can be differentiated."""
        return logits if self.endpoint is None else self.endpoint.explained_values(logits)

    def read(self, bags: Bags) -> Output:
        """Return the model's output, without gradients, on the CPU as far as logits and attention go."""
        with torch.inference_mode():
            place = device()
            output: Output = self.model.to(place)(bags.cast(torch.float32).to(place))
            attention = None if output.attention is None else output.attention.cpu()
            return replace(output, logits=output.logits.cpu().double(), attention=attention)

    def logits(self, bags: Bags) -> Tensor:
        """Return logits `(b, c)` in double precision."""
        return self.read(bags).logits

    def __call__(self, bags: Bags) -> Tensor:
        """Return the explained outputs of bags, `(b, o)`, in double precision."""
        return self.outputs_of(self.logits(bags))

    def reference_bag(self, bag: Bags | None, tiles: int = 1) -> Bags:
        """Return a bag of copies of the reference tile, with the covariates of `bag`; it stands for "no tissue"."""
        features = self.reference.float().expand(tiles, -1)
        places = torch.zeros(tiles, 2, dtype=torch.int64)
        covariates = None if bag is None else bag.covariates
        if covariates is None and isinstance(self.model, Fused):
            covariates = torch.zeros(1, self.model.shift.in_features)
        return Bags(features, (tiles,), places, covariates=covariates)

    def terms(self, bag: Bags) -> TileTerms | None:
        """Return the terms of the bag's logits in double precision, where they are weighted means of tiles."""
        with torch.inference_mode():
            place = device()
            terms = self.model.to(place).tile_terms(bag.cast(torch.float32).to(place))
        return None if terms is None else TileTerms(terms.weight.cpu().double(), terms.logits.cpu().double())

    def single_logits(self, bag: Bags) -> Tensor:
        """Return the logits of the bags that hold one tile alone each, `(n, c)`, in blocks of bounded memory."""
        return torch.cat([self.logits(block) for block in single_tiles(bag)])


def single_tiles(bag: Bags) -> Iterator[Bags]:
    """Yield bags of one tile each, many at a time; a lone tile has no place but its own, so all lie at the origin."""
    for rows in blocks(bag.features, TILES_AT_ONCE):
        n = len(rows)
        covariates = None if bag.covariates is None else bag.covariates.expand(n, -1)
        yield Bags(rows, (1,) * n, torch.zeros(n, 2, dtype=torch.int64), covariates=covariates)


def subset(bag: Bags, tiles: Tensor) -> Bags:
    """Return the bag with these of its tiles only, `tiles` being rows or a mask."""
    coords, slide = (None if rows is None else rows[tiles] for rows in (bag.coords, bag.slide))
    features = bag.features[tiles]
    return Bags(features, (len(features),), coords, slide, bag.covariates)
