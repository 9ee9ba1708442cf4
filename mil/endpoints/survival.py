"""Time to an event, with censoring."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.endpoints.base import Endpoint, Scores
from mil.errors import CohortError, ConfigError, PredictionsError
from mil.metrics.survival import c_index

TIES = ("efron", "breslow")


def cox_loss(log_hazard: Tensor, time: Tensor, event: Tensor, ties: str = "efron") -> Tensor:
    """Negative log partial likelihood a mean event, `()`, of log hazards `(p,)`, times `(p,)` and events `(p,)`.

    Breslow's and Efron's approximation for tied event times (Efron, JASA 72, 1977, equation 5.5), in the dtype of
    `log_hazard`, with sums of exponentials kept in logarithms, so that no hazard overflows. Half precisions compute in
    float32: a risk set rounded below its own deaths would have no logarithm. Without an event the loss is zero and its
    gradient exists and is zero.

    Raises:
        ValueError: `ties` is neither "efron" nor "breslow".
    """
    if ties not in TIES:
        raise ValueError(f"ties {ties!r}, expected one of {', '.join(TIES)}")
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


def _efron(hazard: Tensor, moment: Tensor, at_risk: Tensor, moments: int) -> Tensor:
    """`log(1 - rank / ties * dying / at_risk)` for each event, ranked within its moment from zero, `(e,)`."""
    ties = torch.bincount(moment, minlength=moments)  # (t,)
    first = ties.cumsum(0) - ties
    rank = torch.arange(len(moment), device=moment.device) - first[moment]
    share = rank.to(hazard.dtype) / ties[moment]
    # relative to the risk set each term is at most one: nothing overflows, and a sum over a moment's deaths suffices
    dying = hazard.new_zeros(moments).index_add(0, moment, (hazard - at_risk).exp())
    return torch.log1p(-share * dying[moment])


def breslow_hazard(log_hazard: Tensor, time: Tensor, event: Tensor) -> tuple[Tensor, Tensor]:
    """Breslow's cumulative baseline hazard after each event time: times `(t,)` and hazards `(t,)`, increasing."""
    order = torch.argsort(time, descending=True, stable=True)
    hazard, time, event = log_hazard[order], time[order], event[order]
    moments, moment, size = torch.unique_consecutive(time, return_inverse=True, return_counts=True)
    at_risk = torch.logcumsumexp(hazard, 0)[size.cumsum(0) - 1]
    deaths = torch.zeros_like(at_risk).index_add(0, moment, event.to(at_risk.dtype))
    steps = (deaths * torch.exp(-at_risk)).flip(0)
    kept = deaths.flip(0) > 0
    return moments.flip(0)[kept], steps.cumsum(0)[kept]


class Cox(Endpoint):
    """Cox's proportional hazards: one log hazard a patient, larger means an earlier event."""

    metric: ClassVar[str] = "c_index"

    def __init__(
        self,
        time: str = "time",
        event: str = "event",
        unit: str = "months",
        horizons: Mapping[str, float] | None = None,
        ties: str = "efron",
    ) -> None:
        """`horizons` names times in `unit` at which `decode` gives the risk: `{"5y": 60}` becomes `risk_5y`."""
        if ties not in TIES:
            raise ConfigError(f"endpoint {time}: ties {ties!r}, expected one of {', '.join(TIES)}")
        self.time, self.event, self.columns = time, event, (time, event)
        self.unit, self.ties = unit, ties
        self.horizons = dict(horizons or {})
        self.out_dim = 1
        self.baseline: tuple[list[float], list[float]] | None = None

    def encode(self, table: pd.DataFrame) -> Tensor:
        """Time and event, `(p, 2)`."""
        time = pd.to_numeric(table[self.time], errors="coerce").to_numpy(np.float64)
        event = pd.to_numeric(table[self.event], errors="coerce").to_numpy(np.float64)
        self._refuse(table, self.time, ~(np.isfinite(time) & (time > 0)), "a positive number")
        self._refuse(table, self.event, ~np.isin(event, (0, 1)), "0 (censored) or 1 (event)")
        return torch.from_numpy(np.stack([time, event], 1))

    def _refuse(self, table: pd.DataFrame, column: str, wrong: NDArray[np.bool_], expected: str) -> None:
        if wrong.any():
            row = int(wrong.argmax())
            others = f" (and {wrong.sum() - 1} more)" if wrong.sum() > 1 else ""
            value, who = str(table[column].iloc[row]), table.index[row]
            raise CohortError(f"column {column}, row of {who}{others}: found {value!r}, expected {expected}")

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The partial likelihood over the patients at hand."""
        return cox_loss(logits.squeeze(1), target[:, 0], target[:, 1], self.ties)

    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """Harrell's C-index."""
        time, event = target.double().numpy().T
        return {"c_index": c_index(logits.double().squeeze(1).numpy(), time, event, weight)}

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """`log_hazard`, and the risk of an event before each horizon where a baseline was fitted."""
        log_hazard = logits.double().squeeze(1)
        risks = {f"risk_{name}": self._risk(log_hazard, time) for name, time in self.horizons.items()}
        return {"log_hazard": log_hazard} | (risks if self.baseline else {})

    def _risk(self, log_hazard: Tensor, time: float) -> Tensor:
        times, hazards = self.baseline or ([], [])
        reached = [hazard for moment, hazard in zip(times, hazards, strict=True) if moment <= time]
        cumulative = torch.tensor(reached[-1] if reached else 0.0, dtype=log_hazard.dtype)
        return -torch.expm1(-torch.exp(log_hazard + cumulative.log()))  # in logarithms, zero times infinity is zero

    def recode(self, table: pd.DataFrame) -> Tensor:
        """The column `log_hazard`: any score that rises with risk."""
        if "log_hazard" not in table:
            raise PredictionsError(f"predictions: no column 'log_hazard', found {', '.join(map(str, table.columns))}")
        return torch.tensor(table["log_hazard"].to_numpy(np.float64)).unsqueeze(1)

    def counts(self, target: Tensor) -> dict[str, int]:
        """Patients, and the events among them."""
        return {"n": len(target), "events": int(target[:, 1].sum())}

    def strata(self, target: Tensor) -> NDArray[np.int64]:
        """Event or not, each in an earlier and a later half."""
        time, event = target[:, 0].numpy(), target[:, 1].numpy().astype(np.int64)
        middle = [np.median(time[event == kind]) if (event == kind).any() else 0.0 for kind in (0, 1)]
        return 2 * event + (time > np.take(middle, event))

    def fit(self, target: Tensor, balance: bool = False) -> None:
        """Checks that there is something to learn from.

        Raises:
            CohortError: no event among the training patients.
            ConfigError: balance asked for, which hazards do not have.
        """
        if not target[:, 1].any():
            raise CohortError(f"column {self.event}: all {len(target)} training patients are censored, expected events")
        if balance:
            raise ConfigError("data.balance: survival has no classes to balance, expected none")

    def finish(self, logits: Tensor, target: Tensor) -> None:
        """Fits the baseline hazard to the training patients."""
        times, hazards = breslow_hazard(logits.double().squeeze(1), target[:, 0].double(), target[:, 1])
        self.baseline = (times.tolist(), hazards.tolist())

    def state(self) -> dict[str, Any]:
        """The baseline hazard, times in `unit`."""
        if self.baseline is None:
            return {}
        return {"baseline_times": self.baseline[0], "baseline_hazard": self.baseline[1]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes the baseline hazard back."""
        self.baseline = (list(state["baseline_times"]), list(state["baseline_hazard"])) if state else None
