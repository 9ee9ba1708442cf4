"""A number with a unit."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mil.endpoints.endpoint import Endpoint, Scores, State, numbers
from mil.endpoints.explained import Explained
from mil.errors import CohortError, ConfigError, PredictionsError
from mil.stats.value_metrics import concordance, mean_absolute_error, pearson, r2

LOSSES = ("squared", "gaussian", "huber", "quantile")
_SMALLEST_VARIANCE = 1e-6
_SMALLEST_GAP = 1e-12
_STRATA = 4
_SMALLEST_STRATUM = 10


def gaussian_loss(mean: Tensor, raw_variance: Tensor, target: Tensor) -> Tensor:
    """Return the negative log likelihood of a normal distribution whose variance is a softplus, `(b,)`.

    Nix & Weigend, ICNN 1994; the softplus and its lower bound are those of Lakshminarayanan et al., NeurIPS 2017,
    section 2.2.1. All arguments are `(b,)`.
    """
    variance = _variance(raw_variance)
    return ((target - mean) ** 2 / variance + torch.log(2 * torch.pi * variance)) / 2


def pinball_loss(values: Tensor, target: Tensor, levels: Tensor) -> Tensor:
    """Return the pinball loss of quantiles `(b, q)`, mean over their levels `(q,)`, `(b,)`.

    Koenker & Bassett, Econometrica 46, 1978.
    """
    missed = target.unsqueeze(1) - values  # (b, q)
    return torch.maximum(levels * missed, (levels - 1) * missed).mean(1)


def rising(logits: Tensor) -> Tensor:
    """Return quantiles that cannot cross, `(b, q)`: the first logit, then distances upwards, through softplus."""
    return torch.cat([logits[:, :1], functional.softplus(logits[:, 1:])], 1).cumsum(1)


def _variance(raw: Tensor) -> Tensor:
    return functional.softplus(raw) + _SMALLEST_VARIANCE


def _inverse_softplus(values: Tensor) -> Tensor:
    return values + torch.log(-torch.expm1(-values))


class Regression(Endpoint):
    """A number, standardised by the training patients for learning and predicted in its unit."""

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
        """Create the endpoint.

        Args:
            column: Column of the number.
            unit: Of the number, for report and card.
            loss: squared or huber, with one logit, the value; gaussian, with two, value and variance; or quantile, with
                one per quantile.
            delta: Where Huber's loss changes from quadratic to linear, in standard deviations.
            quantiles: Rising levels that include 0.5, the median, which is the value.

        Raises:
            ConfigError: an argument is out of its range.
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

    def explained(self) -> tuple[Explained, ...]:
        """Return the value itself, in its unit."""
        unit = self.unit or f"unit of {self.column}"
        return (Explained(self.column, f"raises {self.column}", unit),)

    def explained_values(self, logits: Tensor) -> Tensor:
        """Return the predicted value in its unit, `(b, 1)`; of quantiles the median."""
        standardised = logits[:, :1]
        if self.kind == "quantile":
            middle = self.quantiles.index(0.5)
            standardised = rising(logits)[:, middle : middle + 1]
        return self.mean + self.spread * standardised

    def encode(self, table: pd.DataFrame) -> Tensor:
        """Return the numbers, `(p,)`, in double precision."""
        values = pd.to_numeric(table[self.column], errors="coerce").to_numpy(np.float64)
        if (wrong := ~np.isfinite(values)).any():
            row = int(wrong.argmax())
            more = f" (and {wrong.sum() - 1} more)" if wrong.sum() > 1 else ""
            value, patient = str(table[self.column].iloc[row]), table.index[row]
            raise CohortError(f"column {self.column}, row of {patient}{more}: found {value!r}, expected a number")
        return torch.from_numpy(values.copy())

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of the standardised number, `()`; half precisions compute in float32."""
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        standardised = ((target - self.mean) / self.spread).to(wide.dtype)
        return self._losses(wide, standardised).mean().to(logits.dtype)

    def _losses(self, logits: Tensor, standardised: Tensor) -> Tensor:
        match self.kind:
            case "gaussian":
                return gaussian_loss(logits[:, 0], logits[:, 1], standardised)
            case "quantile":
                return pinball_loss(rising(logits), standardised, logits.new_tensor(self.quantiles))
            case "huber":
                return functional.huber_loss(logits[:, 0], standardised, reduction="none", delta=self.delta)
        return (logits[:, 0] - standardised) ** 2 / 2

    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """Return R², Pearson's and Lin's correlations, and the mean absolute error in the unit (smaller is better)."""
        value, true = self.decode(logits)["value"].numpy(), target.double().numpy()
        return {
            "r2": r2(value, true, weight),
            "pearson": pearson(value, true, weight),
            "concordance": concordance(value, true, weight),
            "mae": mean_absolute_error(value, true, weight),
        }

    @property
    def pooled_metrics(self) -> frozenset[str]:
        """All of them: values of different folds have one unit.

        A mean of R² over folds is biased downwards, since each fold's few true values vary less about their mean.
        """
        return frozenset(("r2", "pearson", "concordance", "mae"))

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return `value` in the unit, with `value_sd` (gaussian) or the other quantiles, such as `value_q10`."""
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
        """Return logits from the columns that `decode` wrote.

        Raises:
            PredictionsError: a column is missing or not finite, or quantiles fall.
        """
        values = numbers(table, self._names())
        if not values.isfinite().all():
            wrong = int((~values.isfinite()).any(1).sum())
            raise PredictionsError(f"predictions: {wrong} rows of {', '.join(self._names())} are not finite numbers")
        value = (values[:, :1] - self.mean) / self.spread
        if self.kind == "gaussian":
            variance = (values[:, 1:] / self.spread) ** 2 - _SMALLEST_VARIANCE
            return torch.cat([value, _inverse_softplus(variance.clamp(min=_SMALLEST_GAP))], 1)
        gaps = values.diff(dim=1)
        if (gaps < 0).any():
            wrong = int((gaps < 0).any(1).sum())
            raise PredictionsError(f"predictions: {wrong} rows of {', '.join(self._names())} fall, expected to rise")
        return torch.cat([value, _inverse_softplus((gaps / self.spread).clamp(min=_SMALLEST_GAP))], 1)

    def from_oracle(self, scores: Tensor) -> Tensor:
        """Return logits of the values `(p, 1)`, with no spread around them."""
        flat = dict.fromkeys(self._names(), scores[:, 0].numpy()) | {"value_sd": np.zeros(len(scores))}
        return self.recode(pd.DataFrame(flat))

    def legend(self) -> str:
        """Return what the value and the columns of its spread mean, with the unit."""
        unit = f" in {self.unit}" if self.unit else ""
        if self.kind == "gaussian":
            return f"`value` is the expected {self.column}{unit}, `value_sd` the standard deviation about it."
        if self.kind == "quantile":
            quantiles = ", ".join(f"`{name}`" for name in self._names() if name != "value")
            return f"`value` is the median of {self.column}{unit}; its other quantiles: {quantiles or 'none'}."
        return f"`value` is the predicted {self.column}{unit}."

    def strata(self, target: Tensor) -> NDArray[np.int64]:
        """Return the quarter of each patient by rank, `(p,)`; fewer strata where there are few patients."""
        amount = max(1, min(_STRATA, len(target) // _SMALLEST_STRATUM))
        ranks = target.argsort(stable=True).argsort(stable=True).numpy()
        return np.asarray(ranks * amount // max(1, len(target)), dtype=np.int64)

    def fit(self, target: Tensor, balance: bool = False) -> None:
        """Set mean and standard deviation to those of the training patients.

        Raises:
            CohortError: all patients have the same value.
            ConfigError: class weights are requested.
        """
        if balance:
            raise ConfigError("data.balance: a regression has no classes to balance, expected none")
        if len(target) == 0 or target.min() == target.max():
            value = f"{target[0]:g}" if len(target) else "missing"
            raise CohortError(
                f"column {self.column}: all {len(target)} training patients are {value}, expected different numbers"
            )
        self.mean, self.spread = float(target.double().mean()), float(target.double().std(correction=0))

    def state(self) -> State:
        """Return mean and standard deviation, in the unit."""
        return {"mean": self.mean, "sd": self.spread}

    def load_state(self, state: State) -> None:
        """Restore mean and standard deviation."""
        self.mean, self.spread = float(state.get("mean", 0.0)), float(state.get("sd", 1.0))


def _levels(column: str, quantiles: Sequence[float]) -> tuple[float, ...]:
    levels = tuple(float(level) for level in quantiles)
    sorted_within = all(low < high for low, high in zip((0.0, *levels), (*levels, 1.0), strict=True))
    if 0.5 not in levels or not sorted_within:
        raise ConfigError(f"endpoint {column}: quantiles {list(levels)}, expected numbers that rise, 0.5 among them")
    return levels
