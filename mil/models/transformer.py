"""A plain transformer over tiles, read by a class token.

S. J. Wagner, D. Reisenbüchler, N. P. West, ...: Transformer-based biomarker prediction from colorectal cancer
histology: a large-scale multicentric study. Cancer Cell 41, 2023, arXiv:2301.09617 (two layers of eight heads after a
linear layer with ReLU). Distances as biases: O. Press, N. A. Smith, M. Lewis: Train short, test long. ICLR 2022,
arXiv:2108.12409, here between tiles on a slide, as KatherLab/STAMP has them.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.layers.embed import Embed
from mil.layers.neighbours import Places
from mil.layers.shares import shares
from mil.layers.transformer_block import Distances, EncoderLayer
from mil.models.mil_model import MILModel, Output


class ClassTokenReader(nn.Module):
    """Transformer layers over a class token and the tiles of each bag; the last layer computes the class token only.

    Time grows with the square of a bag's tiles, except in the last layer; memory grows with the tiles.
    """

    def __init__(self, in_dim: int, embed_dim: int, layers: int, heads: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"{layers} layers, expected at least one")
        self.embed = Embed(in_dim, embed_dim, dropout)
        self.class_token = nn.Parameter(torch.randn(embed_dim))
        self.layers = nn.ModuleList(EncoderLayer(embed_dim, heads, hidden_dim, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, bags: Bags, distances: list[Distances] | None = None) -> tuple[Tensor, Tensor]:
        """The class token of each bag `(b, e)`, and its attention to the bag's tiles `(n,)`."""
        (tiles,) = bags.tilewise(lambda features: (self.embed(features),))  # (n, e)
        between: list[Distances] | list[None] = distances or [None] * len(bags)
        read = [self._read(rows, apart) for rows, apart in zip(bags.split(tiles), between, strict=True)]
        return torch.stack([token for token, _ in read]), torch.cat([attention for _, attention in read])

    def _read(self, tiles: Tensor, distances: Distances | None) -> tuple[Tensor, Tensor]:
        tokens = torch.cat([self.class_token.to(tiles.dtype).unsqueeze(0), tiles])  # (1 + n, e)
        *earlier, last = [layer for layer in self.layers if isinstance(layer, EncoderLayer)]
        for layer in earlier:
            tokens = layer(tokens, distances)
        token, attention = last.first(tokens)  # (e,), (h, 1 + n)
        return self.norm(token), shares(attention[:, 1:].mean(0))


class Transformer(MILModel):
    """A class token and tiles in transformer layers; tiles have no positions.

    Attention is the class token's in the last layer, the mean over heads, without its weight for itself. Departures: no
    dropout on attention (dropout is on what a layer adds), whose weights are never all in memory.
    """

    paper: ClassVar[str] = "Wagner 2023"
    cost: ClassVar[str] = "n^2"
    in_blocks: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        embed_dim: int = 512,
        layers: int = 2,
        heads: int = 8,
        hidden_dim: int = 512,
        dropout: float = 0.25,
    ) -> None:
        """`hidden_dim` is the width between a layer's two linear layers."""
        super().__init__()
        self.reader = ClassTokenReader(in_dim, embed_dim, layers, heads, hidden_dim, dropout)
        self.head = nn.Linear(embed_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; attention `(n,)`."""
        embedding, attention = self.reader(bags)
        return Output(self.head(embedding), embedding, attention)


class AlibiTransformer(MILModel):
    """The same with linear biases by distance, so that tiles attend more to near tiles than to far ones.

    Distances are Euclidean, in steps of the slide's grid of tiles, times the paper's fixed slopes. To and from the
    class token there is no bias. Tiles on different slides of a patient have no distance and count as `apart` steps
    apart. Departures: distances on a plane in place of a sequence's. STAMP takes distances, scaled by their running
    mean and a learnt factor, off the weights after the softmax; here they are taken off the scores, as in the paper.
    """

    paper: ClassVar[str] = "Press 2022"
    cost: ClassVar[str] = "n^2"
    in_blocks: ClassVar[bool] = True
    needs_coords: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        embed_dim: int = 512,
        layers: int = 2,
        heads: int = 8,
        hidden_dim: int = 512,
        apart: float = 100,
        dropout: float = 0.25,
    ) -> None:
        """`apart`: steps between slides; `layers` of at least two, since the last has no biases."""
        super().__init__()
        if layers < 2:
            raise ValueError(f"{layers} layers, expected two or more: the last reads without distances")
        self.apart = apart
        self.reader = ClassTokenReader(in_dim, embed_dim, layers, heads, hidden_dim, dropout)
        self.head = nn.Linear(embed_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; attention `(n,)`."""
        places = Places.of(bags)
        starts = (sum(bags.sizes[:bag]) for bag in range(len(bags)))
        spans = [slice(start, start + size) for start, size in zip(starts, bags.sizes, strict=True)]
        embedding, attention = self.reader(bags, [Distances.of(places, span, self.apart) for span in spans])
        return Output(self.head(embedding), embedding, attention)
