"""Several competing events, of which only the first is observed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.endpoints.endpoint import Scores, State
from mil.endpoints.explained import Explained, log_odds
from mil.endpoints.follow_up import FollowUp
from mil.endpoints.intervals import Intervals
from mil.endpoints.survival import Survival
from mil.endpoints.survival_view import SurvivalView
from mil.errors import ConfigError
from mil.stats.survival_metrics import competing_c_index


class CompetingRisks(Survival):
    """Cause-specific hazards in intervals of time, one logit per cause and interval; patients are ranked by the first.

    The likelihood is that of DeepHit (Lee et al., AAAI 2018, equation 2), with probabilities made from hazards instead
    of one softmax over all times; `ranking` is the weight of its equation 3, taken as a mean over comparable pairs. A
    target is `(p, 2)`: the time, and the cause from 1 on or 0 for censored.
    """

    rank_means: ClassVar[str] = "the chance of the first cause until the end of an interval, mean over the intervals"

    def __init__(
        self,
        time: str = "time",
        event: str = "event",
        causes: Sequence[str] = ("event", "competing"),
        unit: str = "months",
        horizons: Mapping[str, float] | None = None,
        intervals: int = 10,
        cuts: str = "quantiles",
        ranking: float = 0.0,
        sigma: float = 0.1,
        status: Mapping[str, Sequence[object] | object] | None = None,
        shortest: float | None = None,
        zero_time: str = "error",
    ) -> None:
        """Create the endpoint.

        Args:
            time: Column of follow-up times.
            event: Column of how follow-up ended: censored, or one of the causes.
            causes: Two or more; the first is the one that the tool is about.
            unit: Of times: days, months or years.
            horizons: Times by name; the cumulative incidence of each cause becomes `risk_<cause>_<horizon>`.
            intervals: Number of intervals, see `Intervals`.
            cuts: How the time is cut: quantiles or equal.
            ranking: Weight of DeepHit's ranking loss.
            sigma: Difference of incidences at which that loss has fallen to 1/e.
            status: Words for each state, see `FollowUp`.
            shortest: Minimum time, see `FollowUp`.
            zero_time: What a time of zero is, see `FollowUp`.
        """
        super().__init__(FollowUp(time, event, causes, status, unit, shortest, zero_time), unit, horizons)
        self.causes = self.follow_up.causes
        if len(self.causes) < 2:
            raise ConfigError(f"endpoint {event}: causes {list(self.causes)}, expected two or more")
        if ranking < 0 or sigma <= 0:
            raise ConfigError(f"endpoint {event}: ranking {ranking} and sigma {sigma}, expected >= 0 and > 0")
        self.intervals = Intervals(intervals, cuts, len(self.causes))
        self.out_dim = self.intervals.width
        self.ranking, self.sigma = ranking, sigma

    @property
    def fitted(self) -> bool:
        """Whether the intervals have been cut."""
        return self.intervals.edges is not None

    @property
    def compares_pairs(self) -> bool:
        """Whether the ranking loss is used."""
        return self.ranking > 0

    @property
    def survival(self) -> SurvivalView:
        """Columns, horizons and causes of this endpoint."""
        return replace(super().survival, causes=self.causes)

    def fit(self, target: Tensor, balance: bool = False) -> None:
        """Cut the intervals to the training patients.

        Raises:
            CohortError: the first cause never occurs, or there are too few different times of events.
            ConfigError: class weights are requested.
        """
        super().fit(target, balance)
        self.intervals.fit(target)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean negative log likelihood, plus the weighted ranking loss, `()`."""
        likelihood = self.intervals.loss(logits, target)
        return likelihood + self.ranking * self._ranking(logits, target) if self.ranking else likelihood

    def _ranking(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean of `exp((F_k(t_i | j) - F_k(t_i | i)) / sigma)`, `()`.

        It runs over all events i of any cause k and all patients j followed longer. Incidences are taken at the end of
        the interval that contains `t_i`.
        """
        incidence = self.intervals.at_edges(logits.to(torch.promote_types(logits.dtype, torch.float32)))  # (b, k, m)
        patient, cause, interval = self.intervals.ended(target).nonzero().unbind(1)  # (e,)
        at_events = incidence[:, cause, interval].T  # (e, b), all patients at the times of the events
        of_patient = at_events[torch.arange(len(patient), device=at_events.device), patient].unsqueeze(1)
        longer = target[patient, :1] < target[:, 0]  # (e, b)
        penalties = torch.exp((at_events - of_patient) / self.sigma) * longer
        return (penalties.sum() / longer.sum().clamp(min=1)).to(logits.dtype)

    def risk(self, logits: Tensor) -> Tensor:
        """Return the incidence of the first cause until the end of an interval, mean over the intervals, `(p,)`."""
        return self.intervals.risk(logits)

    def explained(self) -> tuple[Explained, ...]:
        """Return the log odds of each cause, mean over the intervals and, once fitted, by each horizon."""
        causes = (
            Explained(name, f"raises the risk of {name}, mean over the intervals", "log odds") for name in self.causes
        )
        horizons = product(self.causes, self._reached_horizons())
        return (*causes, *(self._explained_horizon(name, cause) for cause, name in horizons))

    def explained_values(self, logits: Tensor) -> Tensor:
        """Return the log odds of each cause, and of each cause by each horizon, `(b, k + k h)`."""
        columns = [self.intervals.at_edges(logits).mean(2)]  # (b, k)
        if times := self._reached_horizons():
            moments = torch.tensor(list(times.values()), dtype=logits.dtype)
            columns.append(self.intervals.incidence(logits, moments).flatten(1))
        return log_odds(torch.cat(columns, 1))

    def log_survival(self, logits: Tensor, times: Tensor) -> Tensor:
        """Return the log probability of no event of any cause by each time, `(p, t)`."""
        return self.intervals.log_survival(logits, times)

    def incidence(self, logits: Tensor, times: Sequence[float]) -> Tensor:
        """Return the cumulative incidence of each cause at times in `unit`, `(p, k, t)`.

        Together with `curve` they sum to one. NaN beyond the follow-up of the training patients.
        """
        moments = torch.tensor(times, dtype=torch.float64)
        return self.within_follow_up(self.intervals.incidence(logits.double(), moments), moments)

    def risks(self, logits: Tensor) -> dict[str, Tensor]:
        """Return `risk_<cause>_<horizon>`, the probability that this event comes first and by then, `(p,)` each."""
        incidences = self.incidence(logits, list(self.horizons.values())).flatten(1)  # (p, k h)
        names = [f"risk_{cause}_{name}" for cause, name in product(self.causes, self.horizons)]
        return dict(zip(names, incidences.unbind(1), strict=True))

    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """Return the C-index of the first cause; patients with another event count as never having it."""
        time, code = target.double().numpy().T
        return {"c_index": competing_c_index(self.risk(logits.double()).numpy(), time, code, weight)}

    def ranked(self, risk: Tensor) -> Tensor:
        """Return logits `(p, k m)` for which `risk` returns these values, 0 to 1."""
        return self.intervals.ranked(risk)

    def legend(self) -> str:
        """Return what the ranking column and the incidences mean."""
        ordered = f"`risk` rises with the risk of {self.causes[0]} (column `{self.event}`): {self.rank_means}."
        risks = (
            self._explained(
                f"`risk_{cause}_{name}`",
                f"the probability of {cause} as the first event within {time:g} {self.unit}",
                name,
            )
            for cause, (name, time) in product(self.causes, self.horizons.items())
        )
        return " ".join([ordered, *risks])

    def counts(self, target: Tensor) -> dict[str, int]:
        """Return the number of patients, of events of the first cause, and of events of each other cause."""
        competing = {name: int((target[:, 1] == code).sum()) for code, name in enumerate(self.causes[1:], 2)}
        return super().counts(target) | competing

    def state(self) -> State:
        """Return intervals, offsets and the follow-up."""
        return self.intervals.state() | self.follow_up_state()

    def load_state(self, state: State) -> None:
        """Restore intervals, offsets and the follow-up."""
        self.load_follow_up(state)
        self.intervals.load_state({name: value for name, value in state.items() if name != "follow_up"})
