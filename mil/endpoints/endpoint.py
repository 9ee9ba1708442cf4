"""What a tool predicts: its target, its loss, its score and its output."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.errors import PredictionsError

Scores = dict[str, NDArray[np.float64]]


class Endpoint(ABC):
    """Target, loss, score and output of one prediction.

    What is fitted to patients (class weights, a baseline hazard) is fitted on training patients only, by `fit` before
    training and `finish` after it, and travels in the checkpoint's manifest as `state`.
    """

    metric: ClassVar[str]
    """The key of `score` that ranks models; larger is better."""
    task: ClassVar[str] = "other"
    """What a model hub calls its kind: classification, regression, survival."""
    partial: ClassVar[bool] = False
    """True where a patient may lack some of the columns, though not all of them."""
    columns: tuple[str, ...]
    """Columns of the cohort that the target is made of."""
    out_dim: int
    """Logits a bag, c."""
    groups: tuple[int, ...] | None = None
    """Logits of each of several questions in one; none where there is one question."""
    alone: bool = True
    """False where a patient alone has no loss: patients are compared with each other."""

    def known(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Which patients have what a target is made of, `(p,)`: every column, or any of them where `partial`."""
        cells = table[list(self.columns)]
        there = cells.notna() & cells.astype(str).apply(lambda column: column.str.strip() != "")
        found = there.any(axis=1) if self.partial else there.all(axis=1)
        return np.asarray(found, dtype=np.bool_)

    @abstractmethod
    def encode(self, table: pd.DataFrame) -> Tensor:
        """Targets of `p` patients from their columns, `(p,)` or `(p, k)`.

        Raises:
            CohortError: a label that is none of the classes, a time that is not positive, ...
        """

    @abstractmethod
    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The training loss, `()`, of logits `(b, c)`."""

    def membership(self, target: Tensor) -> Tensor | None:
        """`(b, c)`: 1 where a bag is of a logit's class, 0 where not, NaN where not known; none without classes.

        Models with a loss on tiles of their own need to know which tiles a bag's target speaks of.
        """
        return None

    @abstractmethod
    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """Metrics of logits `(p, c)`; each `()`, or `(r,)` for `r` rows of patient weights `(r, p)`.

        A bootstrap resample is a row of multiplicities. A metric that its patients do not define is NaN.
        """

    @abstractmethod
    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """Columns of predictions.csv, each `(p,)`."""

    @abstractmethod
    def recode(self, table: pd.DataFrame) -> Tensor:
        """Logits `(p, c)` from the columns that `decode` wrote: scores made elsewhere are evaluated like our own.

        Raises:
            PredictionsError: a column is missing or out of its range.
        """

    @property
    def oracle_columns(self) -> tuple[str, ...]:
        """Columns of a simulated cohort's truth that hold a perfect reader's scores."""
        return ("oracle",)

    def from_oracle(self, scores: Tensor) -> Tensor:
        """Logits `(p, c)` of a perfect reader from its scores `(p, k)`, one of each of `oracle_columns`."""
        return scores

    def legend(self) -> str:
        """What the columns of `decode` mean, in Markdown, for the card."""
        return ", ".join(f"`{name}`" for name in self.decode(torch.zeros(1, self.out_dim))) + "."

    def counts(self, target: Tensor) -> dict[str, int]:
        """What every number is printed with: `n` patients, and the positives, classes or events among them."""
        return {"n": len(target)}

    def strata(self, target: Tensor) -> NDArray[np.int64]:
        """A stratum for each patient `(p,)`, kept in proportion by every split."""
        return np.zeros(len(target), dtype=np.int64)

    def fit(self, target: Tensor, balance: bool = False) -> None:
        """Learns from the training patients' targets before training; `balance` asks for class weights."""

    def finish(self, logits: Tensor, target: Tensor) -> None:
        """Learns from the training patients' logits after training."""

    def state(self) -> dict[str, Any]:
        """What was fitted, in plain JSON types."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave."""


def numbers(table: pd.DataFrame, columns: Sequence[str]) -> Tensor:
    """Columns of a table of predictions, `(p, k)`.

    Raises:
        PredictionsError: a column is missing.
    """
    missing = [name for name in columns if name not in table]
    if missing:
        raise PredictionsError(f"predictions: no column {missing[0]!r}, found {', '.join(map(str, table.columns))}")
    return torch.tensor(table[list(columns)].to_numpy(np.float64))
