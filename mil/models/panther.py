"""PANTHER: a slide is the mixture of morphological prototypes that its tiles are drawn from.

A. H. Song, R. J. Chen, T. Ding, D. F. K. Williamson, G. Jaume, F. Mahmood: Morphological prototyping for unsupervised
slide representation learning in computational pathology. CVPR 2024, arXiv:2405.11643. The tiles of a slide are a
Gaussian mixture with diagonal covariances, whose means start from prototypes; expectation maximisation with a prior
around the prototypes fits weights pi, means mu and variances S to each slide, and the slide is `[pi, mu, S]`. The
authors' code is mahmoodlab/PANTHER; its mixture is that of M. Kim: Differentiable expectation-maximization for set
representation learning. ICLR 2022.
"""

from math import log, pi
from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.layers.kmeans import kmeans
from mil.models.mil_model import MILModel, Output


class Panther(MILModel):
    """A linear layer reads the weights, means and variances of each slide's mixture.

    The prototypes are the k-means centres of tiles of the training patients, found before training (`fit_tiles`) and
    then fixed; they are stored with the weights. Before that, as in the authors' code without prototypes, they are
    small random numbers. Nothing before the linear layer is learnt, and no tile has attention: each belongs to the
    prototypes by `extra["prototypes"]`.

    Departures: with `hidden_dim`, a layer with ReLU shared by the prototypes stands for the paper's networks on top.
    """

    paper: ClassVar[str] = "Song 2024"
    cost: ClassVar[str] = "n"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True
    tiles_to_fit: ClassVar[int] = 50_000
    not_federated: ClassVar[str] = "its prototypes are fitted to tiles, which no hospital sends"

    prototypes: Tensor

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        prototypes: int = 16,
        iterations: int = 1,
        prior: float = 0.001,
        variance: float = 0.1,
        hidden_dim: int | None = None,
    ) -> None:
        """`iterations` of expectation maximisation; `prior` is the prior's weight in tiles, `variance` its variance."""
        super().__init__()
        if prototypes < 1 or iterations < 1 or not (prior > 0 and variance > 0):
            raise ValueError(
                f"{prototypes} prototypes, {iterations} iterations, prior {prior} and variance {variance}, "
                "expected whole numbers of at least one and positive numbers"
            )
        self.iterations, self.prior, self.variance = iterations, prior, variance
        self.register_buffer("prototypes", 0.1 * torch.randn(prototypes, in_dim))
        self.hidden = None if hidden_dim is None else nn.Sequential(nn.Linear(1 + 2 * in_dim, hidden_dim), nn.ReLU())
        self.head = nn.Linear(prototypes * (1 + 2 * in_dim if hidden_dim is None else hidden_dim), out_dim)

    def fit_tiles(self, tiles: Tensor) -> None:
        """Take the k-means centres of tiles `(n, d)` as prototypes."""
        self.prototypes.copy_(kmeans(tiles.to(self.prototypes.dtype), len(self.prototypes)))

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; embedding `(b, p (1 + 2 d))`: pi, then mu, then S; `extra["prototypes"]` `(n, p)`."""
        (tiles,) = bags.tilewise(lambda features: (features,))  # (n, d)
        with torch.autocast(tiles.device.type, enabled=False):
            tiles = tiles.to(self.prototypes.dtype)
            weight, mean, variance, belongs = self._mixture(bags, tiles)  # (b, p), (b, p, d) twice, (n, p)
        embedding = torch.cat([weight, mean.flatten(1), variance.flatten(1)], 1)
        read = embedding
        if self.hidden is not None:
            read = self.hidden(torch.cat([weight.unsqueeze(2), mean, variance], 2)).flatten(1)
        return Output(self.head(read), embedding, None, {"prototypes": belongs})

    def _mixture(self, bags: Bags, tiles: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Fit the mixture of each bag, beginning at the prior."""
        count = len(bags)
        prior = self.prototypes.expand(count, -1, -1)
        mean, variance = prior, torch.full_like(prior, self.variance)
        weight = torch.full(prior.shape[:2], 1 / prior.shape[1], dtype=prior.dtype, device=prior.device)
        for _ in range(self.iterations):
            rows = zip(bags.split(tiles), weight, mean, variance, strict=True)
            belongs = torch.cat([_responsibility(*each) for each in rows])  # (n, p)
            mass = bags.sum(belongs) + self.prior  # (b, p)
            first = bags.sum(tiles, weight=belongs).view_as(prior) + self.prior * prior
            second = bags.sum(tiles.square(), weight=belongs).view_as(prior)
            second = second + self.prior * (self.variance + prior.square())
            weight = mass / mass.sum(1, keepdim=True)
            mean = first / mass.unsqueeze(2)
            variance = (second / mass.unsqueeze(2) - mean.square()).clamp(min=1e-8)
        return weight, mean, variance, belongs


def _responsibility(tiles: Tensor, weight: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Return how likely each tile `(n, d)` is of each component, `(n, p)`.

    Args:
        tiles: `(n, d)`.
        weight: Of the components, `(p,)`.
        mean: `(p, d)`.
        variance: `(p, d)`.
    """
    squares = tiles.square() @ variance.reciprocal().t() - 2 * tiles @ (mean / variance).t()  # (n, p)
    constant = variance.log().sum(1) + (mean.square() / variance).sum(1) + mean.shape[1] * log(2 * pi)  # (p,)
    return (weight.log() - 0.5 * (constant + squares)).softmax(1)
