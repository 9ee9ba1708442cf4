"""OTSurv: tiles are transported to prototypes by optimal transport that leaves uncertain tiles out at first.

Q. Ren, Y. Wang, R. Fang, H. Ling, C. You: OTSurv: a novel multiple instance learning framework for survival prediction
with heterogeneity-aware optimal transport. MICCAI 2025, arXiv:2506.20741. The authors' code is Y-Research-SBU/OTSurv.
The plan minimises the cost of transport with an entropic term and a Kullback-Leibler term that lets prototypes take
unequal masses; a part of the tiles' mass, larger at the start of training, goes to no prototype. Generalised scaling:
L. Chizat, G. Peyre, B. Schmitzer, F.-X. Vialard: Scaling algorithms for unbalanced optimal transport problems. 2018.
"""

from math import exp
from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.layers.embed import Embed
from mil.layers.shares import shares
from mil.models.mil_model import MILModel, Output
from mil.tile_rows import mapped

LEAST_MASS = 0.1
"""Transported in the first epoch; the paper's rho_0."""
TOLERANCE, MOST_ITERATIONS = 1e-12, 1000
"""Relative change of the scaling at which it has converged, and how often it is changed at most."""


class OTSurv(MILModel):
    """The bag is a weighted sum of what is transported to each of the prototypes.

    In training the transported share of the mass rises over `ramp` epochs along the authors' curve, from 0.1 to 1; in
    evaluation all is transported, as in their test script. Attention is the mass that a tile gives to all prototypes
    together: in evaluation that of all tiles is the same, and it does not tell where the score comes from. The paper is
    about survival; any endpoint works.

    Departures: the share rises from epoch to epoch, not from batch to batch. Plans are converged, where the authors
    stop after some iterations, up to 4e-6 earlier. Gradients are those of the converged plan
    (by the implicit function theorem), where the authors' are propagated through all iterations. Weights of the
    prototypes start near one in place of zero, so that the bag starts about the mean of its tiles.
    """

    paper: ClassVar[str] = "Ren 2025"
    cost: ClassVar[str] = "n"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        prototypes: int = 16,
        embed_dim: int = 256,
        ramp: int = 10,
        entropy: float = 0.1,
        relaxation: float = 1.0,
        dropout: float = 0.25,
    ) -> None:
        """`entropy` and `relaxation` weigh the entropic and the Kullback-Leibler term; costs are at most one."""
        super().__init__()
        if prototypes < 2 or ramp < 0 or not (entropy > 0 and relaxation > 0):
            raise ValueError(
                f"{prototypes} prototypes, ramp {ramp}, entropy {entropy} and relaxation {relaxation}, "
                "expected two prototypes or more, zero epochs or more, and positive numbers"
            )
        self.ramp, self.entropy, self.power = ramp, entropy, relaxation / (relaxation + entropy)
        self.epoch = 0
        self.embed = Embed(in_dim, embed_dim, dropout)
        self.prototypes = nn.Parameter(torch.randn(prototypes, embed_dim))
        self.merge = nn.Linear(prototypes, 1)
        with torch.no_grad():
            self.merge.weight.add_(1)
        self.head = nn.Linear(embed_dim, out_dim)

    def begin_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the share of the mass that is transported in training."""
        self.epoch = epoch

    @property
    def mass(self) -> float:
        """The share of the tiles' mass that is transported: `exp(-5 (1 - e / ramp)^2) + 0.1`, at most 1."""
        if not self.training or self.epoch >= self.ramp:
            return 1.0
        return min(1.0, exp(-5 * (1 - self.epoch / self.ramp) ** 2) + LEAST_MASS)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; attention `(n,)`; `extra["flow"]` `(n, k)` is the plan, whose bags sum to about one."""
        (tiles,) = bags.tilewise(lambda features: (self.embed(features),))  # (n, e)
        flows = [self._flow(rows) for rows in bags.split(tiles)]
        flow = torch.cat(flows)  # (n, k)
        taken = bags.sum(tiles, weight=flow).view(len(bags), len(self.prototypes), -1)  # (b, k, e)
        embedding = self.merge(taken.transpose(1, 2)).squeeze(2)  # (b, e)
        attention = torch.cat([shares(rows.sum(1)) for rows in flows])
        return Output(self.head(embedding), embedding, attention, {"flow": flow})

    def _flow(self, tiles: Tensor) -> Tensor:
        """Return the plan of one bag `(n, e)`, scaled by the transported mass, `(n, k)`, at least in float32."""
        with torch.autocast(tiles.device.type, enabled=False):
            cost = mapped(self._cost, tiles)  # (n, k)
            return (transport(cost / cost.max(), self.mass, self.entropy, self.power) / self.mass).to(cost.dtype)

    def _cost(self, tiles: Tensor) -> Tensor:
        """Return the distances of tiles `(n, e)` to the prototypes, all less their smallest feature, `(n, k)`."""
        wide = torch.promote_types(tiles.dtype, torch.float32)
        rows, prototypes = (each.to(wide) for each in (tiles, self.prototypes))
        rows, prototypes = (each - each.amin(1, keepdim=True) for each in (rows, prototypes))
        return torch.cdist(rows, prototypes, compute_mode="donot_use_mm_for_euclid_dist")


def transport(cost: Tensor, mass: float, entropy: float, power: float) -> Tensor:
    """Return the partial plan of rows of equal mass to columns, `(n, k)`, in double precision.

    The plan is that in which the authors' scaling of the columns no longer changes; Newton's method finds it in some
    six steps where scaling takes hundreds. Where a step of Newton's does not halve the change, one of scaling is taken.

    Args:
        cost: `(n, k)`.
        mass: Share of the rows' mass that is transported, about; the rest goes to a column without cost.
        entropy: Weight of the entropic term.
        power: `g / (g + entropy)` with the weight g of the Kullback-Leibler term; 1 fixes the columns' masses.
    """
    columns = cost.shape[1]
    if mass < 1:
        cost = nn.functional.pad(cost, (0, 1))
    kernel = -cost.double() / entropy  # (n, k + 1), logarithms as all that follows
    aim = kernel.new_full((cost.shape[1],), mass / columns)
    powers = torch.full_like(aim, power)
    if mass < 1:
        aim[-1], powers[-1] = 1 - mass, 1
    aim = aim.log()

    def step(scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the plan of a scaling of the columns, the masses of its columns, and the scaling that follows."""
        plan = (kernel + scale).softmax(1) / len(kernel)
        masses = plan.sum(0)
        return plan, masses, powers * (aim + scale - masses.log())

    def slope(plan: Tensor, masses: Tensor) -> Tensor:
        """Return the derivative of the following scaling, `(k + 1, k + 1)`."""
        return (powers / masses).unsqueeze(1) * (len(plan) * plan.t() @ plan)

    with torch.no_grad():
        scale, ones = torch.zeros_like(aim), torch.eye(len(aim), dtype=aim.dtype, device=aim.device)
        plan, masses, after = step(scale)
        for _ in range(MOST_ITERATIONS):
            gap = (after - scale).abs().max()
            if gap <= TOLERANCE:
                break
            tried = scale + torch.linalg.solve_ex(ones - slope(plan, masses), after - scale).result
            following = step(tried)
            if not (following[2] - tried).abs().max() < gap / 2:  # also where it is not a number
                tried = after
                following = step(tried)
            scale, (plan, masses, after) = tried, following
    _, _, scale = step(scale)
    if scale.requires_grad:
        through = ones - slope(plan, masses).t()
        scale.register_hook(lambda pull: torch.linalg.solve(through, pull))  # type: ignore[no-untyped-call]
    return ((kernel + scale).softmax(1) / len(kernel))[:, :columns]
