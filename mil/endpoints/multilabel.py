"""Several yes-or-no labels per patient, each of which may be unknown."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.endpoints.classification import class_indices, logit, probabilities, refuse_label
from mil.endpoints.endpoint import Endpoint, Ranking, Scores, State
from mil.endpoints.explained import Explained
from mil.endpoints.losses import ClassLoss
from mil.endpoints.question import Question
from mil.errors import CohortError, ConfigError
from mil.stats.classification_metrics import auroc

SMALLEST_STRATUM = 10
"""patients that a stratum needs for a usual split to keep it in proportion"""


class Multilabel(Endpoint):
    """One logit per label; a target `(p, k)` is 1, 0, or NaN where a patient's label is unknown.

    Unknown labels are left out of loss, weights and scores. A patient has no target only if all labels are unknown.
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
        """Create the endpoint.

        Args:
            columns: Columns of the labels.
            classes: Negative, then positive: one pair for all labels, or one pair per label.
            loss: As `kind` in `ClassLoss`; the arguments below are explained there too.
            gamma: Focusing exponent.
            gamma_positive: Focusing exponent of positives.
            margin: Probability below which negatives cost nothing.
            smoothing: Label smoothing.
        """
        self.columns = tuple(str(name) for name in columns)
        if not self.columns or len(set(self.columns)) < len(self.columns):
            raise ConfigError(f"endpoint: columns {list(self.columns)}, expected one or more different ones")
        self.words = _pairs(self.columns, classes)
        self.losses = ClassLoss(", ".join(self.columns), loss, gamma, gamma_positive, margin, smoothing)
        self.out_dim = len(self.columns)
        self.class_weight: list[tuple[float, float]] | None = None

    @property
    def declared_words(self) -> Mapping[str, tuple[str, ...]]:
        """The two words of each label."""
        return dict(self._labels())

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

    def explained(self) -> tuple[Explained, ...]:
        """Return the log odds of each label being positive."""
        return tuple(
            Explained(name, f"speaks for {name} {positive}", "log odds", 0.0) for name, (_, positive) in self._labels()
        )

    def encode(self, table: pd.DataFrame) -> Tensor:
        """Return 1, 0, or NaN for empty cells, `(p, k)`."""
        target = np.stack([self._column(table[name], pair) for name, pair in self._labels()], 1)
        if (unlabelled := np.isnan(target).all(1)).any():
            patient = table.index[int(unlabelled.argmax())]
            raise CohortError(f"columns {', '.join(self.columns)}, row of {patient}: no label, expected one or more")
        return torch.from_numpy(target).float()

    def _labels(self) -> list[tuple[str, tuple[str, str]]]:
        return list(zip(self.columns, self.words, strict=True))

    @staticmethod
    def _column(values: "pd.Series[str]", pair: tuple[str, str]) -> NDArray[np.float64]:
        filled = (values.notna() & (values.astype(str).str.strip() != "")).to_numpy()
        indices = class_indices(values, pair)
        if (wrong := filled & (indices < 0)).any():
            refuse_label(values, int(wrong.argmax()), pair)
        return np.where(filled, indices, np.nan)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean over all labels that are not NaN, weighted by class where balanced, `()`; zero if all are."""
        labelled = ~target.isnan()
        label = torch.where(labelled, target, 0)  # a NaN would spread to the gradients of the other labels
        losses = self.losses.binary(logits, label) * self._weights(logits, label)
        return torch.where(labelled, losses, 0).sum() / labelled.sum().clamp(min=1)

    def _weights(self, logits: Tensor, label: Tensor) -> Tensor:
        pairs = torch.tensor(self.class_weight or [(1.0, 1.0)] * self.out_dim, dtype=logits.dtype, device=logits.device)
        return torch.where(label == 1, pairs[:, 1], pairs[:, 0])  # (b, k)

    def membership(self, target: Tensor) -> Tensor:
        """Return the target itself, `(b, k)`."""
        return target

    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """Return the mean AUROC over the labels, and the AUROC of each label among the patients who have it."""
        values, label = logits.double().numpy(), target.double().numpy()
        areas = {}
        for index, name in enumerate(self.columns):
            rows = ~np.isnan(label[:, index])
            row_weight = None if weight is None else weight[:, rows]
            areas[f"auroc_{name}"] = auroc(values[rows, index], label[rows, index] == 1, row_weight)
        return {"auroc": np.asarray(np.mean(list(areas.values()), axis=0))} | areas

    def rankings(self, logits: Tensor, target: Tensor) -> dict[str, list[Ranking]]:
        """Return the ranking of each label."""
        values, label = logits.double().numpy(), target.double().numpy()
        each = {name: Ranking(values[:, at], label[:, at]) for at, name in enumerate(self.columns)}
        return {"auroc": list(each.values())} | {f"auroc_{name}": [ranking] for name, ranking in each.items()}

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return `p_<label>` of each label, in double precision, `(p,)` each."""
        columns = zip(self.columns, logits.double().unbind(1), strict=True)
        return {f"p_{name}": values.sigmoid() for name, values in columns}

    def recode(self, table: pd.DataFrame) -> Tensor:
        """Return the logits of `p_<label>`, `(p, k)`."""
        return logit(probabilities(table, [f"p_{name}" for name in self.columns]))

    @property
    def oracle_columns(self) -> tuple[str, ...]:
        """One column per label."""
        return tuple(f"oracle_{name}" for name in self.columns)

    def legend(self) -> str:
        """Return what the uncalibrated probabilities mean."""
        labels = [f"`p_{name}` rises with the probability of {name} being {pair[1]}." for name, pair in self._labels()]
        return " ".join([*labels, "They are as the model gives them, before any calibration, and do not sum to one."])

    def counts(self, target: Tensor) -> dict[str, int]:
        """Return the number of patients, and for each label the known ones, where not all are, and the positives."""
        counts = {"n": len(target)}
        for (name, (_, positive)), labels in zip(self._labels(), target.unbind(1), strict=True):
            if labels.isnan().any():
                counts[f"{name} known"] = int((~labels.isnan()).sum())
            counts[f"{name} {positive}"] = int((labels == 1).sum())
        return counts

    def strata(self, target: Tensor) -> NDArray[np.int64]:
        """Return the rarest positive label of each patient, from 1 on, or 0 without one, `(p,)`.

        Strata of fewer than `SMALLEST_STRATUM` patients are merged with others.
        """
        positive = (target == 1).numpy()  # (p, k)
        stratum = np.zeros(len(target), dtype=np.int64)
        for label in positive.sum(0).argsort(kind="stable"):
            unassigned = positive[:, label] & (stratum == 0)
            if unassigned.sum() >= SMALLEST_STRATUM:
                stratum[unassigned] = label + 1
        if (stratum == 0).sum() < SMALLEST_STRATUM:
            stratum[stratum == 0] = np.bincount(stratum).argmax()
        return stratum

    def fit(self, target: Tensor, balance: bool = False) -> None:
        """Set the class weights `n / (2 n_class)` of each label, with which both classes contribute equally.

        Raises:
            CohortError: the training patients have only one class of a label.
        """
        weights = []
        for (name, pair), labels in zip(self._labels(), target.unbind(1), strict=True):
            amounts = [int((labels == answer).sum()) for answer in (0, 1)]
            if 0 in amounts:
                counts = " and ".join(f"{amount} {word}" for amount, word in zip(amounts, pair, strict=True))
                raise CohortError(
                    f"column {name}: {counts} among {len(labels)} training patients, expected some of both"
                )
            negative, positive = (sum(amounts) / (2 * amount) for amount in amounts)
            weights.append((negative, positive))
        self.class_weight = weights if balance else None

    def state(self) -> State:
        """Return the class weights, negative and positive of each label, None where the loss is not balanced."""
        return {"class_weight": self.class_weight and [list(pair) for pair in self.class_weight]}

    def load_state(self, state: State) -> None:
        """Restore the class weights."""
        pairs = state.get("class_weight")
        self.class_weight = pairs and [(float(negative), float(positive)) for negative, positive in pairs]


def _label(index: int, target: Tensor) -> Tensor:
    return target[:, index]


def _pairs(columns: tuple[str, ...], classes: Sequence[str] | Sequence[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    """Return the negative and the positive word of each column."""
    shared = all(not isinstance(word, list | tuple) for word in classes)
    by_label = [classes] * len(columns) if shared else list(classes)
    if len(by_label) != len(columns):
        raise ConfigError(f"endpoint: classes of {len(by_label)} labels, expected one pair for all or {len(columns)}")
    pairs = []
    for name, pair in zip(columns, by_label, strict=True):
        if len(words := [str(word) for word in pair]) != 2 or class_indices(pd.Series(words), words[:1])[1] == 0:
            raise ConfigError(f"endpoint {name}: classes {words}, expected two different ones: negative, then positive")
        pairs.append((words[0], words[1]))
    return tuple(pairs)
