"""SiMLP: the mean of the tiles' features, read by a small network.

J. Li, J. Hu, Q. Sun, R. Yan, M. Ouyang, T. Guan, A. Han, C. He, Y. He: Can we simplify slide-level fine-tuning of
pathology foundation models? 2025, arXiv:2502.20823. The slide is the mean of its tiles' features, before any learnt
layer; a multilayer perceptron maps it to the logits.
"""

from typing import ClassVar

from torch import nn

from mil.bags import Bags
from mil.layers.embed import Embed
from mil.models.mil_model import MILModel, Output


class SiMLP(MILModel):
    """Mean pooling, hidden layers with ReLU, a linear layer.

    Unlike `mean`, which pools what a learnt layer makes of each tile, nothing is learnt before the mean. Departure: the
    paper's text was read, its code not; hidden layers have the width of `hidden_dim` and dropout. With `layers=0` it is
    a linear model of the mean.
    """

    paper: ClassVar[str] = "Li 2025"
    cost: ClassVar[str] = "n"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True

    def __init__(
        self, in_dim: int, out_dim: int, hidden_dim: int = 512, layers: int = 1, dropout: float = 0.25
    ) -> None:
        """`layers` is the number of hidden layers, `hidden_dim` their width."""
        super().__init__()
        if layers < 0:
            raise ValueError(f"{layers} hidden layers, expected zero or more")
        widths = [in_dim] + [hidden_dim] * layers
        self.hidden = nn.Sequential(*(Embed(width, hidden_dim, dropout) for width in widths[:-1]))
        self.head = nn.Linear(widths[-1], out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; the embedding is the last hidden layer `(b, h)`; no attention."""
        (tiles,) = bags.tilewise(lambda features: (features,))  # (n, d)
        embedding = self.hidden(bags.mean(tiles))  # (b, h)
        return Output(self.head(embedding), embedding)
