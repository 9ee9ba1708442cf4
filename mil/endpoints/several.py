"""Several questions answered by one model: its tiles are read once, its logits are shared out."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.endpoints.endpoint import Endpoint, Part, Scores
from mil.errors import CohortError, ConfigError

FEW = 10
"""Patients below which a stratum cannot be kept in proportion by a usual split."""


class _Place(NamedTuple):
    """Where an endpoint's columns lie, and what its own targets are like."""

    logits: slice
    target: slice
    dtype: torch.dtype
    flat: bool
    """a target is one number, not a row"""


class Several(Endpoint):
    """Endpoints side by side: logits, and targets `(p, k)` in double precision, NaN where an endpoint has none.

    A patient needs the target of one endpoint at least; each endpoint learns from and is scored on the patients who
    have its own.
    """

    metric: ClassVar[str] = "mean"
    partial: ClassVar[bool] = True
    nested_option: ClassVar[str | None] = "endpoints"

    def __init__(self, endpoints: Mapping[str, Endpoint], weights: Mapping[str, float] | None = None) -> None:
        """`endpoints` by names of one's own; `weights` of their losses, 1 where not said."""
        self.endpoints = {str(name): endpoint for name, endpoint in endpoints.items()}
        for name, endpoint in self.endpoints.items():
            if not isinstance(endpoint, Endpoint) or endpoint.parts():
                raise ConfigError(f"endpoint {name}: a {type(endpoint).__name__}, expected an endpoint of one question")
        if not self.endpoints:
            raise ConfigError("endpoints: none, expected one or more by name")
        self.weights = _weights(self.endpoints, weights or {})
        self.columns = tuple(dict.fromkeys(name for one in self.endpoints.values() for name in one.columns))
        self.groups = tuple(one.out_dim for one in self.endpoints.values())
        self.out_dim = sum(self.groups)
        self.alone = all(one.alone for one in self.endpoints.values())
        self._places = dict(zip(self.endpoints, _places(self.endpoints.values()), strict=True))
        _refuse_twice({name: one.prediction_columns for name, one in self.endpoints.items()})

    def parts(self) -> Mapping[str, Endpoint]:
        """Return the endpoints by name."""
        return self.endpoints

    def known(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Which patients have the target of one endpoint at least."""
        known = np.zeros(len(table), dtype=np.bool_)
        for one in self.endpoints.values():
            known |= one.known(table)
        return known

    def encode(self, table: pd.DataFrame) -> Tensor:
        """The endpoints' targets side by side, `(p, k)`."""
        if (nothing := ~self.known(table)).any():
            who = table.index[int(nothing.argmax())]
            raise CohortError(f"columns {', '.join(self.columns)}, row of {who}: no target, expected one or more")
        width = max(place.target.stop for place in self._places.values())
        target = torch.full((len(table), width), torch.nan, dtype=torch.float64)
        for name, one in self.endpoints.items():
            there, place = one.known(table), self._places[name]
            own = one.encode(table[there]).double()
            target[torch.from_numpy(there), place.target] = own.unsqueeze(1) if place.flat else own
        return target

    def events(self, target: Tensor) -> NDArray[np.bool_] | None:
        """Return who had an event of any endpoint, `(p,)`; None where no endpoint follows patients."""
        happened = None
        for part in self.part_targets(target):
            events = part.endpoint.events(part.target)
            if events is not None:
                happened = np.zeros(len(target), dtype=np.bool_) if happened is None else happened
                happened[part.known] |= events
        return happened

    def part_targets(self, target: Tensor) -> Iterator[Part]:
        """Yield each endpoint with the targets of the patients who have one."""
        for name, one in self.endpoints.items():
            place = self._places[name]
            own = target[:, place.target]
            there = ~own.isnan().all(1)
            kept = own[there].to(place.dtype)
            yield Part(name, one, there.cpu().numpy(), kept.squeeze(1) if place.flat else kept)

    def _own(self, part: Part, logits: Tensor) -> Tensor:
        return logits[:, self._places[part.name].logits][torch.from_numpy(part.known).to(logits.device)]

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The weighted sum of the endpoints' losses, each on the patients who have its target; zero where none has."""
        total = logits[:, :0].sum()
        for part in self.part_targets(target):
            if part.known.any():
                total = total + self.weights[part.name] * part.endpoint.loss(self._own(part, logits), part.target)
        return total

    def membership(self, target: Tensor) -> Tensor | None:
        """The endpoints' own side by side, NaN for logits of an endpoint without classes; none where none has some."""
        found = torch.full((len(target), self.out_dim), torch.nan, device=target.device)
        classes = False
        for part in self.part_targets(target):
            own = part.endpoint.membership(part.target)
            if own is not None:
                classes = True
                there = torch.from_numpy(part.known).to(target.device)
                found[there, self._places[part.name].logits] = own.to(found.dtype)
        return found if classes else None

    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """The mean of the endpoints' own metrics, whatever their units; then each's metrics as `<name>_<metric>`."""
        own, scores = [], Scores()
        for part in self.part_targets(target):
            rows = None if weight is None else weight[:, part.known]
            found = part.endpoint.score(self._own(part, logits), part.target, rows)
            own.append(found[part.endpoint.metric])
            scores |= {f"{part.name}_{metric}": value for metric, value in found.items()}
        return {"mean": np.asarray(np.mean(own, axis=0))} | scores

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """All columns of all endpoints."""
        return {name: values for one, own in self._each(logits) for name, values in one.decode(own).items()}

    def _each(self, logits: Tensor) -> Iterator[tuple[Endpoint, Tensor]]:
        for name, one in self.endpoints.items():
            yield one, logits[:, self._places[name].logits]

    def recode(self, table: pd.DataFrame) -> Tensor:
        """Logits from the columns of all endpoints."""
        return torch.cat([one.recode(table) for one in self.endpoints.values()], 1)

    @property
    def oracle_columns(self) -> tuple[str, ...]:
        """Each endpoint's, behind its name."""
        return tuple(f"{name}_{column}" for name, one in self.endpoints.items() for column in one.oracle_columns)

    def from_oracle(self, scores: Tensor) -> Tensor:
        """The endpoints' logits of their own oracles."""
        amounts = [len(one.oracle_columns) for one in self.endpoints.values()]
        each = zip(self.endpoints.values(), torch.split(scores, amounts, 1), strict=True)
        return torch.cat([one.from_oracle(own).to(scores.dtype) for one, own in each], 1)

    def legend(self) -> str:
        """One after the other."""
        return " ".join(one.legend() for one in self.endpoints.values())

    def counts(self, target: Tensor) -> dict[str, int]:
        """Patients; of each endpoint those who have its target, where some have not, and its own counts."""
        found = {"n": len(target)}
        for part in self.part_targets(target):
            own = part.endpoint.counts(part.target)
            if own["n"] < len(target):
                found[f"{part.name} known"] = own["n"]
            found |= {f"{part.name} {what}": amount for what, amount in own.items() if what != "n"}
        return found

    def strata(self, target: Tensor) -> NDArray[np.int64]:
        """The first endpoint's; who has no target of it is a stratum of their own, or of the largest where few."""
        first = next(self.part_targets(target))
        strata = np.zeros(len(target), dtype=np.int64)
        if not first.known.any():
            return strata
        own = first.endpoint.strata(first.target)
        strata[first.known] = own
        strata[~first.known] = own.max() + 1 if (~first.known).sum() >= FEW else np.bincount(own).argmax()
        return strata

    def fit(self, target: Tensor, balance: bool = False) -> None:
        """Each endpoint's own; `balance` weighs the classes of those that have some.

        Raises:
            CohortError: an endpoint has nothing to learn from.
            ConfigError: balance asked for, where no endpoint has classes.
        """
        if balance and not any(one.task == "classification" for one in self.endpoints.values()):
            raise ConfigError("data.balance: no endpoint has classes to balance, expected none")
        for part in self.part_targets(target):
            if not part.known.any():
                raise CohortError(
                    f"endpoint {part.name}: none of {len(target)} training patients has a value in "
                    f"{', '.join(part.endpoint.columns)}, expected some"
                )
            part.endpoint.fit(part.target, balance and part.endpoint.task == "classification")

    def finish(self, logits: Tensor, target: Tensor) -> None:
        """Each endpoint's own, on the training patients who have its target."""
        for part in self.part_targets(target):
            part.endpoint.finish(self._own(part, logits), part.target)

    def state(self) -> dict[str, Any]:
        """Each endpoint's, by name."""
        return {name: one.state() for name, one in self.endpoints.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes them back."""
        for name, one in self.endpoints.items():
            one.load_state(state.get(name, {}))


def _places(endpoints: Any) -> Iterator[_Place]:
    logits = target = 0
    for one in endpoints:
        empty = one.encode(pd.DataFrame({name: pd.Series(dtype=object) for name in one.columns}))
        width = 1 if empty.dim() == 1 else empty.shape[1]
        spans = slice(logits, logits + one.out_dim), slice(target, target + width)
        yield _Place(*spans, empty.dtype, empty.dim() == 1)
        logits, target = spans[0].stop, spans[1].stop


def _weights(endpoints: Mapping[str, Endpoint], weights: Mapping[str, float]) -> dict[str, float]:
    if odd := sorted(set(map(str, weights)) - set(endpoints)):
        raise ConfigError(f"weights: no endpoint {odd[0]!r}, expected {', '.join(endpoints)}")
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            raise ConfigError(f"weights: {name} {weight!r}, expected a positive number")
    return {name: float(weights.get(name, 1.0)) for name in endpoints}


def _refuse_twice(columns: Mapping[str, frozenset[str]]) -> None:
    """Predictions that could not be told apart."""
    seen: dict[str, str] = {}
    for name, own in columns.items():
        if both := sorted(own & set(seen)):
            raise ConfigError(f"endpoints {seen[both[0]]} and {name}: both predict a column {both[0]!r}, expected one")
        seen |= dict.fromkeys(own, name)
