"""Discrete hazards of one or several competing events, in intervals of time cut to the training patients."""

import numpy as np
import torch
from torch import Tensor

from mil.endpoints.endpoint import State
from mil.errors import CohortError, ConfigError, PredictionsError

CUTS = ("quantiles", "equal")
_NEVER = -700.0
"""a logit with probability 1e-304, not zero"""


class Intervals:
    """Hazards of `k` causes in `m` intervals from logits `(b, k m)`.

    A patient still at risk in an interval has the event of one cause, or no event, with the probabilities of a
    multinomial logit model whose reference is no event (Tutz and Schmid, Modeling Discrete Time-to-Event Data, 2016,
    section 8.1). With one cause that is the logistic hazard of Brown (1975). Logits are relative to the mean hazards of
    the training patients, so that logits of zero predict these. Within an interval the hazard is constant.
    """

    def __init__(self, amount: int, cuts: str, causes: int = 1) -> None:
        """Create intervals that are not cut yet.

        Args:
            amount: Number of intervals, m.
            cuts: quantiles for as many events in each interval, equal for as much time in each.
            causes: Number of competing causes, k.

        Raises:
            ConfigError: an argument is out of its range.
        """
        if type(amount) is not int or amount < 1:
            raise ConfigError(f"intervals: {amount!r}, expected a whole number of at least 1")
        if cuts not in CUTS:
            raise ConfigError(f"cuts: {cuts!r}, expected one of {', '.join(CUTS)}")
        self.amount, self.cuts, self.causes = amount, cuts, causes
        self.width = causes * amount
        self.edges: list[float] | None = None
        self.offset = torch.zeros(causes, amount, dtype=torch.float64)

    def fit(self, target: Tensor) -> None:
        """Cut the intervals, and set the offsets to the hazards of the training patients, targets `(p, 2)`.

        Raises:
            CohortError: there are too few different times of events.
        """
        target = target.double()
        self.edges = cut(target[target[:, 1] > 0, 0], self.amount, self.cuts)
        lived, ended = self.lived(target), self.ended(target)  # (p, m), (p, k, m)
        events, without = ended.sum(0), lived.sum(0)
        self.offset = torch.log((events + 0.5) / (without + 0.5))

    def lived(self, target: Tensor) -> Tensor:
        """Return 1 where a patient passed an interval without event, `(p, m)`.

        A censored patient counts as having passed an interval if at least half of it was observed (Gensheimer and
        Narasimhan, PeerJ 2019, section 2.2). Here an interval includes its upper edge, there its lower edge.
        """
        time, starts, ends = target[:, :1], *self._bounds(target)
        through = torch.where(target[:, 1:2] > 0, time > ends, time >= (starts + ends) / 2)
        return through.to(target.dtype)

    def ended(self, target: Tensor) -> Tensor:
        """Return 1 where a patient had the event of a cause in an interval, `(p, k, m)`.

        Events after the last interval do not count.
        """
        time, starts, ends = target[:, :1], *self._bounds(target)
        inside = (time > starts) & (time <= ends)  # (p, m)
        codes = torch.arange(1, self.causes + 1, device=target.device)
        return (inside.unsqueeze(1) & (target[:, 1:2] == codes).unsqueeze(2)).to(target.dtype)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the negative log likelihood per patient, `()`; half precisions compute in float32."""
        wide = torch.promote_types(logits.dtype, torch.float32)
        log_none, log_cause = self.log_hazards(logits.to(wide))
        passed = (self.lived(target).to(wide) * log_none).sum()
        log_likelihood = passed + (self.ended(target).to(wide) * log_cause).sum()
        return (-log_likelihood / len(logits)).to(logits.dtype)

    def log_hazards(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log probabilities of no event `(b, m)` and of each cause `(b, k, m)` of patients at risk."""
        scores = self._scores(logits)
        outcomes = torch.cat([torch.zeros_like(scores[:, :1]), scores], 1).log_softmax(1)  # (b, 1 + k, m)
        return outcomes[:, 0], outcomes[:, 1:]

    def log_survival(self, logits: Tensor, times: Tensor) -> Tensor:
        """Return the log probability of no event by each time, `(p, t)`; constant after the last interval."""
        return self.log_hazards(logits)[0] @ self._passed(times).T

    def incidence(self, logits: Tensor, times: Tensor) -> Tensor:
        """Return the probability that the event of each cause comes first and by each time, `(p, k, t)`."""
        return self._incidence(logits, self._passed(times))

    def at_edges(self, logits: Tensor) -> Tensor:
        """Return the incidence at the end of each interval, `(p, k, m)`; it does not depend on the times."""
        return self._incidence(logits, torch.ones(self.amount, self.amount, dtype=logits.dtype).tril())

    def risk(self, logits: Tensor) -> Tensor:
        """Return the incidence of the first cause, mean over the ends of the intervals, `(p,)`, 0 to 1."""
        return self.at_edges(logits)[:, 0].mean(1)

    def ranked(self, risk: Tensor) -> Tensor:
        """Return logits `(p, k m)` for which `risk` returns these values; all events fall in the first interval.

        Raises:
            PredictionsError: a risk is outside [0, 1].
        """
        if outside := int((~((risk >= 0) & (risk <= 1))).sum()):
            raise PredictionsError(f"predictions: {outside} of {len(risk)} values of risk are outside [0, 1]")
        scores = torch.full((len(risk), self.causes, self.amount), _NEVER, dtype=torch.float64)
        scores[:, 0, 0] = risk.double().clamp(1e-300, 1 - 2**-53).logit()
        return (scores - self.offset).flatten(1)

    def state(self) -> State:
        """Return the ends of the intervals, in the endpoint's unit, and the offsets `(k, m)`."""
        return {} if self.edges is None else {"edges": self.edges, "offset": self.offset.tolist()}

    def load_state(self, state: State) -> None:
        """Restore what `state` returned.

        Raises:
            ValueError: the edges do not rise from zero, or are not as many as the intervals.
        """
        self.edges = [float(edge) for edge in state["edges"]] if state else None
        self.offset = torch.zeros(self.causes, self.amount, dtype=torch.float64)
        if state:
            self.offset = torch.tensor(state["offset"], dtype=torch.float64).reshape(self.causes, self.amount)
        steps = np.diff([0.0, *(self.edges or [])])
        if self.edges is not None and (len(steps) != self.amount or not (steps > 0).all()):
            raise ValueError(f"edges of intervals {self.edges}, expected {self.amount} that rise from zero")

    def _scores(self, logits: Tensor) -> Tensor:
        return logits.reshape(-1, self.causes, self.amount) + self.offset.to(logits)

    def _bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return starts and ends of the intervals, `(m,)` each."""
        if self.edges is None:
            raise ValueError("intervals are not cut yet, expected a fit to training patients")
        ends = torch.tensor(self.edges, dtype=like.dtype, device=like.device)
        return torch.cat([ends.new_zeros(1), ends[:-1]]), ends

    def _passed(self, times: Tensor) -> Tensor:
        """Return the fraction of each interval that has passed at each time, `(t, m)`."""
        starts, ends = self._bounds(times)
        return ((times.unsqueeze(1) - starts) / (ends - starts)).clamp(0, 1)

    def _incidence(self, logits: Tensor, passed: Tensor) -> Tensor:
        log_none = self.log_hazards(logits)[0]
        steps = passed * log_none.unsqueeze(1)  # (p, t, m), contribution of each interval to the log survival
        reached = (steps.cumsum(2) - steps).exp()
        ended = -torch.expm1(steps) * reached
        return torch.einsum("pkm,ptm->pkt", self._scores(logits).softmax(1), ended)


def cut(events: Tensor, amount: int, cuts: str) -> list[float]:
    """Return the ends of `amount` intervals from zero to the last event time.

    Args:
        events: Times of events, `(e,)`.
        amount: Number of intervals.
        cuts: quantiles or equal.

    Raises:
        CohortError: there are too few different times.
    """
    last = float(events.max()) if len(events) else 0.0
    if cuts == "equal":
        return [last * number / amount for number in range(1, amount + 1)]
    levels = np.arange(1, amount + 1) / amount
    edges = np.unique(np.quantile(events.numpy(), levels, method="inverted_cdf")) if len(events) else np.empty(0)
    if len(edges) < amount:
        raise CohortError(
            f"intervals: the {len(events)} events of the training patients fill {len(edges)}, expected {amount}: "
            "ask for fewer (tool.endpoint.intervals) or for cuts=equal"
        )
    return [float(edge) for edge in edges]
