"""Accelerated failure time: the logarithm of the time has a location and a scale.

Source: Kalbfleisch and Prentice, The Statistical Analysis of Failure Time Data, 2nd edition, 2002, chapter 3.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from mil.endpoints.follow_up import FollowUp
from mil.endpoints.survival import Survival

_WIDEST = math.log(5.0)
_STEEP = 30.0


class AcceleratedFailure(Survival):
    """`log T = location + scale W`, with W of a standard distribution; two logits, for location and log scale.

    Location zero means the typical time of the training patients, log scale zero means one. Departure: the classical
    model has one scale for everyone, here it may differ between patients. A scale of its own could shrink around one
    patient's time without end, and the likelihood grow; so scales stay between 1/5 and 5, by a tanh of slope one at
    zero.
    """

    rank_means: ClassVar[str] = "minus the logarithm of the median time to the event"

    def __init__(
        self,
        time: str = "time",
        event: str = "event",
        unit: str = "months",
        horizons: Mapping[str, float] | None = None,
        status: Mapping[str, Sequence[object] | object] | None = None,
        shortest: float | None = None,
    ) -> None:
        """`unit`, `status` and `shortest` are those of `FollowUp`."""
        super().__init__(FollowUp(time, event, status=status, unit=unit, shortest=shortest), unit, horizons)
        self.out_dim = 2
        self.typical = 0.0

    median: ClassVar[float]
    """Of W."""

    @abstractmethod
    def log_density(self, standard: Tensor) -> Tensor:
        """Of W."""

    @abstractmethod
    def log_outliving(self, standard: Tensor) -> Tensor:
        """Logarithm of the chance that W is larger."""

    def fit(self, target: Tensor, balance: bool = False) -> None:
        """Takes the typical time: the median at a constant hazard, the training patients' events a follow-up time.

        Raises:
            CohortError: no event.
            ConfigError: balance asked for.
        """
        super().fit(target, balance)
        exposure, events = target.double().sum(0)[:2].tolist()
        self.typical = math.log(exposure / events * math.log(2)) - self.median

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Negative log likelihood a patient, `()`, density for events and survival for the others."""
        location, log_scale = self._parameters(logits.double())
        log_time, event = target[:, 0].double().log(), target[:, 1].double()
        standard = (log_time - location) * torch.exp(-log_scale)
        seen = self.log_density(standard) - log_scale - log_time
        known = torch.where(event == 1, seen, self.log_outliving(standard))
        return -known.mean().to(torch.promote_types(logits.dtype, torch.float32))

    def risk(self, logits: Tensor) -> Tensor:
        """Minus the log median time, `(p,)`."""
        location, log_scale = self._parameters(logits)
        return -(location + log_scale.exp() * self.median)

    def log_survival(self, logits: Tensor, times: Tensor) -> Tensor:
        """`(p, t)`."""
        location, log_scale = self._parameters(logits)
        return self.log_outliving((times.log() - location.unsqueeze(1)) * torch.exp(-log_scale).unsqueeze(1))

    def ranked(self, risk: Tensor) -> Tensor:
        """Logits of this median and scale one, `(p, 2)`."""
        location = -risk - self.median - self.typical
        return torch.stack([location, torch.zeros_like(location)], 1)

    def state(self) -> dict[str, Any]:
        """Location of the typical time, `log_time`, the logarithm of a number in `unit`."""
        return {"log_time": self.typical}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes the location back."""
        self.typical = float(state["log_time"]) if state else 0.0

    def _parameters(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        location, log_scale = logits.unbind(1)
        return location + self.typical, _WIDEST * torch.tanh(log_scale / _WIDEST)


class Weibull(AcceleratedFailure):
    """Weibull time to an event; its shape is one through the scale.

    W is the standard smallest extreme value, `P(W > w) = exp(-exp(w))`.
    """

    median: ClassVar[float] = math.log(math.log(2))

    def log_density(self, standard: Tensor) -> Tensor:
        """Of the standard smallest extreme value."""
        return standard - _exp(standard)

    def log_outliving(self, standard: Tensor) -> Tensor:
        """Minus the cumulative hazard."""
        return -_exp(standard)


class LogNormal(AcceleratedFailure):
    """Log-normal time to an event; W is standard normal."""

    median: ClassVar[float] = 0.0

    def log_density(self, standard: Tensor) -> Tensor:
        """Of the standard normal."""
        return -(standard.square() + math.log(2 * math.pi)) / 2

    def log_outliving(self, standard: Tensor) -> Tensor:
        """By the normal distribution's lower tail."""
        tail: Tensor = torch.special.log_ndtr(-standard)
        return tail


def _exp(values: Tensor) -> Tensor:
    """The exponential, and from 30 on its tangent: a search that strays there finds its way back, not infinity."""
    return values.clamp(max=_STEEP).exp() * (1 + (values - _STEEP).clamp(min=0))
