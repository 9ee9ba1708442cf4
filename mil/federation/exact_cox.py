"""The partial likelihood of patients who are in different hospitals.

Each hospital sends, for each event time of a common list and each stratum, sums over its patients: of exp(log hazard)
over those at risk, of events, of log hazards over events, and of exp(log hazard) over events. From the totals a
hospital knows the derivative of the whole likelihood by each log hazard of its own patients:

    Breslow   exp(h_i) * sum over t_j <= t_i of d_j / A_j - event_i
    Efron     with A_j - r / d_j * E_j, r from 0 to d_j - 1, in place of A_j (Efron, JASA 72, 1977, equation 5.5)

divided by the number of events. So one exchange of sums gives the gradient that all patients in one place would have.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

FIELDS = 4


@dataclass(frozen=True, eq=False)
class RiskSets:
    """The event times and strata for which sums are formed.

    Attributes:
        times: Rising, `(t,)`, double precision.
        strata: Codes of the strata, `(s,)`; a single zero where patients are not stratified.
        ties: efron or breslow.
    """

    times: Tensor
    strata: Tensor
    ties: str

    @property
    def width(self) -> int:
        """Number of sums."""
        return FIELDS * len(self.strata) * len(self.times)

    def sums(self, log_hazard: Tensor, target: Tensor) -> Tensor:
        """Return the sums of some patients, `(width,)`: at risk, events, log hazards and hazards of events.

        Args:
            log_hazard: `(p,)`.
            target: Time, event and, with strata, the stratum, `(p, 2)` or `(p, 3)`.
        """
        hazard, died = log_hazard.detach().double(), target[:, 1] > 0
        stratum, reached = self._places(target)
        shape = (len(self.strata), len(self.times) + 1)
        leaving = torch.zeros(shape, dtype=torch.float64).index_put((stratum, reached), hazard.exp(), accumulate=True)
        at_risk = leaving.flip(1).cumsum(1).flip(1)[:, 1:]  # a patient who reached k times is at risk at the first k
        event = (stratum[died], reached[died] - 1)
        of_events = [torch.ones_like(hazard[died]), hazard[died], hazard[died].exp()]
        zero = torch.zeros(len(self.strata), len(self.times), dtype=torch.float64)
        return torch.stack([at_risk, *(zero.index_put(event, values, accumulate=True) for values in of_events)]).ravel()

    def pull(self, log_hazard: Tensor, target: Tensor, totals: Tensor) -> Tensor:
        """Return the derivative of the loss of all patients by the log hazards of these, `(p,)`.

        Args:
            log_hazard: `(p,)`.
            target: As in `sums`.
            totals: Sums over all hospitals, `(width,)`.
        """
        at_risk, events, _, dying = self._fields(totals)
        inverse, shared = self._inverse(at_risk, events, dying)  # (s, t) each
        hazard, died = log_hazard.detach().double(), target[:, 1] > 0
        stratum, reached = self._places(target)
        until = torch.cat([torch.zeros(len(self.strata), 1, dtype=torch.float64), inverse.cumsum(1)], 1)
        pull = hazard.exp() * until[stratum, reached]
        own_time = (stratum[died], reached[died] - 1)
        pull[died] -= 1 + hazard[died].exp() * shared[own_time]
        return pull / events.sum().clamp(min=1)

    def value(self, totals: Tensor) -> float:
        """Return the negative log partial likelihood per event."""
        at_risk, events, log_hazards, dying = self._fields(totals)
        total = -log_hazards.sum()
        for rank in range(int(events.max()) if len(self.times) else 0):
            risk = self._left(at_risk, events, dying, rank)
            total = total + torch.where(events > rank, risk.clamp(min=1e-300).log(), 0).sum()
        return float(total / events.sum().clamp(min=1))

    def baseline(self, totals: Tensor, stratum: int | None = None) -> tuple[list[float], list[float]]:
        """Return event times and the cumulative baseline hazard after each, of one stratum or of all together.

        Tied events are treated as in the likelihood, see `mil.endpoints.cox.baseline_hazard`.
        """
        fields = [field.sum(0) if stratum is None else field[stratum] for field in self._fields(totals)]
        at_risk, events, _, dying = (field.unsqueeze(0) for field in fields)
        with_events = events[0] > 0
        steps, _ = self._inverse(at_risk, events, dying)
        return self.times[with_events].tolist(), steps[0][with_events].cumsum(0).tolist()

    def _fields(self, totals: Tensor) -> list[Tensor]:
        shape = (FIELDS, len(self.strata), len(self.times))
        return list(totals.to(torch.float64).reshape(shape).unbind(0))

    def _places(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return each patient's stratum and how many event times were reached, `(p,)` each."""
        reached = torch.searchsorted(self.times, target[:, 0].double().contiguous(), right=True)
        if len(self.strata) == 1:
            return torch.zeros_like(reached), reached
        return torch.searchsorted(self.strata, target[:, 2].double().contiguous()), reached

    def _left(self, at_risk: Tensor, events: Tensor, dying: Tensor, rank: int) -> Tensor:
        """Return the hazards at risk for the event of a rank among tied ones, `(s, t)`."""
        if self.ties == "breslow":
            return at_risk
        return at_risk - rank / events.clamp(min=1) * dying

    def _inverse(self, at_risk: Tensor, events: Tensor, dying: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums of 1 / risk over the tied events, and of minus their shares of it, `(s, t)` each."""
        inverse, shared = torch.zeros_like(at_risk), torch.zeros_like(at_risk)
        for rank in range(int(events.max()) if len(self.times) else 0):
            tied = torch.where(events > rank, 1 / self._left(at_risk, events, dying, rank), 0)
            inverse += tied
            if self.ties == "efron":
                shared += rank / events.clamp(min=1) * tied
        return inverse, shared
