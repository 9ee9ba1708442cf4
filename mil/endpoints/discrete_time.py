"""Hazards in intervals of time.

Source: Gensheimer and Narasimhan, A scalable discrete-time survival model for neural networks, PeerJ 2019.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from mil.endpoints.follow_up import FollowUp
from mil.endpoints.intervals import Intervals
from mil.endpoints.survival import Survival


class DiscreteTime(Survival):
    """A hazard for each interval of time, one logit each; hazards need not be proportional."""

    rank_means: ClassVar[str] = "the chance of an event until the end of an interval, mean over the intervals"

    def __init__(
        self,
        time: str = "time",
        event: str = "event",
        unit: str = "months",
        horizons: Mapping[str, float] | None = None,
        intervals: int = 10,
        cuts: str = "quantiles",
        status: Mapping[str, Sequence[object] | object] | None = None,
        shortest: float | None = None,
    ) -> None:
        """`intervals` and `cuts` are those of `Intervals`; `unit`, `status` and `shortest` those of `FollowUp`."""
        super().__init__(FollowUp(time, event, status=status, unit=unit, shortest=shortest), unit, horizons)
        self.intervals = Intervals(intervals, cuts)
        self.out_dim = self.intervals.width

    @property
    def fitted(self) -> bool:
        """Whether the time is cut."""
        return self.intervals.edges is not None

    def fit(self, target: Tensor, balance: bool = False) -> None:
        """Cuts the time to the training patients.

        Raises:
            CohortError: no event, or too few different times of events.
            ConfigError: balance asked for.
        """
        super().fit(target, balance)
        self.intervals.fit(target)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Equation 3 of the paper, a patient."""
        return self.intervals.loss(logits, target)

    def risk(self, logits: Tensor) -> Tensor:
        """Chance of an event until the end of an interval, mean over the intervals, `(p,)`."""
        return self.intervals.risk(logits)

    def log_survival(self, logits: Tensor, times: Tensor) -> Tensor:
        """`(p, t)`, linear within an interval."""
        return self.intervals.log_survival(logits, times)

    def ranked(self, risk: Tensor) -> Tensor:
        """Logits of a risk from 0 to 1, `(p, m)`."""
        return self.intervals.ranked(risk)

    def state(self) -> dict[str, Any]:
        """Intervals and offsets."""
        return self.intervals.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes intervals and offsets back."""
        self.intervals.load_state(state)
