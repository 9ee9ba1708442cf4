"""A loss of all patients together, computed in hospitals from their own patients and from totals.

The loss of a hospital is such that the losses of all add up to the loss of all patients in one place, and so do the
gradients. For that a hospital needs totals: the number of patients with a target, or the sums of risk sets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mil.endpoints.endpoint import Endpoint
from mil.errors import ConfigError
from mil.federation.exact_cox import RiskSets


class SharedLoss(Protocol):
    """A loss that adds up over hospitals."""

    @property
    def width(self) -> int:
        """Number of sums."""

    @property
    def by_logits(self) -> bool:
        """Whether the sums have to be formed anew for each weights."""

    def sums(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sums of some patients, `(width,)`, in double precision."""

    def loss(self, logits: Tensor, target: Tensor, totals: Tensor, repeats: float = 1.0) -> Tensor:
        """Return the contribution of some patients to the loss of all, `()`; of risk sets only its gradient counts.

        Args:
            logits: `(b, c)`.
            target: As the endpoint encodes it.
            totals: Sums over all hospitals, `(width,)`.
            repeats: How many rows stand for one bag, such as its pseudo-bags.
        """

    def value(self, totals: Tensor) -> float:
        """Return the loss of all patients."""

    def assumed(self, amount: float) -> Tensor:
        """Return totals of so many patients who all have their target, `(width,)`, which depend on no patient.

        Raises:
            ConfigError: The loss compares patients.
        """


@dataclass(frozen=True, eq=False)
class MeanLoss:
    """A mean over patients, or over their labels: sums of the loss, and of what it is the mean of."""

    endpoint: Endpoint
    width: int = 2
    by_logits: bool = False

    def amount(self, target: Tensor) -> int:
        """Return how many patients, or labels, the loss is the mean of."""
        return int((~target.isnan()).sum()) if self.endpoint.label_columns else len(target)

    def sums(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sum of the losses, and their number."""
        amount = self.amount(target)
        loss = float(self.endpoint.loss(logits.detach(), target)) if amount else 0.0
        return torch.tensor([loss * amount, amount], dtype=torch.float64)

    def loss(self, logits: Tensor, target: Tensor, totals: Tensor, repeats: float = 1.0) -> Tensor:
        """Return the mean of these patients, weighted by their share of all; the repeats of a bag count as one."""
        return self.endpoint.loss(logits, target) * (self.amount(target) / repeats / max(float(totals[1]), 1.0))

    def value(self, totals: Tensor) -> float:
        """Return the mean over all patients."""
        return float(totals[0] / totals[1].clamp(min=1))

    def assumed(self, amount: float) -> Tensor:
        """Return totals of so many patients who all have their target."""
        return torch.tensor([0.0, amount * max(1, len(self.endpoint.label_columns))], dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class PartialLikelihood:
    """Cox's loss over the risk sets of all hospitals."""

    sets: RiskSets
    by_logits: bool = True

    @property
    def width(self) -> int:
        """Number of sums."""
        return self.sets.width

    def sums(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sums of the risk sets."""
        return self.sets.sums(logits.squeeze(1), target)

    def loss(self, logits: Tensor, target: Tensor, totals: Tensor, repeats: float = 1.0) -> Tensor:
        """Return a number with the gradient of the loss of all patients."""
        log_hazard = logits.squeeze(1)
        return (self.sets.pull(log_hazard, target, totals).to(log_hazard.dtype) * log_hazard).sum()

    def value(self, totals: Tensor) -> float:
        """Return the negative log partial likelihood per event."""
        return self.sets.value(totals)

    def assumed(self, amount: float) -> Tensor:
        """Refuse: risk sets are of patients.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError("federation.noise: a partial likelihood compares patients, expected an endpoint without one")


class _Portion(NamedTuple):
    """One of several endpoints: its loss, its weight, and which logits and sums are its own."""

    loss: SharedLoss
    weight: float
    logits: slice
    sums: slice


@dataclass(frozen=True, eq=False)
class SeveralLosses:
    """The weighted losses of several endpoints, each of the patients who have its target."""

    endpoint: Endpoint
    portions: Sequence[_Portion]
    width: int
    by_logits: bool

    def sums(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sums of all endpoints side by side."""
        zero = torch.zeros(self.width, dtype=torch.float64)
        for portion, rows, targets in self._rows(target):
            zero[portion.sums] = portion.loss.sums(logits[rows, portion.logits], targets)
        return zero

    def loss(self, logits: Tensor, target: Tensor, totals: Tensor, repeats: float = 1.0) -> Tensor:
        """Return the weighted sum of the contributions."""
        total = logits[:, :0].sum()
        for portion, rows, targets in self._rows(target):
            contribution = portion.loss.loss(logits[rows, portion.logits], targets, totals[portion.sums], repeats)
            total = total + portion.weight * contribution
        return total

    def value(self, totals: Tensor) -> float:
        """Return the weighted sum of the losses."""
        return sum(portion.weight * portion.loss.value(totals[portion.sums]) for portion in self.portions)

    def assumed(self, amount: float) -> Tensor:
        """Return totals of so many patients who all have every target."""
        return torch.cat([portion.loss.assumed(amount) for portion in self.portions])

    def _rows(self, target: Tensor) -> "list[tuple[_Portion, Tensor, Tensor]]":
        parts = zip(self.portions, self.endpoint.part_targets(target), strict=True)
        return [(portion, torch.from_numpy(part.mask), part.target) for portion, part in parts if part.mask.any()]


RiskSetsOf = Callable[[str, Endpoint], RiskSets]
"""The event times of an endpoint, by its name among several; the name is empty where it is the only one."""


def shared_loss(endpoint: Endpoint, risk_sets: RiskSetsOf, name: str = "") -> SharedLoss:
    """Return the loss of an endpoint as sums over hospitals.

    Args:
        endpoint: Fitted to the patients of all hospitals.
        risk_sets: Event times and strata of a partial likelihood.
        name: Of the endpoint among several.

    Raises:
        ConfigError: The loss compares pairs of patients, who are in different hospitals.
    """
    if endpoint.compares_pairs:
        raise ConfigError(
            f"endpoint {', '.join(endpoint.columns)}: its loss compares pairs of patients, who cannot be compared "
            "across hospitals; expected ranking=0, or federation.algorithm=fedavg, which compares within each"
        )
    parts = endpoint.parts()
    if not parts:
        return (
            MeanLoss(endpoint) if endpoint.partial_likelihood is None else PartialLikelihood(risk_sets(name, endpoint))
        )
    losses = {key: shared_loss(part, risk_sets, key) for key, part in parts.items()}
    logits = _slices([part.out_dim for part in parts.values()])
    sums = _slices([loss.width for loss in losses.values()])
    weights = endpoint.part_weights
    portions = [
        _Portion(loss, weights[key], of_logits, of_sums)
        for (key, loss), of_logits, of_sums in zip(losses.items(), logits, sums, strict=True)
    ]
    return SeveralLosses(endpoint, portions, sums[-1].stop, any(loss.by_logits for loss in losses.values()))


def _slices(widths: Sequence[int]) -> list[slice]:
    return [slice(start, stop) for start, stop in pairwise(accumulate(widths, initial=0))]


@dataclass(frozen=True, eq=False)
class SharedCriterion:
    """What a model's own loss sees of its endpoint: contributions to the loss of all patients.

    A model may compute the endpoint's loss several times, for branches or pseudo-bags; each time has totals of its own.
    Terms that a model adds beside the endpoint's loss are means over bags: the caller weights the model's loss by
    `share`, these bags' share of all, by which the contributions are divided here.
    """

    shared: SharedLoss
    endpoint: Endpoint
    totals: Sequence[Tensor]
    share: float
    bags: int
    calls: list[int] = field(default_factory=list)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the contribution of these bags, divided by their share."""
        totals = self.totals[min(len(self.calls), len(self.totals) - 1)]
        self.calls.append(len(target))
        return self.shared.loss(logits, target, totals, len(target) / self.bags) / self.share

    def membership(self, target: Tensor) -> Tensor | None:
        """Return which bags are of the class of each logit, as the endpoint says."""
        return self.endpoint.membership(target)


@dataclass(frozen=True, eq=False)
class SumsRecorder:
    """A criterion that only records the sums of each call, in the place of a loss."""

    shared: SharedLoss
    endpoint: Endpoint
    sums: list[Tensor] = field(default_factory=list)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Record the sums of these bags; the loss is zero."""
        self.sums.append(self.shared.sums(logits, target))
        return logits.sum() * 0

    def membership(self, target: Tensor) -> Tensor | None:
        """Return which bags are of the class of each logit, as the endpoint says."""
        return self.endpoint.membership(target)
