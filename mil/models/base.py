"""What every model of the zoo is: bags in, `Output` out."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from mil.bags import Bags

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Output:
    """What a model says of `b` bags of `n` tiles."""

    logits: Tensor
    """`(b, c)`"""
    embedding: Tensor
    """`(b, e)`"""
    attention: Tensor | None = None
    """`(n,)`, each tile's share of its bag, summing to one; none where the method has no attention"""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """What the method has beside: attention of each head `(n, h)`, scores of tiles, ..."""


class MILModel(nn.Module, ABC):
    """A bag-level model, `Model(in_dim, out_dim, **options)(bags) -> Output`.

    Parameters and forward pass are the whole contract; a method with auxiliary terms overrides `loss`.
    """

    order_matters: ClassVar[bool] = False
    """True where the paper's method depends on the order of tiles; the class then says why."""

    @abstractmethod
    def forward(self, bags: Bags) -> Output:
        """Reads every bag by itself."""

    def loss(self, output: Output, target: Tensor, loss: Loss) -> Tensor:
        """The training loss `()`: the endpoint's own, of logits and target."""
        return loss(output.logits, target)
