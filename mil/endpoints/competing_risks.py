"""Several events of which only the first is seen."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.endpoints.endpoint import Scores
from mil.endpoints.follow_up import FollowUp
from mil.endpoints.intervals import Intervals
from mil.endpoints.survival import Survival
from mil.endpoints.survival_view import SurvivalView
from mil.errors import ConfigError
from mil.stats.survival_metrics import competing_c_index


class CompetingRisks(Survival):
    """Cause-specific hazards in intervals of time, a logit for each cause and interval; the first cause is ranked.

    The likelihood is DeepHit's (Lee et al., AAAI 2018, equation 2) of probabilities that are made of hazards instead of
    one softmax over all of time; `ranking` adds its equation 3 with that weight, a mean over comparable pairs. A target
    is `(p, 2)`: time and, from 1, the cause, 0 for censored.
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
    ) -> None:
        """Names columns and causes.

        Args:
            time: as in `FollowUp`, and so are `event`, `unit`, `status` and `shortest`.
            event: column of the words for censored and each cause.
            causes: two or more; the first is the one that the tool is about.
            unit: of time.
            horizons: times in `unit` at which each cause's cumulative incidence is a column `risk_<cause>_<horizon>`.
            intervals: as in `Intervals`, and so is `cuts`.
            cuts: quantiles or equal.
            ranking: weight of DeepHit's ranking loss.
            sigma: difference of incidences at which that loss has fallen to 1/e.
            status: words of the states.
            shortest: least time.
        """
        super().__init__(FollowUp(time, event, causes, status, unit, shortest), unit, horizons)
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
        """Whether the time is cut."""
        return self.intervals.edges is not None

    @property
    def survival(self) -> SurvivalView:
        """Columns, horizons and causes of this endpoint."""
        return replace(super().survival, causes=self.causes)

    def fit(self, target: Tensor, balance: bool = False) -> None:
        """Cuts the time to the training patients.

        Raises:
            CohortError: no first event, or too few different times of events.
            ConfigError: balance asked for.
        """
        super().fit(target, balance)
        self.intervals.fit(target)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Negative log likelihood a patient, and the ranking loss where it has a weight."""
        likelihood = self.intervals.loss(logits, target)
        return likelihood + self.ranking * self._ranking(logits, target) if self.ranking else likelihood

    def _ranking(self, logits: Tensor, target: Tensor) -> Tensor:
        """`exp((F_k(t_i | j) - F_k(t_i | i)) / sigma)`, mean over events i of cause k and all j followed longer, `()`.

        Incidences are taken at the end of the interval that holds `t_i`.
        """
        incidence = self.intervals.at_edges(logits.to(torch.promote_types(logits.dtype, torch.float32)))  # (b, k, m)
        patient, cause, interval = self.intervals.ended(target).nonzero().unbind(1)  # (e,)
        then = incidence[:, cause, interval].T  # (e, b), everyone's at the times of the events
        own = then[torch.arange(len(patient), device=then.device), patient].unsqueeze(1)
        longer = target[patient, :1] < target[:, 0]  # (e, b)
        worst = torch.exp((then - own) / self.sigma) * longer
        return (worst.sum() / longer.sum().clamp(min=1)).to(logits.dtype)

    def risk(self, logits: Tensor) -> Tensor:
        """Incidence of the first cause until the end of an interval, mean over the intervals, `(p,)`."""
        return self.intervals.risk(logits)

    def log_survival(self, logits: Tensor, times: Tensor) -> Tensor:
        """Of being without any event, `(p, t)`."""
        return self.intervals.log_survival(logits, times)

    def incidence(self, logits: Tensor, times: Sequence[float]) -> Tensor:
        """Cumulative incidence of each cause at times in `unit`, `(p, k, t)`; with `curve` they sum to one."""
        return self.intervals.incidence(logits.double(), torch.tensor(times, dtype=torch.float64))

    def risks(self, logits: Tensor) -> dict[str, Tensor]:
        """`risk_<cause>_<horizon>`, the chance that this event comes first and until then, each `(p,)`."""
        found = self.incidence(logits, list(self.horizons.values())).flatten(1)  # (p, k h)
        names = [f"risk_{cause}_{name}" for cause, name in product(self.causes, self.horizons)]
        return dict(zip(names, found.unbind(1), strict=True))

    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """C-index of the first cause; who had another event first counts as never having it."""
        time, code = target.double().numpy().T
        return {"c_index": competing_c_index(self.risk(logits.double()).numpy(), time, code, weight)}

    def ranked(self, risk: Tensor) -> Tensor:
        """Logits of a risk of the first cause from 0 to 1, `(p, k m)`."""
        return self.intervals.ranked(risk)

    def legend(self) -> str:
        """The column that orders patients, then the incidences."""
        ordered = f"`risk` rises with the risk of {self.causes[0]} (column `{self.event}`): {self.rank_means}."
        risks = (
            f"`risk_{cause}_{name}` is the probability of {cause} as the first event within {time:g} {self.unit}."
            for cause, (name, time) in product(self.causes, self.horizons.items())
        )
        return " ".join([ordered, *risks])

    def counts(self, target: Tensor) -> dict[str, int]:
        """Patients, events of the first cause, and those of the others by name."""
        others = {name: int((target[:, 1] == code).sum()) for code, name in enumerate(self.causes[1:], 2)}
        return super().counts(target) | others

    def state(self) -> dict[str, Any]:
        """Intervals and offsets."""
        return self.intervals.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes intervals and offsets back."""
        self.intervals.load_state(state)
