"""Time to an event, with censoring: what all such endpoints share, and Cox's proportional hazards."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar
from zlib import crc32

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.endpoints.cox import TIES, BaselineHazard, breslow_hazard, cox_loss
from mil.endpoints.endpoint import Endpoint, Scores, numbers
from mil.endpoints.follow_up import FollowUp, horizons_in
from mil.endpoints.survival_view import SurvivalView
from mil.errors import CohortError, ConfigError
from mil.stats.survival_metrics import c_index


class Survival(Endpoint):
    """How long until an event.

    A target is `(p, 2)`: time in `unit`, and how follow-up ended, 0 censored or 1 the event. What an endpoint adds is a
    loss, a survival curve, and one number that rises with the risk.
    """

    metric: ClassVar[str] = "c_index"
    task: ClassVar[str] = "survival"
    rank: ClassVar[str] = "risk"
    """The column of the predictions that orders patients, larger for earlier events."""
    rank_means: ClassVar[str]
    """What that column is, for the card."""
    unit: str

    def __init__(self, follow_up: FollowUp, unit: str, horizons: Mapping[str, float] | None) -> None:
        """`horizons` names times in `unit` at which `decode` gives the risk: `{"5y": 60}` becomes `risk_5y`."""
        self.follow_up, self.columns = follow_up, follow_up.columns
        self.time, self.event = follow_up.columns
        self.unit, self.horizons = unit, horizons_in(unit, horizons)

    @property
    def fitted(self) -> bool:
        """Whether there is what a survival curve needs."""
        return True

    @property
    def survival(self) -> SurvivalView:
        """Columns and horizons of this endpoint."""
        return SurvivalView(self.time, self.event, self.unit, self.horizons, self.rank)

    def events(self, target: Tensor) -> NDArray[np.bool_]:
        """Return whose follow-up ended with an event, also a competing one, `(p,)`."""
        return (target[:, 1] > 0).numpy()

    @abstractmethod
    def risk(self, logits: Tensor) -> Tensor:
        """One number a patient, `(p,)`, that rises with the risk."""

    @abstractmethod
    def ranked(self, risk: Tensor) -> Tensor:
        """Logits `(p, c)` of which `risk` gives these numbers `(p,)` back.

        Raises:
            PredictionsError: a number that is no such risk.
        """

    @abstractmethod
    def log_survival(self, logits: Tensor, times: Tensor) -> Tensor:
        """Logarithm of the chance to be without event after these times `(t,)` in `unit`, `(p, t)`."""

    def curve(self, logits: Tensor, times: Sequence[float]) -> Tensor:
        """Survival of each patient at these times, in `unit`, `(p, t)`.

        Raises:
            ValueError: nothing was fitted to training patients yet.
        """
        if not self.fitted:
            raise ValueError(f"endpoint {self.time}: no survival curve before it is fitted to training patients")
        return self.log_survival(logits.double(), torch.tensor(times, dtype=torch.float64)).exp()

    def encode(self, table: pd.DataFrame) -> Tensor:
        """Time in `unit` and event, `(p, 2)`."""
        return self.follow_up.read(table)

    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """Harrell's C-index of the risk."""
        time, event = target[:, :2].double().numpy().T
        return {"c_index": c_index(self.risk(logits.double()).numpy(), time, event, weight)}

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """The column that orders patients, and the risk of an event before each horizon once that is fitted."""
        logits = logits.double()
        ranked = {self.rank: self.risk(logits)}
        return ranked | self.risks(logits) if self.horizons and self.fitted else ranked

    def risks(self, logits: Tensor) -> dict[str, Tensor]:
        """`risk_<horizon>`, the chance of an event until then, each `(p,)`."""
        times = torch.tensor(list(self.horizons.values()), dtype=torch.float64)
        chances = -torch.expm1(self.log_survival(logits, times))  # (p, h)
        return {f"risk_{name}": chance for name, chance in zip(self.horizons, chances.unbind(1), strict=True)}

    def recode(self, table: pd.DataFrame) -> Tensor:
        """Logits of the same risk, from the column `rank`."""
        return self.ranked(numbers(table, [self.rank]).squeeze(1))

    def from_oracle(self, scores: Tensor) -> Tensor:
        """Logits `(p, c)` of a risk that is the oracle's score, 0 to 1."""
        return self.ranked(scores.squeeze(1))

    def legend(self) -> str:
        """The column that orders patients, then the risks."""
        ordered = f"`{self.rank}` rises with the risk of the event (column `{self.event}`): {self.rank_means}."
        risks = (
            f"`risk_{name}` is the probability of the event within {time:g} {self.unit}."
            for name, time in self.horizons.items()
        )
        return " ".join([ordered, *risks])

    def counts(self, target: Tensor) -> dict[str, int]:
        """Patients, and the events among them."""
        return {"n": len(target), "events": int((target[:, 1] == 1).sum())}

    def strata(self, target: Tensor) -> NDArray[np.int64]:
        """Event or not, each in an earlier and a later half; a competing event is a stratum of its own."""
        time, code = target[:, 0].numpy(), target[:, 1].numpy().astype(np.int64)
        middle = [np.median(time[code == kind]) if (code == kind).any() else 0.0 for kind in (0, 1)]
        later = time > np.take(middle, np.minimum(code, 1))
        return np.where(code > 1, 2 + code, 2 * code + later)

    def fit(self, target: Tensor, balance: bool = False) -> None:
        """Checks that there is something to learn from.

        Raises:
            CohortError: no event among the training patients.
            ConfigError: balance asked for, which hazards do not have.
        """
        if not (target[:, 1] == 1).any():
            what = "are censored" if not target[:, 1].any() else "lack the first event"
            raise CohortError(f"column {self.event}: all {len(target)} training patients {what}, expected events")
        if balance:
            raise ConfigError("data.balance: survival has no classes to balance, expected none")


class Cox(Survival):
    """Cox's proportional hazards: one log hazard a patient, larger means an earlier event.

    With `strata`, a column such as the site, patients are compared within their stratum only, and the target's third
    column is the stratum's code. Each stratum has a baseline hazard of its own; where a patient's stratum is not known,
    as in `decode`, the pooled one of all training patients holds. The C-index compares across strata.
    """

    rank: ClassVar[str] = "log_hazard"
    rank_means: ClassVar[str] = "the logarithm of a hazard ratio, which orders patients and has no unit"
    alone = False

    def __init__(
        self,
        time: str = "time",
        event: str = "event",
        unit: str = "months",
        horizons: Mapping[str, float] | None = None,
        ties: str = "efron",
        strata: str | None = None,
        status: Mapping[str, Sequence[object] | object] | None = None,
        shortest: float | None = None,
    ) -> None:
        """`ties` is efron or breslow; `unit`, `status` and `shortest` are those of `FollowUp`."""
        super().__init__(FollowUp(time, event, status=status, unit=unit, shortest=shortest), unit, horizons)
        if ties not in TIES:
            raise ConfigError(f"endpoint {time}: ties {ties!r}, expected one of {', '.join(TIES)}")
        self.ties, self.stratum, self.out_dim = ties, strata, 1
        if strata is not None:
            self.columns = (*self.columns, strata)
        self.baseline: BaselineHazard | None = None
        self.baselines: dict[str, BaselineHazard] = {}

    @property
    def fitted(self) -> bool:
        """Whether there is a baseline hazard."""
        return self.baseline is not None

    @property
    def survival(self) -> SurvivalView:
        """Columns, horizons and the pooled baseline hazard of this endpoint."""
        return replace(super().survival, baseline=self.baseline)

    def encode(self, table: pd.DataFrame) -> Tensor:
        """Time and event, `(p, 2)`, or with strata time, event and stratum, `(p, 3)`."""
        target = super().encode(table)
        if self.stratum is None:
            return target
        codes = torch.tensor([_code(name) for name in table[self.stratum]], dtype=target.dtype)
        return torch.cat([target, codes.unsqueeze(1)], 1)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The partial likelihood over the patients at hand."""
        stratum = None if self.stratum is None else target[:, 2]
        return cox_loss(logits.squeeze(1), target[:, 0], target[:, 1], self.ties, stratum)

    def risk(self, logits: Tensor) -> Tensor:
        """The log hazard itself."""
        return logits.squeeze(1)

    def log_survival(self, logits: Tensor, times: Tensor) -> Tensor:
        """Minus the cumulative hazard, `(p, t)`, by the pooled baseline."""
        return (self.baseline or BaselineHazard([], [])).log_survival(logits, times)

    def stratum_curve(self, logits: Tensor, times: Sequence[float], stratum: str) -> Tensor:
        """`curve` by the baseline of one stratum, `(p, t)`; by the pooled one where it is not known."""
        baseline = self.baselines.get(str(_code(stratum)))
        if baseline is None:
            return self.curve(logits, times)
        return baseline.log_survival(logits.double(), torch.tensor(times, dtype=torch.float64)).exp()

    def ranked(self, risk: Tensor) -> Tensor:
        """The log hazard itself; any score that rises with risk will do."""
        return risk.unsqueeze(1)

    def finish(self, logits: Tensor, target: Tensor) -> None:
        """Fits the baseline hazard to the training patients, and one to each stratum that has events."""
        self.baseline, self.baselines = _baseline(logits, target), {}
        if self.stratum is not None:
            codes = sorted(set(target[target[:, 1] == 1, 2].tolist()))
            rows = {str(int(code)): target[:, 2] == code for code in codes}
            self.baselines = {name: _baseline(logits[own], target[own]) for name, own in rows.items()}

    def state(self) -> dict[str, Any]:
        """The baseline hazard, times in `unit`, and those of the strata by code."""
        if self.baseline is None:
            return {}
        strata = {"strata": {name: list(pair) for name, pair in self.baselines.items()}} if self.baselines else {}
        return {"baseline_times": self.baseline[0], "baseline_hazard": self.baseline[1]} | strata

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes the baseline hazards back."""
        self.baseline = _pair(state["baseline_times"], state["baseline_hazard"]) if state else None
        self.baselines = {name: _pair(*pair) for name, pair in dict(state.get("strata", {})).items()}


def _baseline(logits: Tensor, target: Tensor) -> BaselineHazard:
    times, hazards = breslow_hazard(logits.double().squeeze(1), target[:, 0].double(), target[:, 1])
    return BaselineHazard(times.tolist(), hazards.tolist())


def _pair(times: Sequence[float], hazards: Sequence[float]) -> BaselineHazard:
    if len(times) != len(hazards):
        raise ValueError(f"baseline hazard: {len(times)} times and {len(hazards)} hazards, expected as many")
    return BaselineHazard([float(time) for time in times], [float(hazard) for hazard in hazards])


def _code(stratum: object) -> int:
    """The same number for the same name, whatever other names there are: tables are read in parts."""
    return crc32(str(stratum).encode())
