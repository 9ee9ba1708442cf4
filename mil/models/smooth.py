"""Smooth attention: adjacent tiles get similar weights.

F. M. Castro-Macías, P. Morales-Álvarez, Y. Wu, R. Molina, A. K. Katsaggelos: Sm: enhanced localization in multiple
instance learning for medical imaging classification. NeurIPS 2024, arXiv:2410.03276. The authors' library is torchmil.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from mil.bags import Bags
from mil.layers.dropout import Dropout
from mil.layers.embed import Embed
from mil.layers.neighbours import Places, adjacent
from mil.models.mil_model import MILModel, Output

WHERE = ("early", "mid", "late")


class SmoothABMIL(MILModel):
    """ABMIL with the operator Sm on its way to the attention.

    "early" smooths the embeddings of the tiles, "mid" the output of the attention's first layer, "late" the scores. The
    linear layers after the operator are divided by their spectral norm, so that they do not undo it (there is none
    after "late").

    The graph joins each tile with the up to eight that touch it on the grid of its slide. Departures: a tile that
    touches no other keeps its value (in torchmil it shrinks towards zero); alpha stays between 0 and 1 while it is
    learnt; dropout as in ABMIL. torchmil takes 1 - alpha for a fixed alpha in the iteration, but alpha where it solves
    exactly; here the iteration converges to the exact solution, as in the paper.
    """

    paper: ClassVar[str] = "Castro-Macías 2024"
    cost: ClassVar[str] = "n"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True
    needs_coords: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        embed_dim: int = 512,
        attention_dim: int = 128,
        where: str = "late",
        alpha: float = 0.5,
        learn_alpha: bool = True,
        steps: int = 10,
        spectral: bool = True,
        dropout: float = 0.25,
    ) -> None:
        """`where` is "early", "mid" or "late"; `alpha`, how smooth, in (0, 1); `steps` is the paper's T."""
        super().__init__()
        if where not in WHERE:
            raise ValueError(f"where is {where!r}, expected one of {', '.join(WHERE)}")
        self.where = where
        self.embed = Embed(in_dim, embed_dim, dropout)
        self.smooth = Smooth(alpha, learn_alpha, steps)
        self.inner, self.outer = nn.Linear(embed_dim, attention_dim), nn.Linear(attention_dim, 1, bias=False)
        if spectral and where == "early":
            spectral_norm(self.inner)
        if spectral and where != "late":
            spectral_norm(self.outer)
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(embed_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; attention `(n,)`."""
        graph = touching(Places.of(bags))
        (tiles,) = bags.tilewise(lambda features: (self.embed(features),))  # (n, e)
        tiles = self._smoothed("early", tiles, graph)
        hidden = self._smoothed("mid", self.inner(tiles), graph).tanh()  # (n, a)
        scores = self._smoothed("late", self.outer(self.dropout(hidden)), graph)  # (n, 1)
        attention = bags.softmax(scores)
        embedding = bags.sum(tiles, weight=attention)  # (b, e)
        return Output(self.head(embedding), embedding, attention.squeeze(1))

    def _smoothed(self, where: str, values: Tensor, graph: Tensor) -> Tensor:
        smoothed: Tensor = self.smooth(values, graph) if where == self.where else values
        return smoothed


class Smooth(nn.Module):
    """The operator Sm by its fixed-point iteration: U mixed with the mean over neighbours, `steps` times.

    `G(0) = U`, `G(t) = alpha (I - L) G(t - 1) + (1 - alpha) U` tends to `(I + gamma L)^-1 U`, `gamma = alpha / (1 -
    alpha)`, with the graph's normalised Laplacian L.
    """

    logit: Tensor

    def __init__(self, alpha: float, learn: bool, steps: int) -> None:
        super().__init__()
        if not 0 < alpha < 1:
            raise ValueError(f"alpha is {alpha}, expected a number between 0 and 1")
        self.steps = steps
        logit = torch.tensor(alpha).logit()
        if learn:
            self.logit = nn.Parameter(logit)
        else:
            self.register_buffer("logit", logit)

    def forward(self, values: Tensor, graph: Tensor) -> Tensor:
        """`(n, k)` to `(n, k)`, at least in float32, on a graph `(n, n)`, sparse: I - L."""
        with torch.autocast(values.device.type, enabled=False):
            start = values.to(torch.promote_types(values.dtype, torch.float32))
            graph, alpha = graph.to(start.dtype), self.logit.to(start.dtype).sigmoid()
            smoothed = start
            for _ in range(self.steps):
                smoothed = alpha * torch.sparse.mm(graph, smoothed) + (1 - alpha) * start
            return smoothed.to(values.dtype)


def touching(places: Places) -> Tensor:
    """`I - L` of the tiles that touch on their grids: `(n, n)`, sparse, symmetric, the identity on lone tiles."""
    first, second = adjacent(places)
    n = len(places.slide)
    degree = torch.bincount(first, minlength=n)
    alone = (degree == 0).nonzero().flatten()
    weight = (degree[first] * degree[second]).double().rsqrt()
    index = torch.cat([torch.stack([first, second]), alone.expand(2, -1)], 1)
    return torch.sparse_coo_tensor(
        index, torch.cat([weight, weight.new_ones(len(alone))]), (n, n), check_invariants=False
    ).coalesce()
