"""Discrete hazards of one or several competing events, on intervals of time cut to training patients."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mil.errors import CohortError, ConfigError, PredictionsError

CUTS = ("quantiles", "equal")
_NEVER = -700.0
"""A logit whose probability is not zero but 1e-304."""


class Intervals:
    """What logits `(b, k m)` say of `k` causes in `m` intervals.

    In interval `j` a patient still at risk has the event of a cause, or none, with the probabilities of a multinomial
    logit whose reference is none (Tutz and Schmid, Modeling Discrete Time-to-Event Data, 2016, section 8.1). With one
    cause that is the logistic hazard of Brown (1975). Logits are offsets from the training patients' own hazards, so
    that a network that says zero says what is known without it. Within an interval the hazard is constant.
    """

    def __init__(self, amount: int, cuts: str, causes: int = 1) -> None:
        """`amount` is m; `cuts` is quantiles, as many events in each interval, or equal, as much time in each."""
        if type(amount) is not int or amount < 1:
            raise ConfigError(f"intervals: {amount!r}, expected a whole number of at least 1")
        if cuts not in CUTS:
            raise ConfigError(f"cuts: {cuts!r}, expected one of {', '.join(CUTS)}")
        self.amount, self.cuts, self.causes = amount, cuts, causes
        self.width = causes * amount
        self.edges: list[float] | None = None
        self.offset = torch.zeros(causes, amount, dtype=torch.float64)

    def fit(self, target: Tensor) -> None:
        """Cuts the time, and counts each cause in each interval, among training patients, `(p, 2)`.

        Raises:
            CohortError: too few different times of events.
        """
        target = target.double()
        self.edges = cut(target[target[:, 1] > 0, 0], self.amount, self.cuts)
        lived, ended = self.lived(target), self.ended(target)  # (p, m), (p, k, m)
        events, without = ended.sum(0), lived.sum(0)
        self.offset = torch.log((events + 0.5) / (without + 0.5))

    def lived(self, target: Tensor) -> Tensor:
        """1 where a patient got through an interval without event, `(p, m)`.

        A censored patient counts as through where at least half of the interval was seen (Gensheimer and Narasimhan,
        PeerJ 2019, section 2.2). An interval ends with its upper edge, where theirs begins with its lower.
        """
        time, starts, ends = target[:, :1], *self._sides(target)
        through = torch.where(target[:, 1:2] > 0, time > ends, time >= (starts + ends) / 2)
        return through.to(target.dtype)

    def ended(self, target: Tensor) -> Tensor:
        """1 where a patient had the event of a cause in an interval, `(p, k, m)`; after the last edge nobody has."""
        time, starts, ends = target[:, :1], *self._sides(target)
        inside = (time > starts) & (time <= ends)  # (p, m)
        codes = torch.arange(1, self.causes + 1, device=target.device)
        return (inside.unsqueeze(1) & (target[:, 1:2] == codes).unsqueeze(2)).to(target.dtype)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Negative log likelihood a patient, `()`; half precisions compute in float32."""
        wide = torch.promote_types(logits.dtype, torch.float32)
        log_none, log_cause = self.log_hazards(logits.to(wide))
        known = (self.lived(target).to(wide) * log_none).sum() + (self.ended(target).to(wide) * log_cause).sum()
        return (-known / len(logits)).to(logits.dtype)

    def log_hazards(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms of the chance of no event `(b, m)` and of each cause `(b, k, m)`, in an interval once reached."""
        scores = self._scores(logits)
        every = torch.cat([torch.zeros_like(scores[:, :1]), scores], 1).log_softmax(1)  # (b, 1 + k, m)
        return every[:, 0], every[:, 1:]

    def log_survival(self, logits: Tensor, times: Tensor) -> Tensor:
        """`(p, t)`; after the last edge it stays as it is there."""
        return self.log_hazards(logits)[0] @ self._passed(times).T

    def incidence(self, logits: Tensor, times: Tensor) -> Tensor:
        """Chance that each cause's event comes first and before each time, `(p, k, t)`."""
        return self._incidence(logits, self._passed(times))

    def at_edges(self, logits: Tensor) -> Tensor:
        """`incidence` at the ends of the intervals, `(p, k, m)`; it needs no times."""
        return self._incidence(logits, torch.ones(self.amount, self.amount, dtype=logits.dtype).tril())

    def risk(self, logits: Tensor) -> Tensor:
        """The first cause's incidence, mean over the ends of the intervals, `(p,)`, 0 to 1."""
        return self.at_edges(logits)[:, 0].mean(1)

    def ranked(self, risk: Tensor) -> Tensor:
        """Logits `(p, k m)` of which `risk` gives this back: all of it lies in the first interval.

        Raises:
            PredictionsError: a risk outside [0, 1].
        """
        if outside := int((~((risk >= 0) & (risk <= 1))).sum()):
            raise PredictionsError(f"predictions: {outside} of {len(risk)} values of risk are outside [0, 1]")
        scores = torch.full((len(risk), self.causes, self.amount), _NEVER, dtype=torch.float64)
        scores[:, 0, 0] = risk.double().clamp(1e-300, 1 - 2**-53).logit()
        return (scores - self.offset).flatten(1)

    def state(self) -> dict[str, Any]:
        """Ends of the intervals, in the endpoint's unit, and the offsets `(k, m)`."""
        return {} if self.edges is None else {"edges": self.edges, "offset": self.offset.tolist()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave."""
        self.edges = [float(edge) for edge in state["edges"]] if state else None
        self.offset = torch.zeros(self.causes, self.amount, dtype=torch.float64)
        if state:
            self.offset = torch.tensor(state["offset"], dtype=torch.float64).reshape(self.causes, self.amount)
        steps = np.diff([0.0, *(self.edges or [])])
        if self.edges is not None and (len(steps) != self.amount or not (steps > 0).all()):
            raise ValueError(f"edges of intervals {self.edges}, expected {self.amount} that rise from zero")

    def _scores(self, logits: Tensor) -> Tensor:
        return logits.reshape(-1, self.causes, self.amount) + self.offset.to(logits)

    def _sides(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Starts and ends of the intervals, `(m,)` each."""
        if self.edges is None:
            raise ValueError("intervals are not cut yet, expected a fit to training patients")
        ends = torch.tensor(self.edges, dtype=like.dtype, device=like.device)
        return torch.cat([ends.new_zeros(1), ends[:-1]]), ends

    def _passed(self, times: Tensor) -> Tensor:
        """Which share of each interval has passed at each time, `(t, m)`."""
        starts, ends = self._sides(times)
        return ((times.unsqueeze(1) - starts) / (ends - starts)).clamp(0, 1)

    def _incidence(self, logits: Tensor, passed: Tensor) -> Tensor:
        log_none = self.log_hazards(logits)[0]
        gone = passed * log_none.unsqueeze(1)  # (p, t, m), what each interval adds to the log survival
        reached = (gone.cumsum(2) - gone).exp()
        lost = -torch.expm1(gone) * reached
        return torch.einsum("pkm,ptm->pkt", self._scores(logits).softmax(1), lost)


def cut(events: Tensor, amount: int, cuts: str) -> list[float]:
    """Ends of so many intervals from zero to the last of these times of events.

    Raises:
        CohortError: too few different times.
    """
    last = float(events.max()) if len(events) else 0.0
    if cuts == "equal":
        return [last * part / amount for part in range(1, amount + 1)]
    parts = np.arange(1, amount + 1) / amount
    edges = np.unique(np.quantile(events.numpy(), parts, method="inverted_cdf")) if len(events) else np.empty(0)
    if len(edges) < amount:
        raise CohortError(
            f"intervals: the {len(events)} events of the training patients fill {len(edges)}, expected {amount}: "
            "ask for fewer (tool.endpoint.intervals) or for cuts=equal"
        )
    return [float(edge) for edge in edges]
