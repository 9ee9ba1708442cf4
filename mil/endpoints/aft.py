"""Accelerated failure time: the logarithm of the time has a distribution with a location and a scale.

Source: Kalbfleisch and Prentice, The Statistical Analysis of Failure Time Data, 2nd edition, 2002, chapter 3.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mil.endpoints.endpoint import State
from mil.endpoints.explained import Explained
from mil.endpoints.follow_up import FollowUp
from mil.endpoints.survival import Survival

_MAX_LOG_SCALE = math.log(5.0)
_LINEAR_FROM = 30.0
"""exponent above which `_exp` continues as a straight line"""


class AcceleratedFailure(Survival):
    """Base of parametric models `log T = location + scale W`, where W has a standard distribution.

    The two logits are the location and the log scale. Location zero is the typical time of the training patients, log
    scale zero a scale of one. Departure: the classical model has one scale for all patients, here each patient has
    their own. A patient's scale could then shrink towards zero around the observed time, and the likelihood grow
    without bound; therefore a tanh with slope one at zero limits scales to 1/5 to 5.
    """

    ranked_by: ClassVar[Explained] = Explained("shorter time", "shortens the time to the event", "log time")
    rank_means: ClassVar[str] = "minus the logarithm of the median time to the event"

    def __init__(
        self,
        time: str = "time",
        event: str = "event",
        unit: str = "months",
        horizons: Mapping[str, float] | None = None,
        status: Mapping[str, Sequence[object] | object] | None = None,
        shortest: float | None = None,
        zero_time: str = "error",
    ) -> None:
        """Create the endpoint; the arguments are those of `FollowUp`, `horizons` those of `Survival`."""
        follow_up = FollowUp(time, event, status=status, unit=unit, shortest=shortest, zero_time=zero_time)
        super().__init__(follow_up, unit, horizons)
        self.out_dim = 2
        self.typical = 0.0

    median: ClassVar[float]
    """median of W"""

    @abstractmethod
    def log_density(self, standard: Tensor) -> Tensor:
        """Return the log density of W at these values."""

    @abstractmethod
    def log_tail(self, standard: Tensor) -> Tensor:
        """Return the log probability that W exceeds these values."""

    def fit(self, target: Tensor, balance: bool = False) -> None:
        """Set the typical time: the median under a constant hazard of events per follow-up time of training patients.

        Raises:
            CohortError: there is no event.
            ConfigError: class weights are requested.
        """
        super().fit(target, balance)
        exposure, events = target.double().sum(0)[:2].tolist()
        self.typical = math.log(exposure / events * math.log(2)) - self.median

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean negative log likelihood, `()`: the density for events, the survival for the censored."""
        location, log_scale = self._parameters(logits.double())
        log_time, event = target[:, 0].double().log(), target[:, 1].double()
        standard = (log_time - location) * torch.exp(-log_scale)
        observed = self.log_density(standard) - log_scale - log_time
        log_likelihood = torch.where(event == 1, observed, self.log_tail(standard))
        return -log_likelihood.mean().to(torch.promote_types(logits.dtype, torch.float32))

    def risk(self, logits: Tensor) -> Tensor:
        """Return minus the log median time, `(p,)`."""
        location, log_scale = self._parameters(logits)
        return -(location + log_scale.exp() * self.median)

    def log_survival(self, logits: Tensor, times: Tensor) -> Tensor:
        """Return the log probability of no event by each time, `(p, t)`."""
        location, log_scale = self._parameters(logits)
        return self.log_tail((times.log() - location.unsqueeze(1)) * torch.exp(-log_scale).unsqueeze(1))

    def ranked(self, risk: Tensor) -> Tensor:
        """Return the logits with this median and scale one, `(p, 2)`."""
        location = -risk - self.median - self.typical
        return torch.stack([location, torch.zeros_like(location)], 1)

    def state(self) -> State:
        """Return `log_time`, the location of the typical time: the logarithm of a time in `unit`; and the follow-up."""
        return {"log_time": self.typical} | self.follow_up_state()

    def load_state(self, state: State) -> None:
        """Restore the location and the follow-up."""
        self.load_follow_up(state)
        self.typical = float(state["log_time"]) if state else 0.0

    def _parameters(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        location, log_scale = logits.unbind(1)
        return location + self.typical, _MAX_LOG_SCALE * torch.tanh(log_scale / _MAX_LOG_SCALE)


class Weibull(AcceleratedFailure):
    """Weibull time to an event; its shape parameter is 1 / scale.

    W is the standard smallest extreme value, `P(W > w) = exp(-exp(w))`.
    """

    median: ClassVar[float] = math.log(math.log(2))

    def log_density(self, standard: Tensor) -> Tensor:
        """Return the log density of the standard smallest extreme value."""
        return standard - _exp(standard)

    def log_tail(self, standard: Tensor) -> Tensor:
        """Return minus the cumulative hazard."""
        return -_exp(standard)


class LogNormal(AcceleratedFailure):
    """Log-normal time to an event; W is standard normal."""

    median: ClassVar[float] = 0.0

    def log_density(self, standard: Tensor) -> Tensor:
        """Return the log density of the standard normal."""
        return -(standard.square() + math.log(2 * math.pi)) / 2

    def log_tail(self, standard: Tensor) -> Tensor:
        """Return the log upper tail of the standard normal."""
        tail: Tensor = torch.special.log_ndtr(-standard)
        return tail


def _exp(values: Tensor) -> Tensor:
    """Return the exponential, continued above 30 by its tangent, so that loss and gradient stay finite there."""
    return values.clamp(max=_LINEAR_FROM).exp() * (1 + (values - _LINEAR_FROM).clamp(min=0))
