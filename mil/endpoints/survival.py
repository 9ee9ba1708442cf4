"""Time to an event with censoring: the base of all such endpoints, and Cox's proportional hazards."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar
from zlib import crc32

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.endpoints.cox import TIES, BaselineHazard, baseline_hazard, cox_loss
from mil.endpoints.endpoint import Endpoint, Scores, State, numbers
from mil.endpoints.explained import Explained, log_odds_of_event
from mil.endpoints.follow_up import FollowUp, horizons_in
from mil.endpoints.survival_view import ROUNDING, SurvivalView
from mil.errors import CohortError, ConfigError
from mil.stats.survival_metrics import c_index

SMALLEST_STRATUM = 10
"""patients that a half needs for splits to keep halves in proportion"""


class Survival(Endpoint):
    """Base of endpoints of times to an event.

    Risks and curves beyond the longest follow-up of the training patients are NaN: no model can know them.

    A target is `(p, 2)`: the time in `unit`, and how follow-up ended, 0 for censored and 1 for the event. A subclass
    adds a loss, a survival curve, and one number that rises with the risk.
    """

    metric: ClassVar[str] = "c_index"
    task: ClassVar[str] = "survival"
    rank: ClassVar[str] = "risk"
    """column of the predictions that orders patients, larger for earlier events"""
    rank_means: ClassVar[str]
    """what that column is, for the card"""
    unit: str

    def __init__(self, follow_up: FollowUp, unit: str, horizons: Mapping[str, float] | None) -> None:
        """Create the endpoint.

        Args:
            follow_up: Reads the columns of time and event.
            unit: Of times: days, months or years.
            horizons: Times by name at which `decode` returns the risk: `{"5y": 60}` gives `risk_5y`.
        """
        self.follow_up, self.columns = follow_up, follow_up.columns
        self.time, self.event = follow_up.columns
        self.unit, self.horizons = unit, horizons_in(unit, horizons)
        self.longest: float | None = None

    @property
    def fitted(self) -> bool:
        """Whether everything that a survival curve needs has been fitted."""
        return True

    @property
    def survival(self) -> SurvivalView:
        """Columns and horizons of this endpoint."""
        return SurvivalView(self.time, self.event, self.unit, self.horizons, self.rank, longest=self.longest)

    @property
    def declared_words(self) -> Mapping[str, tuple[str, ...]]:
        """The words for how follow-up ended."""
        return {self.event: tuple(word for words in self.follow_up.words for word in words)}

    def has_target(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Return which patients have a target, `(p,)`: every column is filled, and no time of zero drops them."""
        return super().has_target(table) & self.follow_up.is_kept(table)

    def events(self, target: Tensor) -> NDArray[np.bool_]:
        """Return whose follow-up ended with an event, also a competing one, `(p,)`."""
        return (target[:, 1] > 0).numpy()

    @abstractmethod
    def risk(self, logits: Tensor) -> Tensor:
        """Return one number per patient that rises with the risk, `(p,)`."""

    @abstractmethod
    def ranked(self, risk: Tensor) -> Tensor:
        """Return logits `(p, c)` for which `risk` returns these numbers `(p,)`.

        Raises:
            PredictionsError: a number is out of range for a risk.
        """

    @abstractmethod
    def log_survival(self, logits: Tensor, times: Tensor) -> Tensor:
        """Return the log probability of no event by times `(t,)` in `unit`, `(p, t)`."""

    ranked_by: ClassVar[Explained] = Explained("risk", "raises the risk", "risk")
    """the number that orders patients, as an explanation shows it"""

    def explained(self) -> tuple[Explained, ...]:
        """Return the number that orders patients, and the log odds of the event by each horizon of the follow-up."""
        return (self.ranked_by, *(self._explained_horizon(name) for name in self._reached_horizons()))

    def _explained_horizon(self, name: str, cause: str = "the event") -> Explained:
        label = f"{cause} by {name}" if cause != "the event" else f"risk by {name}"
        return Explained(label, f"raises the risk of {cause} by {name}", "log odds")

    def explained_values(self, logits: Tensor) -> Tensor:
        """Return the number that orders patients and the log odds at the horizons, `(b, 1 + h)`."""
        ordering = self.ordering(logits).unsqueeze(1)
        if not (times := self._reached_horizons()):
            return ordering
        moments = torch.tensor(list(times.values()), dtype=logits.dtype)
        return torch.cat([ordering, log_odds_of_event(self.log_survival(logits, moments))], 1)

    def ordering(self, logits: Tensor) -> Tensor:
        """Return the number that orders patients on the scale of `ranked_by`, `(b,)`; by default the risk itself."""
        return self.risk(logits)

    def _reached_horizons(self) -> dict[str, float]:
        """Return the horizons that training follow-up reaches; none before a survival curve is fitted."""
        if not self.fitted:
            return {}
        longest = float("inf") if self.longest is None else self.longest * (1 + ROUNDING)
        return {name: time for name, time in self.horizons.items() if time <= longest}

    def curve(self, logits: Tensor, times: Sequence[float]) -> Tensor:
        """Return the survival of each patient at times in `unit`, `(p, t)`; NaN beyond the follow-up.

        Raises:
            ValueError: nothing has been fitted to training patients yet.
        """
        if not self.fitted:
            raise ValueError(f"endpoint {self.time}: no survival curve before it is fitted to training patients")
        moments = torch.tensor(times, dtype=torch.float64)
        return self.within_follow_up(self.log_survival(logits.double(), moments).exp(), moments)

    def within_follow_up(self, values: Tensor, times: Tensor) -> Tensor:
        """Return values `(..., t)` with NaN at the times `(t,)` beyond the follow-up of the training patients."""
        if self.longest is None:
            return values
        return values.masked_fill(times > self.longest * (1 + ROUNDING), torch.nan)

    def encode(self, table: pd.DataFrame) -> Tensor:
        """Return the time in `unit` and the event, `(p, 2)`."""
        return self.follow_up.read(table)

    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """Return Harrell's C-index of the risk."""
        time, event = target[:, :2].double().numpy().T
        return {"c_index": c_index(self.risk(logits.double()).numpy(), time, event, weight)}

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return the column that orders patients, and once fitted the risk of an event by each horizon."""
        logits = logits.double()
        ranked = {self.rank: self.risk(logits)}
        return ranked | self.risks(logits) if self.horizons and self.fitted else ranked

    def risks(self, logits: Tensor) -> dict[str, Tensor]:
        """Return `risk_<horizon>`, the probability of an event by each horizon, `(p,)` each; NaN beyond follow-up."""
        times = torch.tensor(list(self.horizons.values()), dtype=torch.float64)
        chances = self.within_follow_up(-torch.expm1(self.log_survival(logits, times)), times)  # (p, h)
        return {f"risk_{name}": chance for name, chance in zip(self.horizons, chances.unbind(1), strict=True)}

    def recode(self, table: pd.DataFrame) -> Tensor:
        """Return logits with the risk in the column `rank`."""
        return self.ranked(numbers(table, [self.rank]).squeeze(1))

    def from_oracle(self, scores: Tensor) -> Tensor:
        """Return logits `(p, c)` whose risk is the oracle's score, 0 to 1."""
        return self.ranked(scores.squeeze(1))

    def legend(self) -> str:
        """Return what the ranking column and the risks mean."""
        ordered = f"`{self.rank}` rises with the risk of the event (column `{self.event}`): {self.rank_means}."
        risks = (
            self._explained(f"`risk_{name}`", f"the probability of the event within {time:g} {self.unit}", name)
            for name, time in self.horizons.items()
        )
        return " ".join([ordered, *risks])

    def _explained(self, column: str, meaning: str, horizon: str) -> str:
        """Return what a column of risks is, or why it is missing."""
        reason = self.survival.beyond(horizon)
        return f"{column} is {meaning}." if reason is None else f"{column} is missing: {reason}."

    def follow_up_state(self) -> State:
        """Return `follow_up`, the longest of the training patients, as far as it is known."""
        return {} if self.longest is None else {"follow_up": self.longest}

    def load_follow_up(self, state: State) -> None:
        """Restore the longest follow-up; states of older checkpoints lack it."""
        longest = state.get("follow_up")
        self.longest = None if longest is None else float(longest)

    def counts(self, target: Tensor) -> dict[str, int]:
        """Return the numbers of patients and of events."""
        return {"n": len(target), "events": int((target[:, 1] == 1).sum())}

    def strata(self, target: Tensor) -> NDArray[np.int64]:
        """Return the strata: censored and events, each in an earlier and a later half, and each competing event.

        A kind of fewer than `2 * SMALLEST_STRATUM` patients is not halved, so that few events can be spread over folds.
        Fewer than `SMALLEST_STRATUM` censored patients are spread with the events: no fold needs one.
        """
        time, code = target[:, 0].numpy(), target[:, 1].numpy().astype(np.int64)
        if (code == 0).sum() < SMALLEST_STRATUM:
            code = np.maximum(code, 1)
        many = [(code == kind).sum() >= 2 * SMALLEST_STRATUM for kind in (0, 1)]
        middle = [np.median(time[code == kind]) if many[kind] else np.inf for kind in (0, 1)]
        later = time > np.take(middle, np.minimum(code, 1))
        return np.where(code > 1, 2 + code, 2 * code + later)

    def fit(self, target: Tensor, balance: bool = False) -> None:
        """Check that there are events to learn from, and note how long the training patients were followed.

        Raises:
            CohortError: there is no event among the training patients.
            ConfigError: class weights are requested, which times do not have.
        """
        if not (target[:, 1] == 1).any():
            state = "are censored" if not target[:, 1].any() else "lack the first event"
            raise CohortError(f"column {self.event}: all {len(target)} training patients {state}, expected events")
        if balance:
            raise ConfigError("data.balance: survival has no classes to balance, expected none")
        self.longest = float(target[:, 0].max())


class Cox(Survival):
    """Cox's proportional hazards: one log hazard per patient, larger for earlier events.

    With `strata`, a column such as the site, patients are compared within their stratum only, and the third column of
    the target is the code of the stratum. Each stratum has its own baseline hazard; `decode`, which does not know the
    stratum, uses the pooled baseline of all training patients. The C-index compares patients across strata.
    """

    rank: ClassVar[str] = "log_hazard"
    ranked_by: ClassVar[Explained] = Explained("log hazard", "raises the hazard", "log hazard")
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
        zero_time: str = "error",
    ) -> None:
        """Create the endpoint.

        Args:
            time: Column of follow-up times.
            event: Column of how follow-up ended.
            unit: Of times: days, months or years.
            horizons: Times by name at which `decode` returns the risk.
            ties: Approximation for tied event times, efron or breslow.
            strata: Column within whose values patients are compared.
            status: Words for censored and event, see `FollowUp`.
            shortest: Minimum time, see `FollowUp`.
            zero_time: What a time of zero is, see `FollowUp`.
        """
        follow_up = FollowUp(time, event, status=status, unit=unit, shortest=shortest, zero_time=zero_time)
        super().__init__(follow_up, unit, horizons)
        if ties not in TIES:
            raise ConfigError(f"endpoint {time}: ties {ties!r}, expected one of {', '.join(TIES)}")
        self.ties, self.stratum, self.out_dim = ties, strata, 1
        self.partial_likelihood = ties
        if strata is not None:
            self.columns = (*self.columns, strata)
        self.baseline: BaselineHazard | None = None
        self.baselines: dict[str, BaselineHazard] = {}

    @property
    def fitted(self) -> bool:
        """Whether the baseline hazard has been fitted."""
        return self.baseline is not None

    @property
    def survival(self) -> SurvivalView:
        """Columns, horizons and the pooled baseline hazard of this endpoint."""
        return replace(super().survival, baseline=self.baseline)

    def encode(self, table: pd.DataFrame) -> Tensor:
        """Return time and event, `(p, 2)`, or with strata time, event and stratum, `(p, 3)`."""
        target = super().encode(table)
        if self.stratum is None:
            return target
        codes = torch.tensor([_code(name) for name in table[self.stratum]], dtype=target.dtype)
        return torch.cat([target, codes.unsqueeze(1)], 1)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the negative log partial likelihood of these patients per event, `()`."""
        stratum = None if self.stratum is None else target[:, 2]
        return cox_loss(logits.squeeze(1), target[:, 0], target[:, 1], self.ties, stratum)

    def risk(self, logits: Tensor) -> Tensor:
        """Return the log hazard itself, `(p,)`."""
        return logits.squeeze(1)

    def log_survival(self, logits: Tensor, times: Tensor) -> Tensor:
        """Return minus the cumulative hazard with the pooled baseline, `(p, t)`."""
        return (self.baseline or BaselineHazard([], [])).log_survival(logits, times)

    def stratum_curve(self, logits: Tensor, times: Sequence[float], stratum: str) -> Tensor:
        """Return `curve` with the baseline of one stratum, `(p, t)`; with the pooled one for an unknown stratum."""
        baseline = self.baselines.get(str(_code(stratum)))
        if baseline is None:
            return self.curve(logits, times)
        moments = torch.tensor(times, dtype=torch.float64)
        return self.within_follow_up(baseline.log_survival(logits.double(), moments).exp(), moments)

    def ranked(self, risk: Tensor) -> Tensor:
        """Return the log hazard itself, `(p, 1)`; any score that rises with the risk is accepted."""
        return risk.unsqueeze(1)

    def finish(self, logits: Tensor, target: Tensor) -> None:
        """Fit the pooled baseline hazard to the training patients, and one to each stratum with events.

        Ties are treated as in the loss.
        """
        self.baseline, self.baselines = _baseline(logits, target, self.ties), {}
        if self.stratum is not None:
            codes = sorted(set(target[target[:, 1] == 1, 2].tolist()))
            rows = {str(int(code)): target[:, 2] == code for code in codes}
            self.baselines = {name: _baseline(logits[mask], target[mask], self.ties) for name, mask in rows.items()}

    def state(self) -> State:
        """Return the pooled baseline hazard, times in `unit`, those of the strata by code, and the follow-up."""
        if self.baseline is None:
            return {}
        strata = {"strata": {name: list(pair) for name, pair in self.baselines.items()}} if self.baselines else {}
        pooled = {"baseline_times": self.baseline[0], "baseline_hazard": self.baseline[1]}
        return pooled | strata | self.follow_up_state()

    def load_state(self, state: State) -> None:
        """Restore the baseline hazards and the follow-up."""
        self.load_follow_up(state)
        self.baseline = _pair(state["baseline_times"], state["baseline_hazard"]) if state else None
        self.baselines = {name: _pair(*pair) for name, pair in dict(state.get("strata", {})).items()}


def _baseline(logits: Tensor, target: Tensor, ties: str) -> BaselineHazard:
    times, hazards = baseline_hazard(logits.double().squeeze(1), target[:, 0].double(), target[:, 1], ties)
    return BaselineHazard(times.tolist(), hazards.tolist())


def _pair(times: Sequence[float], hazards: Sequence[float]) -> BaselineHazard:
    if len(times) != len(hazards):
        raise ValueError(f"baseline hazard: {len(times)} times and {len(hazards)} hazards, expected as many")
    return BaselineHazard([float(time) for time in times], [float(hazard) for hazard in hazards])


def _code(stratum: object) -> int:
    """Return a code that depends on the name alone, because tables are read in parts."""
    return crc32(str(stratum).encode())
