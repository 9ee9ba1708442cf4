"""A number with a unit."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mil.endpoints.endpoint import Endpoint, Scores, numbers
from mil.errors import CohortError, ConfigError, PredictionsError
from mil.stats.value_metrics import concordance, mean_absolute_error, pearson, r2

LOSSES = ("squared", "gaussian", "huber", "quantile")
_LEAST_VARIANCE = 1e-6
_LEAST_GAP = 1e-12
_STRATA, _FEW = 4, 10


def gaussian_loss(mean: Tensor, raw_variance: Tensor, target: Tensor) -> Tensor:
    """Negative log likelihood of a normal distribution whose variance is a softplus, `(b,)` of three `(b,)`.

    Nix & Weigend, ICNN 1994; the softplus and its floor are Lakshminarayanan et al.'s, NeurIPS 2017, section 2.2.1.
    """
    variance = _variance(raw_variance)
    return ((target - mean) ** 2 / variance + torch.log(2 * torch.pi * variance)) / 2


def pinball_loss(values: Tensor, target: Tensor, levels: Tensor) -> Tensor:
    """Mean over the levels `(q,)` of the quantiles' `(b, q)` loss, `(b,)`. Koenker & Bassett, Econometrica 46, 1978."""
    missed = target.unsqueeze(1) - values  # (b, q)
    return torch.maximum(levels * missed, (levels - 1) * missed).mean(1)


def rising(logits: Tensor) -> Tensor:
    """Quantiles that cannot cross `(b, q)`: the first, and for each further one what it lies higher, by softplus."""
    return torch.cat([logits[:, :1], functional.softplus(logits[:, 1:])], 1).cumsum(1)


def _variance(raw: Tensor) -> Tensor:
    return functional.softplus(raw) + _LEAST_VARIANCE


def _unsoft(values: Tensor) -> Tensor:
    """Softplus inverted."""
    return values + torch.log(-torch.expm1(-values))


class Regression(Endpoint):
    """A number, learnt in standard deviations of the training patients about their mean, given back in its unit."""

    metric: ClassVar[str] = "r2"
    task: ClassVar[str] = "regression"
    unit: str

    def __init__(
        self,
        column: str = "score",
        unit: str = "",
        loss: str = "squared",
        delta: float = 1.0,
        quantiles: Sequence[float] = (0.1, 0.5, 0.9),
    ) -> None:
        """Logits are one, the value; with `gaussian` its variance beside; with `quantile` one for each of them.

        `delta` is where Huber's loss turns from square to straight, in standard deviations. `quantiles` rise and hold
        the median, which is the value. `unit` is for the card.
        """
        if loss not in LOSSES:
            raise ConfigError(f"endpoint {column}: loss {loss!r}, expected one of {', '.join(LOSSES)}")
        if not 0 < delta < float("inf"):
            raise ConfigError(f"endpoint {column}: delta {delta!r}, expected a positive number")
        self.column, self.columns = column, (column,)
        self.unit, self.kind, self.delta = unit, loss, delta
        self.quantiles = _levels(column, quantiles)
        self.out_dim = {"gaussian": 2, "quantile": len(self.quantiles)}.get(loss, 1)
        self.mean, self.spread = 0.0, 1.0
        self.value_column = "value"
        self.spread_column = "value_sd" if loss == "gaussian" else None
        self.quantile_columns = dict(zip(self.quantiles, self._names(), strict=True)) if loss == "quantile" else {}
        if column in self._names():
            raise ConfigError(f"endpoint {column}: the predictions have a column of that name, expected another")

    def encode(self, table: pd.DataFrame) -> Tensor:
        """The numbers themselves, `(p,)` in double precision."""
        values = pd.to_numeric(table[self.column], errors="coerce").to_numpy(np.float64)
        if (wrong := ~np.isfinite(values)).any():
            row = int(wrong.argmax())
            others = f" (and {wrong.sum() - 1} more)" if wrong.sum() > 1 else ""
            found, who = str(table[self.column].iloc[row]), table.index[row]
            raise CohortError(f"column {self.column}, row of {who}{others}: found {found!r}, expected a number")
        return torch.from_numpy(values.copy())

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean over patients of the loss in standard deviations; half precisions compute in float32."""
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        aim = ((target - self.mean) / self.spread).to(wide.dtype)
        return self._losses(wide, aim).mean().to(logits.dtype)

    def _losses(self, logits: Tensor, aim: Tensor) -> Tensor:
        match self.kind:
            case "gaussian":
                return gaussian_loss(logits[:, 0], logits[:, 1], aim)
            case "quantile":
                return pinball_loss(rising(logits), aim, logits.new_tensor(self.quantiles))
            case "huber":
                return functional.huber_loss(logits[:, 0], aim, reduction="none", delta=self.delta)
        return (logits[:, 0] - aim) ** 2 / 2

    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """R², Pearson's and Lin's correlations, and the mean absolute error in the unit, where smaller is better."""
        value, true = self.decode(logits)["value"].numpy(), target.double().numpy()
        return {
            "r2": r2(value, true, weight),
            "pearson": pearson(value, true, weight),
            "concordance": concordance(value, true, weight),
            "mae": mean_absolute_error(value, true, weight),
        }

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """`value` in the unit; beside it `value_sd` (gaussian), or each other quantile, `value_q10` (quantile)."""
        logits = logits.double()
        if self.kind == "gaussian":
            sd = self.spread * _variance(logits[:, 1]).sqrt()
            return {"value": self.mean + self.spread * logits[:, 0], "value_sd": sd}
        values = self.mean + self.spread * (rising(logits) if self.kind == "quantile" else logits)
        return dict(zip(self._names(), values.unbind(1), strict=True))

    def _names(self) -> list[str]:
        if self.kind == "quantile":
            return ["value" if level == 0.5 else f"value_q{100 * level:g}" for level in self.quantiles]
        return ["value", "value_sd"] if self.kind == "gaussian" else ["value"]

    def recode(self, table: pd.DataFrame) -> Tensor:
        """Logits from the columns that `decode` wrote; quantiles have to rise."""
        found = numbers(table, self._names())
        if not found.isfinite().all():
            wrong = int((~found.isfinite()).any(1).sum())
            raise PredictionsError(f"predictions: {wrong} rows of {', '.join(self._names())} are not finite numbers")
        value = (found[:, :1] - self.mean) / self.spread
        if self.kind == "gaussian":
            variance = (found[:, 1:] / self.spread) ** 2 - _LEAST_VARIANCE
            return torch.cat([value, _unsoft(variance.clamp(min=_LEAST_GAP))], 1)
        gaps = found.diff(dim=1)
        if (gaps < 0).any():
            wrong = int((gaps < 0).any(1).sum())
            raise PredictionsError(f"predictions: {wrong} rows of {', '.join(self._names())} fall, expected to rise")
        return torch.cat([value, _unsoft((gaps / self.spread).clamp(min=_LEAST_GAP))], 1)

    def from_oracle(self, scores: Tensor) -> Tensor:
        """Logits of the values `(p, 1)`, without spread about them."""
        flat = dict.fromkeys(self._names(), scores[:, 0].numpy()) | {"value_sd": np.zeros(len(scores))}
        return self.recode(pd.DataFrame(flat))

    def legend(self) -> str:
        """The unit, and what stands beside the value."""
        unit = f" in {self.unit}" if self.unit else ""
        if self.kind == "gaussian":
            return f"`value` is the expected {self.column}{unit}, `value_sd` the standard deviation about it."
        if self.kind == "quantile":
            others = ", ".join(f"`{name}`" for name in self._names() if name != "value")
            return f"`value` is the median of {self.column}{unit}; its other quantiles: {others or 'none'}."
        return f"`value` is the predicted {self.column}{unit}."

    def strata(self, target: Tensor) -> NDArray[np.int64]:
        """Quarters by rank, or fewer parts of few patients."""
        parts = max(1, min(_STRATA, len(target) // _FEW))
        ranks = target.argsort(stable=True).argsort(stable=True).numpy()
        return np.asarray(ranks * parts // max(1, len(target)), dtype=np.int64)

    def fit(self, target: Tensor, balance: bool = False) -> None:
        """Mean and standard deviation of the training patients.

        Raises:
            CohortError: they all have one value.
            ConfigError: balance asked for, which numbers do not have.
        """
        if balance:
            raise ConfigError("data.balance: a regression has no classes to balance, expected none")
        if len(target) == 0 or target.min() == target.max():
            found = f"{target[0]:g}" if len(target) else "missing"
            raise CohortError(
                f"column {self.column}: all {len(target)} training patients are {found}, expected different numbers"
            )
        self.mean, self.spread = float(target.double().mean()), float(target.double().std(correction=0))

    def state(self) -> dict[str, Any]:
        """Mean and standard deviation, in the unit."""
        return {"mean": self.mean, "sd": self.spread}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes mean and standard deviation back."""
        self.mean, self.spread = float(state.get("mean", 0.0)), float(state.get("sd", 1.0))


def _levels(column: str, quantiles: Sequence[float]) -> tuple[float, ...]:
    levels = tuple(float(level) for level in quantiles)
    rising_ones = all(low < high for low, high in zip((0.0, *levels), (*levels, 1.0), strict=True))
    if 0.5 not in levels or not rising_ones:
        raise ConfigError(f"endpoint {column}: quantiles {list(levels)}, expected numbers that rise, 0.5 among them")
    return levels
