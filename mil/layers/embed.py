"""The first layer of most bag models: one hidden layer, applied to each tile separately."""

from torch import Tensor, nn

from mil.layers.dropout import Dropout


class Embed(nn.Sequential):
    """Linear, ReLU, dropout: features `(n, d)` to embeddings `(n, e)`."""

    def __init__(self, in_dim: int, embed_dim: int, dropout: float) -> None:
        super().__init__(nn.Linear(in_dim, embed_dim), nn.ReLU(), Dropout(dropout))

    def forward(self, tiles: Tensor) -> Tensor:
        """`(n, d)` to `(n, e)`."""
        linear, _, dropout = self
        if self.training and isinstance(dropout, Dropout):
            return dropout.of_relu(linear(tiles))
        embedded: Tensor = super().forward(tiles)  # type: ignore[no-untyped-call]  # torch has no types here
        return embedded
