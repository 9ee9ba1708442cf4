"""Hazards in intervals of time.

Source: Gensheimer and Narasimhan, A scalable discrete-time survival model for neural networks, PeerJ 2019.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from mil.endpoints.endpoint import State
from mil.endpoints.explained import Explained, log_odds
from mil.endpoints.follow_up import FollowUp
from mil.endpoints.intervals import Intervals
from mil.endpoints.survival import Survival


class DiscreteTime(Survival):
    """A hazard in each interval of time, one logit per interval; hazards need not be proportional."""

    ranked_by: ClassVar[Explained] = Explained("risk", "raises the risk, mean over the intervals", "log odds")
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
        zero_time: str = "error",
    ) -> None:
        """Create the endpoint; `intervals` and `cuts` are those of `Intervals`, the others those of `FollowUp`."""
        follow_up = FollowUp(time, event, status=status, unit=unit, shortest=shortest, zero_time=zero_time)
        super().__init__(follow_up, unit, horizons)
        self.intervals = Intervals(intervals, cuts)
        self.out_dim = self.intervals.width

    @property
    def fitted(self) -> bool:
        """Whether the intervals have been cut."""
        return self.intervals.edges is not None

    def fit(self, target: Tensor, balance: bool = False) -> None:
        """Cut the intervals to the training patients.

        Raises:
            CohortError: there is no event, or too few different times of events.
            ConfigError: class weights are requested.
        """
        super().fit(target, balance)
        self.intervals.fit(target)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return equation 3 of the paper, per patient, `()`."""
        return self.intervals.loss(logits, target)

    def risk(self, logits: Tensor) -> Tensor:
        """Return the probability of an event until the end of an interval, mean over the intervals, `(p,)`."""
        return self.intervals.risk(logits)

    def ordering(self, logits: Tensor) -> Tensor:
        """Return the log odds of the mean chance of an event until the end of an interval, `(b,)`."""
        return log_odds(self.risk(logits))

    def log_survival(self, logits: Tensor, times: Tensor) -> Tensor:
        """Return the log probability of no event by each time, `(p, t)`, linear within an interval."""
        return self.intervals.log_survival(logits, times)

    def ranked(self, risk: Tensor) -> Tensor:
        """Return logits `(p, m)` for which `risk` returns these values, 0 to 1."""
        return self.intervals.ranked(risk)

    def state(self) -> State:
        """Return intervals, offsets and the follow-up."""
        return self.intervals.state() | self.follow_up_state()

    def load_state(self, state: State) -> None:
        """Restore intervals, offsets and the follow-up."""
        self.load_follow_up(state)
        self.intervals.load_state({name: value for name, value in state.items() if name != "follow_up"})
