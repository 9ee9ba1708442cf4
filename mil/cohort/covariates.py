"""Clinical covariates, encoded as numbers for a model."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.errors import CohortError, ConfigError
from mil.findings import Finding
from mil.tables import MISSING, listed

Floats = NDArray[np.float64]


class Covariates:
    """Encoding of clinical columns.

    A number becomes two columns: the value, standardised by the training patients and zero where it is missing, and an
    indicator of missing values. A category becomes one column for each declared level, one for other words, and one for
    missing values. So patients with missing covariates are not left out.
    """

    def __init__(self, numeric: Sequence[str] = (), categorical: Mapping[str, Sequence[str]] | None = None) -> None:
        """Create the encoding; `categorical` has the levels of each column, compared without regard to case."""
        self.numeric = tuple(map(str, numeric))
        self.categorical = {str(name): tuple(map(str, levels)) for name, levels in (categorical or {}).items()}
        self.columns = (*self.numeric, *self.categorical)
        if not self.columns or len(set(self.columns)) < len(self.columns):
            raise ConfigError(f"covariates: columns {list(self.columns)}, expected one or more different ones")
        for name, levels in self.categorical.items():
            if not levels or len(set(map(_folded, levels))) < len(levels):
                raise ConfigError(f"covariate {name}: levels {list(levels)}, expected one or more different ones")
        self.width = 2 * len(self.numeric) + sum(len(levels) + 2 for levels in self.categorical.values())
        self.mean, self.spread = [0.0] * len(self.numeric), [1.0] * len(self.numeric)

    @property
    def names(self) -> list[str]:
        """Names of the `width` encoded columns."""
        numbers = [f"{name}{what}" for name in self.numeric for what in ("", "=missing")]
        words = [f"{n}={level}" for n, levels in self.categorical.items() for level in (*levels, "unknown", "missing")]
        return numbers + words

    @property
    def declared_words(self) -> Mapping[str, tuple[str, ...]]:
        """The levels of each category, which are never read as missing values."""
        return self.categorical

    def check(self, table: pd.DataFrame) -> list[Finding]:
        """Return warnings that count words outside the declared levels.

        Raises:
            CohortError: A value that should be a number is not one.
        """
        for name in self.numeric:
            _numbers(table[name])
        findings = []
        for name, levels in self.categorical.items():
            place = _places(table[name], levels)
            if (strange := place == len(levels)).any():
                words = sorted(set(table.loc[strange, name]))
                message = (
                    f"covariate {name}: {strange.sum()} of {len(table)} patients have {listed(words)}, none of "
                    f"{', '.join(levels)}, and count as unknown"
                )
                findings.append(Finding("warning", "unknown-level", message, int(strange.sum())))
        return findings

    def fit(self, table: pd.DataFrame) -> Self:
        """Return a copy with the mean and standard deviation of each number in a table of training patients."""
        fitted = copy.copy(self)
        observed = [values[~np.isnan(values)] for values in (_numbers(table[name]) for name in self.numeric)]
        fitted.mean = [float(values.mean()) if len(values) else 0.0 for values in observed]
        fitted.spread = [float(values.std()) if len(values) and np.ptp(values) else 1.0 for values in observed]
        return fitted

    def numbers(self, table: pd.DataFrame) -> Floats:
        """Return the numeric covariates as they are in the table, `(p, k)`; NaN where missing."""
        columns = [_numbers(table[name]) for name in self.numeric]
        return np.stack(columns, 1) if columns else np.zeros((len(table), 0))

    def encode(self, table: pd.DataFrame) -> Tensor:
        """Return the encoded covariates, `(p, k)`, in the order of `names`.

        Raises:
            CohortError: A value that should be a number is not one.
        """
        columns: list[Floats] = []
        for name, mean, spread in zip(self.numeric, self.mean, self.spread, strict=True):
            values = _numbers(table[name])
            missing = np.isnan(values)
            columns.append(np.stack([np.where(missing, 0.0, (values - mean) / spread), missing], 1))
        for name, levels in self.categorical.items():
            columns.append(np.eye(len(levels) + 2)[_places(table[name], levels)])
        return torch.from_numpy(np.concatenate(columns, axis=1)).float()

    def state(self) -> dict[str, list[float]]:
        """Return means and standard deviations, in the units of the table."""
        return {"mean": self.mean, "sd": self.spread}

    def load_state(self, state: Mapping[str, Sequence[float]]) -> None:
        """Restore means and standard deviations.

        Raises:
            ValueError: There is not one finite mean and one positive spread for each number.
        """
        mean, spread = ([float(value) for value in state[key]] for key in ("mean", "sd"))
        fine = all(map(math.isfinite, (*mean, *spread))) and all(value > 0 for value in spread)
        if not (fine and len(mean) == len(spread) == len(self.numeric)):
            raise ValueError(f"means {mean} and deviations {spread}, expected one for each of {len(self.numeric)}")
        self.mean, self.spread = mean, spread


def _folded(word: object) -> str:
    return str(word).strip().casefold()


def _numbers(values: "pd.Series[str]") -> Floats:
    """Return numbers `(p,)`, NaN where missing."""
    words = [None if _bare(value) else str(value).strip() for value in values]
    numbers = np.array([math.nan if word is None else _number(word) for word in words])
    wrong = np.array([word is not None for word in words], dtype=bool) & ~np.isfinite(numbers)
    if wrong.any():
        row = int(wrong.argmax())
        others = f" (and {wrong.sum() - 1} more)" if wrong.sum() > 1 else ""
        raise CohortError(
            f"column {values.name}, row of {values.index[row]}{others}: found {words[row]!r}, expected a number or "
            "nothing"
        )
    return numbers


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan


def _bare(value: object) -> bool:
    return bool(pd.isna(value)) or _folded(value) in MISSING  # type: ignore[call-overload]  # a cell, not a column


def _places(values: "pd.Series[str]", levels: Sequence[str]) -> NDArray[np.int64]:
    """Return each patient's level, then unknown, then missing; a level may be a word that elsewhere means missing."""
    place_of_level = {_folded(level): place for place, level in enumerate(levels)}
    unknown = len(levels)
    return np.array([place_of_level.get(_folded(value), unknown + _bare(value)) for value in values], dtype=np.int64)
