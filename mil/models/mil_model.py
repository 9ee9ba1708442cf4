"""The interface of all models: bags in, `Output` out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from torch import Tensor, nn

from mil.bags import Bags


class Criterion(Protocol):
    """What a model may use of its endpoint."""

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss `()` of logits `(b, c)`; any number of rows may be given, each with a target."""

    def membership(self, target: Tensor) -> Tensor | None:
        """Return `(b, c)`: 1 where a bag is of the logit's class, 0 if not, NaN if unknown; None without classes."""


@dataclass(frozen=True, eq=False)
class Output:
    """The output of a model for `b` bags with `n` tiles."""

    logits: Tensor
    """`(b, c)`"""
    embedding: Tensor
    """`(b, e)`"""
    attention: Tensor | None = None
    """`(n,)`, each tile's share of its bag, summing to one; none where the method has no attention"""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """What the method has beside: attention of each head `(n, h)`, scores of tiles, ..."""


@dataclass(frozen=True, eq=False)
class TileTerms:
    """The terms of which a model's logits consist, `logit[c] = sum over heads and tiles of weight * logits[c]`.

    The weights of a head are the softmax of scores of which each depends on its tile alone: without some tiles the
    weights of the others keep their proportions.
    """

    weight: Tensor
    """`(n, h)`, sums to one in each bag and head"""
    logits: Tensor
    """`(n, h, c)`"""


class MILModel(nn.Module, ABC):
    """A bag-level model, `Model(in_dim, out_dim, **options)(bags) -> Output`.

    A model defines its parameters and `forward`; one with auxiliary loss terms overrides `loss`. Every model states its
    `paper` and its `cost`.
    """

    paper: ClassVar[str]
    """First author and year."""
    cost: ClassVar[str]
    """How time grows with the n tiles of a bag: "n", "n log n", "n m" with a constant m the docstring names, ..."""
    order_matters: ClassVar[bool] = False
    """True where the paper's method depends on the order of tiles; the class then says why."""
    needs_coords: ClassVar[bool] = False
    """True where the method reads the tiles' places; bags without coordinates are then refused."""
    in_blocks: ClassVar[bool] = False
    """True where `forward` reads the features of the tiles through `Bags.tilewise` only: prediction then keeps them as
    they are stored and converts a block at a time."""
    in_pieces: ClassVar[bool] = False
    """True where prediction needs little memory for each tile of a bag that is read in pieces, see `tile_rows`; of
    other models very large bags are refused."""

    tiles_to_fit: ClassVar[int] = 0
    """How many tiles of training patients `fit_tiles` is given before training, at most; 0 where nothing is fitted."""
    solved: ClassVar[bool] = False
    """True where training solves for the weights with all patients at once (`mil.training.solve`), without batches."""
    not_federated: ClassVar[str] = ""
    """Why hospitals cannot train the model together; empty where they can."""

    @abstractmethod
    def forward(self, bags: Bags) -> Output:
        """Return the output; every bag is processed independently."""

    def reads_in_blocks(self) -> bool:
        """Return `in_blocks` where the class itself states it; a class derived from it may read in another way."""
        return bool(vars(type(self)).get("in_blocks", False))

    def fit_tiles(self, tiles: Tensor) -> None:  # most models fit nothing
        """Fit what does not learn by gradients to tiles `(n, d)` of training patients, before training."""

    def begin_epoch(self, epoch: int) -> None:  # most models train alike in all epochs
        """Take note of the training epoch that begins, counted from zero."""

    def after_step(self) -> None:  # most models have no state that follows the weights
        """Take note that the optimizer has changed the weights."""

    def reads_places(self) -> bool:
        """Return whether bags must have coordinates: `needs_coords`, of a model in another that of the inner one."""
        return self.needs_coords

    def reads_in_pieces(self) -> bool:
        """Return `in_pieces` where the class itself states it."""
        return bool(vars(type(self)).get("in_pieces", False))

    def pair_bytes(self, tiles: int) -> float:
        """Return the memory for scores of pairs of tiles, where it grows with the square of their number."""
        return 0.0

    def trained_logits(self, output: Output) -> Tensor:
        """Return the logits that have a loss each, `(m, b, c)`: those of the output, of an ensemble each member's."""
        return output.logits.unsqueeze(0)

    def tile_terms(self, bags: Bags) -> TileTerms | None:
        """Return the terms of which the logits are weighted means; None, the default, for other models."""
        return None

    def loss(self, output: Output, target: Tensor, endpoint: Criterion) -> Tensor:
        """Return the training loss `()`, by default the endpoint's loss of logits and target."""
        return endpoint.loss(output.logits, target)
