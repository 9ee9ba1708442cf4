"""Several endpoints predicted by one model, which reads the tiles once and divides its logits among them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.endpoints.endpoint import Endpoint, Part, Ranking, Scores, State
from mil.endpoints.explained import Explained
from mil.errors import CohortError, ConfigError

SMALLEST_STRATUM = 10
"""patients that a stratum needs for a usual split to keep it in proportion"""


class _Layout(NamedTuple):
    """Position of one endpoint's logits and targets among those of all, and the shape of its targets."""

    logits: slice
    target: slice
    dtype: torch.dtype
    flat: bool
    """a target is one number, not a row"""


class Several(Endpoint):
    """Endpoints side by side: their logits, and targets `(p, k)` in double precision, NaN where a patient has none.

    A patient needs the target of at least one endpoint; each endpoint learns from and is scored on the patients who
    have its target.
    """

    metric: ClassVar[str] = "mean"
    partial: ClassVar[bool] = True
    nested_option: ClassVar[str | None] = "endpoints"

    def __init__(self, endpoints: Mapping[str, Endpoint], weights: Mapping[str, float] | None = None) -> None:
        """Create the endpoint.

        Args:
            endpoints: By name; the names are free.
            weights: Of their losses, by name; 1 where none is given.

        Raises:
            ConfigError: no endpoint, one that itself has several, a weight that is not positive, or two endpoints that
                write the same column.
        """
        self.endpoints = {str(name): endpoint for name, endpoint in endpoints.items()}
        for name, endpoint in self.endpoints.items():
            if not isinstance(endpoint, Endpoint) or endpoint.parts():
                raise ConfigError(f"endpoint {name}: a {type(endpoint).__name__}, expected an endpoint of one question")
        if not self.endpoints:
            raise ConfigError("endpoints: none, expected one or more by name")
        within = self.endpoints.values()
        self.weights = _weights(self.endpoints, weights or {})
        self.columns = tuple(dict.fromkeys(name for endpoint in within for name in endpoint.columns))
        self.groups = tuple(endpoint.out_dim for endpoint in within)
        self.out_dim = sum(self.groups)
        self.alone = all(endpoint.alone for endpoint in within)
        self._layouts = dict(zip(self.endpoints, _layouts(within), strict=True))
        _refuse_shared({name: endpoint.prediction_columns for name, endpoint in self.endpoints.items()})

    @property
    def declared_words(self) -> Mapping[str, tuple[str, ...]]:
        """Those of all endpoints; a column that several read has the words of each."""
        words: dict[str, tuple[str, ...]] = {}
        for endpoint in self.endpoints.values():
            for column, declared in endpoint.declared_words.items():
                words[column] = (*words.get(column, ()), *declared)
        return words

    def parts(self) -> Mapping[str, Endpoint]:
        """Return the endpoints by name."""
        return self.endpoints

    @property
    def part_weights(self) -> Mapping[str, float]:
        """The weight of each loss by name."""
        return self.weights

    @property
    def part_columns(self) -> Mapping[str, slice]:
        """The columns of each target by name."""
        return {name: layout.target for name, layout in self._layouts.items()}

    def events(self, target: Tensor) -> NDArray[np.bool_] | None:
        """Return who had an event of any endpoint, `(p,)`; None where no endpoint follows patients."""
        happened = None
        for part in self.part_targets(target):
            events = part.endpoint.events(part.target)
            if events is not None:
                happened = np.zeros(len(target), dtype=np.bool_) if happened is None else happened
                happened[part.mask] |= events
        return happened

    def has_target(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Return which patients have the target of at least one endpoint, `(p,)`."""
        mask = np.zeros(len(table), dtype=np.bool_)
        for endpoint in self.endpoints.values():
            mask |= endpoint.has_target(table)
        return mask

    def encode(self, table: pd.DataFrame) -> Tensor:
        """Return the targets of all endpoints side by side, `(p, k)`."""
        if (without := ~self.has_target(table)).any():
            patient = table.index[int(without.argmax())]
            raise CohortError(f"columns {', '.join(self.columns)}, row of {patient}: no target, expected one or more")
        width = max(layout.target.stop for layout in self._layouts.values())
        target = torch.full((len(table), width), torch.nan, dtype=torch.float64)
        for name, endpoint in self.endpoints.items():
            mask, layout = endpoint.has_target(table), self._layouts[name]
            values = endpoint.encode(table[mask]).double()
            target[torch.from_numpy(mask), layout.target] = values.unsqueeze(1) if layout.flat else values
        return target

    def part_targets(self, target: Tensor) -> Iterator[Part]:
        """Yield each endpoint with the targets of the patients who have one."""
        for name, endpoint in self.endpoints.items():
            layout = self._layouts[name]
            columns = target[:, layout.target]
            mask = ~columns.isnan().all(1)
            values = columns[mask].to(layout.dtype)
            yield Part(name, endpoint, mask.cpu().numpy(), values.squeeze(1) if layout.flat else values)

    def _logits(self, part: Part, logits: Tensor) -> Tensor:
        """Return the logits of one endpoint for the patients who have its target."""
        return logits[:, self._layouts[part.name].logits][torch.from_numpy(part.mask).to(logits.device)]

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the weighted sum of the losses, each on the patients who have the target, `()`; zero if none has."""
        total = logits[:, :0].sum()
        for part in self.part_targets(target):
            if part.mask.any():
                total = total + self.weights[part.name] * part.endpoint.loss(self._logits(part, logits), part.target)
        return total

    def membership(self, target: Tensor) -> Tensor | None:
        """Return the memberships of all endpoints side by side, `(b, c)`, NaN for endpoints without classes.

        None where no endpoint has classes.
        """
        members = torch.full((len(target), self.out_dim), torch.nan, device=target.device)
        classes = False
        for part in self.part_targets(target):
            of_part = part.endpoint.membership(part.target)
            if of_part is not None:
                classes = True
                rows = torch.from_numpy(part.mask).to(target.device)
                members[rows, self._layouts[part.name].logits] = of_part.to(members.dtype)
        return members if classes else None

    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """Return the mean of the endpoints' ranking metrics, whatever their units, and each `<name>_<metric>`."""
        ranking, scores = [], Scores()
        for part in self.part_targets(target):
            rows = None if weight is None else weight[:, part.mask]
            metrics = part.endpoint.score(self._logits(part, logits), part.target, rows)
            ranking.append(metrics[part.endpoint.metric])
            scores |= {f"{part.name}_{metric}": value for metric, value in metrics.items()}
        return {"mean": np.asarray(np.mean(ranking, axis=0))} | scores

    @property
    def columns_beyond_follow_up(self) -> frozenset[str]:
        """Those of all endpoints."""
        return frozenset(name for endpoint in self.endpoints.values() for name in endpoint.columns_beyond_follow_up)

    @property
    def pooled_metrics(self) -> frozenset[str]:
        """Those of each endpoint, by their names here."""
        parts = self.endpoints.items()
        return frozenset(f"{name}_{metric}" for name, endpoint in parts for metric in endpoint.pooled_metrics)

    def rankings(self, logits: Tensor, target: Tensor) -> dict[str, list[Ranking]]:
        """Return the rankings of each endpoint, `<name>_<metric>`; patients without its target are unknown."""
        rankings = dict[str, list[Ranking]]()
        for part in self.part_targets(target):
            for metric, each in part.endpoint.rankings(self._logits(part, logits), part.target).items():
                rankings[f"{part.name}_{metric}"] = [
                    Ranking(*(_spread(values, part.mask) for values in ranking)) for ranking in each
                ]
        return rankings

    def explained(self) -> tuple[Explained, ...]:
        """Return the numbers of all endpoints, each with its endpoint's name before its own."""
        return tuple(
            each._replace(name=f"{name}: {each.name}")
            for name, endpoint in self.endpoints.items()
            for each in endpoint.explained()
        )

    def explained_values(self, logits: Tensor) -> Tensor:
        """Return the numbers of all endpoints side by side, `(b, o)`."""
        layouts = self._layouts.items()
        return torch.cat([self.endpoints[name].explained_values(logits[:, at.logits]) for name, at in layouts], 1)

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return the columns of all endpoints."""
        columns = dict[str, Tensor]()
        for name, endpoint in self.endpoints.items():
            columns |= endpoint.decode(logits[:, self._layouts[name].logits])
        return columns

    def recode(self, table: pd.DataFrame) -> Tensor:
        """Return the logits from the columns of all endpoints."""
        return torch.cat([endpoint.recode(table) for endpoint in self.endpoints.values()], 1)

    @property
    def oracle_columns(self) -> tuple[str, ...]:
        """The oracle columns of each endpoint, prefixed with its name."""
        return tuple(f"{name}_{column}" for name, part in self.endpoints.items() for column in part.oracle_columns)

    def from_oracle(self, scores: Tensor) -> Tensor:
        """Return the logits of each endpoint from its oracle columns."""
        amounts = [len(endpoint.oracle_columns) for endpoint in self.endpoints.values()]
        columns = zip(self.endpoints.values(), torch.split(scores, amounts, 1), strict=True)
        return torch.cat([endpoint.from_oracle(values).to(scores.dtype) for endpoint, values in columns], 1)

    def legend(self) -> str:
        """Return the legends of all endpoints, one after the other."""
        return " ".join(endpoint.legend() for endpoint in self.endpoints.values())

    def counts(self, target: Tensor) -> dict[str, int]:
        """Return the number of patients, and the counts of each endpoint; `<name> known` where some lack its target."""
        counts = {"n": len(target)}
        for part in self.part_targets(target):
            of_part = part.endpoint.counts(part.target)
            if of_part["n"] < len(target):
                counts[f"{part.name} known"] = of_part["n"]
            counts |= {f"{part.name} {name}": amount for name, amount in of_part.items() if name != "n"}
        return counts

    def strata(self, target: Tensor) -> NDArray[np.int64]:
        """Return the strata of the first endpoint, `(p,)`.

        Patients without its target form a stratum of their own, or join the largest one where they are few.
        """
        first = next(self.part_targets(target))
        strata = np.zeros(len(target), dtype=np.int64)
        if not first.mask.any():
            return strata
        of_first, without = first.endpoint.strata(first.target), ~first.mask
        strata[first.mask] = of_first
        strata[without] = of_first.max() + 1 if without.sum() >= SMALLEST_STRATUM else np.bincount(of_first).argmax()
        return strata

    def fit(self, target: Tensor, balance: bool = False) -> None:
        """Fit each endpoint; `balance` asks for class weights of those with classes.

        Raises:
            CohortError: an endpoint has nothing to learn from.
            ConfigError: class weights are requested, and no endpoint has classes.
        """
        if balance and not any(endpoint.task == "classification" for endpoint in self.endpoints.values()):
            raise ConfigError("data.balance: no endpoint has classes to balance, expected none")
        for part in self.part_targets(target):
            if not part.mask.any():
                raise CohortError(
                    f"endpoint {part.name}: none of {len(target)} training patients has a value in "
                    f"{', '.join(part.endpoint.columns)}, expected some"
                )
            part.endpoint.fit(part.target, balance and part.endpoint.task == "classification")

    def finish(self, logits: Tensor, target: Tensor) -> None:
        """Finish each endpoint on the training patients who have its target."""
        for part in self.part_targets(target):
            part.endpoint.finish(self._logits(part, logits), part.target)

    def state(self) -> State:
        """Return the state of each endpoint by name."""
        return {name: endpoint.state() for name, endpoint in self.endpoints.items()}

    def load_state(self, state: State) -> None:
        """Restore the state of each endpoint."""
        for name, endpoint in self.endpoints.items():
            endpoint.load_state(state.get(name, {}))


def _layouts(endpoints: Iterable[Endpoint]) -> Iterator[_Layout]:
    first_logit = first_target = 0
    for endpoint in endpoints:
        empty = endpoint.encode(pd.DataFrame({name: pd.Series(dtype=object) for name in endpoint.columns}))
        width = 1 if empty.dim() == 1 else empty.shape[1]
        logits, target = slice(first_logit, first_logit + endpoint.out_dim), slice(first_target, first_target + width)
        yield _Layout(logits, target, empty.dtype, empty.dim() == 1)
        first_logit, first_target = logits.stop, target.stop


def _weights(endpoints: Mapping[str, Endpoint], weights: Mapping[str, float]) -> dict[str, float]:
    if unknown := sorted(set(map(str, weights)) - set(endpoints)):
        raise ConfigError(f"weights: no endpoint {unknown[0]!r}, expected {', '.join(endpoints)}")
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            raise ConfigError(f"weights: {name} {weight!r}, expected a positive number")
    return {name: float(weights.get(name, 1.0)) for name in endpoints}


def _refuse_shared(columns: Mapping[str, frozenset[str]]) -> None:
    """Check that no two endpoints write the same column."""
    written: dict[str, str] = {}
    for name, of_endpoint in columns.items():
        if shared := sorted(of_endpoint & set(written)):
            first = written[shared[0]]
            raise ConfigError(f"endpoints {first} and {name}: both predict a column {shared[0]!r}, expected one")
        written |= dict.fromkeys(of_endpoint, name)


def _spread(values: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return values of some patients as values of all, `(p,)`; NaN for the others."""
    spread = np.full(len(mask), np.nan)
    spread[mask] = values
    return spread
