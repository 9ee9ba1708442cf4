"""Cox's partial likelihood and the matching baseline hazard."""

from typing import NamedTuple

import torch
from torch import Tensor

TIES = ("efron", "breslow")


class BaselineHazard(NamedTuple):
    """Cumulative hazard of a patient whose log hazard is zero; it steps up at each time."""

    times: list[float]
    hazards: list[float]
    """after each time"""

    def log_survival(self, log_hazard: Tensor, times: Tensor) -> Tensor:
        """Return the log survival at times `(t,)` of log hazards `(p, 1)`, `(p, t)`."""
        moments, hazards = (torch.tensor([0.0, *values], dtype=log_hazard.dtype) for values in self)
        moments[0] = -torch.inf
        reached = hazards[torch.searchsorted(moments, times, right=True) - 1]  # (t,)
        return -torch.exp(log_hazard + reached.log())  # in logarithms, zero times infinity is zero

    def at(self, time: float) -> float:
        """Return the cumulative hazard at a time."""
        zero = torch.zeros(1, 1, dtype=torch.float64)
        return -float(self.log_survival(zero, torch.tensor([time], dtype=torch.float64)))


def cox_loss(
    log_hazard: Tensor, time: Tensor, event: Tensor, ties: str = "efron", stratum: Tensor | None = None
) -> Tensor:
    """Return the negative log partial likelihood per event, `()`.

    Tied event times use Breslow's or Efron's approximation (Efron, JASA 72, 1977, equation 5.5). Sums of exponentials
    are computed in logarithms, so that no hazard overflows. Half precisions compute in float32, because rounding could
    make a risk set smaller than the deaths in it, whose difference has no logarithm. Without events the loss is zero
    with a gradient of zero.

    Args:
        log_hazard: `(p,)`; the loss has its dtype.
        time: `(p,)`.
        event: `(p,)`, 1 or true for events.
        ties: efron or breslow.
        stratum: `(p,)`; patients are compared within their stratum only.

    Raises:
        ValueError: `ties` is neither "efron" nor "breslow".
    """
    if ties not in TIES:
        raise ValueError(f"ties {ties!r}, expected one of {', '.join(TIES)}")
    if stratum is not None:
        return _mean_over_strata(log_hazard, time, event, ties, stratum)
    order = torch.argsort(time, descending=True, stable=True)
    wide = torch.promote_types(log_hazard.dtype, torch.float32)
    hazard, time, died = log_hazard[order].to(wide), time[order], event[order].bool()
    if not died.any():
        return log_hazard.sum() * 0
    _, moment, size = torch.unique_consecutive(time, return_inverse=True, return_counts=True)
    at_risk = torch.logcumsumexp(hazard, 0)[size.cumsum(0) - 1]  # (t,), at each moment
    hazard_died, moment_died = hazard[died], moment[died]  # (e,), (e,)
    at_risk = at_risk[moment_died]  # (e,)
    if ties == "efron":
        at_risk = at_risk + _efron(hazard_died, moment_died, at_risk, len(size))
    return (at_risk - hazard_died).mean().to(log_hazard.dtype)


def _mean_over_strata(log_hazard: Tensor, time: Tensor, event: Tensor, ties: str, stratum: Tensor) -> Tensor:
    total = log_hazard.sum() * 0
    for code in sorted(set(stratum.tolist())):
        members = stratum == code
        total = total + cox_loss(log_hazard[members], time[members], event[members], ties) * event[members].sum()
    return (total / event.sum().clamp(min=1)).to(log_hazard.dtype)


def _efron(hazard: Tensor, moment: Tensor, at_risk: Tensor, moments: int) -> Tensor:
    """Return `log(1 - rank / ties * dying / at_risk)` of each event, `(e,)`.

    Args:
        hazard: Log hazards of the patients with events, `(e,)`.
        moment: Index of the event time of each event, `(e,)`; events are ranked from zero within their event time.
        at_risk: Log of the summed hazards at risk, `(e,)`.
        moments: Number of event times, t.
    """
    ties = torch.bincount(moment, minlength=moments)  # (t,)
    first = ties.cumsum(0) - ties
    rank = torch.arange(len(moment), device=moment.device) - first[moment]
    share = rank.to(hazard.dtype) / ties[moment]
    # relative to the risk set each term is at most one, so that their sum at one event time cannot overflow
    dying = hazard.new_zeros(moments).index_add(0, moment, (hazard - at_risk).exp())
    return torch.log1p(-share * dying[moment])


def baseline_hazard(log_hazard: Tensor, time: Tensor, event: Tensor, ties: str = "efron") -> tuple[Tensor, Tensor]:
    """Return the event times and the cumulative baseline hazard after each, `(t,)` both, increasing.

    Tied events are treated as in the likelihood. Breslow's step at a time is its events over the summed hazards at
    risk; Efron's lets the d tied patients leave the risk set one after the other, `sum over l < d of 1 / (at risk - l
    / d of the dying)`, so that with many ties, such as times in years, the survival is near Kaplan and Meier's and
    not above it. Therneau and Grambsch, Modeling Survival Data, 2000, section 3.3 and equation 10.9.

    Args:
        log_hazard: `(p,)`.
        time: `(p,)`.
        event: `(p,)`, 1 or true for events.
        ties: efron or breslow.
    """
    order = torch.argsort(time, descending=True, stable=True)
    hazard, time, died = log_hazard[order], time[order], event[order].bool()
    moments, moment, size = torch.unique_consecutive(time, return_inverse=True, return_counts=True)
    at_risk = torch.logcumsumexp(hazard, 0)[size.cumsum(0) - 1]  # (t,)
    log_total = at_risk[moment[died]]  # (e,)
    if ties == "efron":
        log_total = log_total + _efron(hazard[died], moment[died], log_total, len(size))
    steps = torch.zeros_like(at_risk).index_add(0, moment[died], torch.exp(-log_total)).flip(0)
    with_events = torch.bincount(moment[died], minlength=len(size)).flip(0) > 0
    return moments.flip(0)[with_events], steps.cumsum(0)[with_events]
