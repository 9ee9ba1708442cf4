"""Several yes-or-no questions of one patient, each of which may have no answer."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.endpoints.classification import logit, places, probabilities, refuse_label
from mil.endpoints.endpoint import Endpoint, Scores
from mil.endpoints.losses import ClassLoss
from mil.endpoints.question import Question
from mil.errors import CohortError, ConfigError
from mil.stats.classification_metrics import auroc

FEW = 10
"""Patients below which a stratum cannot be kept in proportion by a usual split."""


class Multilabel(Endpoint):
    """A logit a label; a target `(p, k)` is 1, 0, or NaN where a patient's label is not known.

    What is not known has no part in loss, weights and scores. Only a patient of whom no label is known has no target.
    """

    metric: ClassVar[str] = "auroc"
    task: ClassVar[str] = "classification"
    partial: ClassVar[bool] = True

    def __init__(
        self,
        columns: Sequence[str] = ("first", "second"),
        classes: Sequence[str] | Sequence[Sequence[str]] = ("0", "1"),
        loss: str = "cross_entropy",
        gamma: float | None = None,
        gamma_positive: float = 0.0,
        margin: float = 0.05,
        smoothing: float = 0.0,
    ) -> None:
        """`columns` are the labels; `classes` negative, then positive, a pair for all of them or one for each.

        The others are `ClassLoss`'s.
        """
        self.columns = tuple(str(name) for name in columns)
        if not self.columns or len(set(self.columns)) < len(self.columns):
            raise ConfigError(f"endpoint: columns {list(self.columns)}, expected one or more different ones")
        self.words = _pairs(self.columns, classes)
        self.losses = ClassLoss(", ".join(self.columns), loss, gamma, gamma_positive, margin, smoothing)
        self.out_dim = len(self.columns)
        self.class_weight: list[tuple[float, float]] | None = None

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The labels."""
        return self.columns

    def questions(self) -> list[Question]:
        """Return one question per label: whether it is positive."""
        return [
            Question(name, (f"p_{name}",), self, partial(_label, index), *words)
            for index, (name, words) in enumerate(self._labels())
        ]

    def encode(self, table: pd.DataFrame) -> Tensor:
        """1, 0 or NaN, `(p, k)`; an empty cell is not known."""
        target = np.stack([self._column(table[name], pair) for name, pair in self._labels()], 1)
        if (nothing := np.isnan(target).all(1)).any():
            who = table.index[int(nothing.argmax())]
            raise CohortError(f"columns {', '.join(self.columns)}, row of {who}: no label, expected one or more")
        return torch.from_numpy(target).float()

    def _labels(self) -> list[tuple[str, tuple[str, str]]]:
        return list(zip(self.columns, self.words, strict=True))

    @staticmethod
    def _column(values: "pd.Series[str]", pair: tuple[str, str]) -> NDArray[np.float64]:
        known = (values.notna() & (values.astype(str).str.strip() != "")).to_numpy()
        found = places(values, pair)
        if (wrong := known & (found < 0)).any():
            refuse_label(values, int(wrong.argmax()), pair)
        return np.where(known, found, np.nan)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean over the labels that are known, weighted by class where balanced; zero where none is."""
        known = ~target.isnan()
        label = torch.where(known, target, 0)  # a NaN would reach the gradients of known labels
        losses = self.losses.binary(logits, label) * self._weights(logits, label)
        return torch.where(known, losses, 0).sum() / known.sum().clamp(min=1)

    def _weights(self, logits: Tensor, label: Tensor) -> Tensor:
        pairs = torch.tensor(self.class_weight or [(1.0, 1.0)] * self.out_dim, dtype=logits.dtype, device=logits.device)
        return torch.where(label == 1, pairs[:, 1], pairs[:, 0])  # (b, k)

    def membership(self, target: Tensor) -> Tensor:
        """The target itself, `(b, k)`."""
        return target

    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """Mean over the labels of their AUROC, then each label's own among the patients whose label is known."""
        values, label = logits.double().numpy(), target.double().numpy()
        areas = {}
        for at, name in enumerate(self.columns):
            known = ~np.isnan(label[:, at])
            own = None if weight is None else weight[:, known]
            areas[f"auroc_{name}"] = auroc(values[known, at], label[known, at] == 1, own)
        return {"auroc": np.asarray(np.mean(list(areas.values()), axis=0))} | areas

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """`p_<label>`, in double precision."""
        return {f"p_{name}": own.sigmoid() for name, own in zip(self.columns, logits.double().unbind(1), strict=True)}

    def recode(self, table: pd.DataFrame) -> Tensor:
        """Logits of `p_<label>`."""
        return logit(probabilities(table, [f"p_{name}" for name in self.columns]))

    @property
    def oracle_columns(self) -> tuple[str, ...]:
        """A label each."""
        return tuple(f"oracle_{name}" for name in self.columns)

    def legend(self) -> str:
        """The probabilities, uncalibrated."""
        said = [f"`p_{name}` rises with the probability of {name} being {pair[1]}." for name, pair in self._labels()]
        return " ".join([*said, "They are as the model gives them, before any calibration, and do not sum to one."])

    def counts(self, target: Tensor) -> dict[str, int]:
        """Patients; of each label those who are known, where some are not, and the positive ones."""
        found = {"n": len(target)}
        for (name, (_, positive)), own in zip(self._labels(), target.unbind(1), strict=True):
            if own.isnan().any():
                found[f"{name} known"] = int((~own.isnan()).sum())
            found[f"{name} {positive}"] = int((own == 1).sum())
        return found

    def strata(self, target: Tensor) -> NDArray[np.int64]:
        """The rarest label that a patient is positive for, from 1 on, else 0; strata of a few patients are merged."""
        positive = (target == 1).numpy()  # (p, k)
        stratum = np.zeros(len(target), dtype=np.int64)
        for label in positive.sum(0).argsort(kind="stable"):
            fresh = positive[:, label] & (stratum == 0)
            if fresh.sum() >= FEW:
                stratum[fresh] = label + 1
        if (stratum == 0).sum() < FEW:
            stratum[stratum == 0] = np.bincount(stratum).argmax()
        return stratum

    def fit(self, target: Tensor, balance: bool = False) -> None:
        """Weights `n / (2 n_class)` within each label, so that both its classes weigh the same in the loss.

        Raises:
            CohortError: a label of which the training patients have one class only.
        """
        weights = []
        for (name, pair), own in zip(self._labels(), target.unbind(1), strict=True):
            amounts = [int((own == at).sum()) for at in (0, 1)]
            if 0 in amounts:
                known = " and ".join(f"{amount} {word}" for amount, word in zip(amounts, pair, strict=True))
                raise CohortError(f"column {name}: {known} among {len(own)} training patients, expected some of both")
            negative, positive = (sum(amounts) / (2 * amount) for amount in amounts)
            weights.append((negative, positive))
        self.class_weight = weights if balance else None

    def state(self) -> dict[str, Any]:
        """The class weights in force, negative and positive of each label."""
        return {"class_weight": self.class_weight and [list(pair) for pair in self.class_weight]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes the class weights back."""
        found = state.get("class_weight")
        self.class_weight = found and [(float(negative), float(positive)) for negative, positive in found]


def _label(index: int, target: Tensor) -> Tensor:
    return target[:, index]


def _pairs(columns: tuple[str, ...], classes: Sequence[str] | Sequence[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    """Negative and positive word of each column."""
    shared = all(not isinstance(word, list | tuple) for word in classes)
    given = [classes] * len(columns) if shared else list(classes)
    if len(given) != len(columns):
        raise ConfigError(f"endpoint: classes of {len(given)} labels, expected one pair for all or {len(columns)}")
    pairs = []
    for name, pair in zip(columns, given, strict=True):
        if len(words := [str(word) for word in pair]) != 2 or places(pd.Series(words), words[:1])[1] == 0:
            raise ConfigError(f"endpoint {name}: classes {words}, expected two different ones: negative, then positive")
        pairs.append((words[0], words[1]))
    return tuple(pairs)
