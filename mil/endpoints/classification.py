"""Classes of patients: binary and multiclass."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mil.endpoints.base import Endpoint, Scores
from mil.errors import CohortError, ConfigError, PredictionsError
from mil.metrics.classification import auroc, balanced_accuracy, macro_auroc


class Classes(Endpoint):
    """What binary and multiclass share: one column of declared words, and weights that balance them."""

    def __init__(self, column: str, classes: Sequence[str]) -> None:
        """`classes` in the order of the logits, as the cohort's table writes them."""
        self.column, self.columns = column, (column,)
        self.classes = tuple(str(name) for name in classes)
        if len({_folded(name) for name in self.classes}) != len(self.classes) or len(self.classes) < 2:
            raise ConfigError(f"endpoint {column}: classes {list(self.classes)}, expected two or more different ones")
        self.class_weight: list[float] | None = None

    def labels(self, table: pd.DataFrame) -> NDArray[np.int64]:
        """Each patient's class, as its place among the classes, `(p,)`."""
        places = {_folded(name): place for place, name in enumerate(self.classes)}
        found = [places.get(_folded(value), -1) for value in table[self.column]]
        for row, place in enumerate(found):
            if place < 0:
                value, who = str(table[self.column].iloc[row]), table.index[row]
                known = ", ".join(self.classes)
                raise CohortError(f"column {self.column}, row of {who}: label {value!r}, expected one of {known}")
        return np.array(found, dtype=np.int64)

    def counts(self, target: Tensor) -> dict[str, int]:
        """Patients, and those of each class."""
        amounts = np.bincount(target.long().numpy(), minlength=len(self.classes))
        return {"n": len(target)} | dict(zip(self.classes, map(int, amounts), strict=True))

    def strata(self, target: Tensor) -> NDArray[np.int64]:
        """The class itself."""
        return target.long().numpy()

    def fit(self, target: Tensor, balance: bool = False) -> None:
        """Weights `n / (k n_class)`, so that every class weighs the same in the loss.

        Raises:
            CohortError: fewer than two classes among the training patients.
        """
        amounts = self.counts(target)
        present = [name for name in self.classes if amounts[name]]
        if len(present) < 2:
            found = present[0] if present else "missing"
            raise CohortError(
                f"column {self.column}: all {len(target)} training patients are {found!r}, "
                f"expected two classes or more of {', '.join(self.classes)}"
            )
        weights = [len(target) / (len(present) * amounts[name]) if amounts[name] else 0.0 for name in self.classes]
        self.class_weight = weights if balance else None

    def state(self) -> dict[str, Any]:
        """The class weights in force."""
        return {"class_weight": self.class_weight}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes the class weights back."""
        self.class_weight = state.get("class_weight")

    def _weights(self, like: Tensor) -> Tensor:
        return torch.tensor(self.class_weight or [1.0] * len(self.classes), dtype=like.dtype, device=like.device)


class Binary(Classes):
    """Two classes, one logit: `classes[1]` is the positive one."""

    metric: ClassVar[str] = "auroc"

    def __init__(self, column: str = "label", classes: Sequence[str] = ("0", "1")) -> None:
        """`classes`: negative, then positive."""
        super().__init__(column, classes)
        if len(self.classes) != 2:
            raise ConfigError(f"endpoint {column}: {len(self.classes)} classes, a binary endpoint has two")
        self.out_dim = 1

    @property
    def positive(self) -> str:
        """The class whose probability is predicted."""
        return self.classes[1]

    def encode(self, table: pd.DataFrame) -> Tensor:
        """0 or 1, `(p,)`."""
        return torch.from_numpy(self.labels(table)).float()

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy, weighted by class where balanced."""
        logits = logits.squeeze(1)
        weight = self._weights(logits)[target.long()]
        loss: Tensor = functional.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), weight)
        return loss

    def membership(self, target: Tensor) -> Tensor:
        """1 for the positive class, `(b, 1)`."""
        return target.unsqueeze(1)

    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """AUROC; balanced accuracy at probability one half."""
        values, label = logits.double().squeeze(1).numpy(), target.long().numpy()
        return {
            "auroc": auroc(values, label == 1, weight),
            "balanced_accuracy": balanced_accuracy((values > 0).astype(np.int64), label, 2, weight),
        }

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """`p_<positive>`, in double precision: logits to 16 come back from a file to 1e-9, above 36 all are one."""
        return {f"p_{self.positive}": logits.double().squeeze(1).sigmoid()}

    def recode(self, table: pd.DataFrame) -> Tensor:
        """Logit of `p_<positive>`."""
        (probability,) = _probabilities(table, [f"p_{self.positive}"]).unbind(1)
        # doubles are far finer near zero than near one: certain negatives keep their order, certain positives tie
        return probability.clamp(1e-300, 1 - 2**-53).logit().unsqueeze(1)


class Multiclass(Classes):
    """Classes that exclude each other, a logit each."""

    metric: ClassVar[str] = "macro_auroc"

    def __init__(self, column: str = "label", classes: Sequence[str] = ("0", "1", "2")) -> None:
        """`classes` in the order of the logits."""
        super().__init__(column, classes)
        self.out_dim = len(self.classes)

    def encode(self, table: pd.DataFrame) -> Tensor:
        """Places among the classes, `(p,)`."""
        return torch.from_numpy(self.labels(table))

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy; where balanced, the mean of `weight[class] * loss` over patients."""
        losses = functional.cross_entropy(logits, target, self._weights(logits), reduction="none")
        return losses.mean()

    def membership(self, target: Tensor) -> Tensor:
        """1 for the bag's own class, `(b, c)`."""
        return functional.one_hot(target, len(self.classes)).float()

    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """One-vs-rest AUROC of the probabilities, mean over classes; balanced accuracy of the likeliest class."""
        # a constant added to a patient's logits says nothing, yet would move the patient among the others
        values, label = logits.double().log_softmax(1).numpy(), target.numpy()
        return {
            "macro_auroc": macro_auroc(values, label, weight),
            "balanced_accuracy": balanced_accuracy(values.argmax(1), label, len(self.classes), weight),
        }

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """`p_<class>` for each class; they sum to one."""
        probabilities = logits.double().softmax(1).unbind(1)
        return {f"p_{name}": values for name, values in zip(self.classes, probabilities, strict=True)}

    def recode(self, table: pd.DataFrame) -> Tensor:
        """Logarithms of the probabilities."""
        probabilities = _probabilities(table, [f"p_{name}" for name in self.classes])
        return probabilities.clamp(min=1e-300).log()


def _folded(value: object) -> str:
    """`1`, `1.0` and `01.0` are one class, whatever wrote the table."""
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        return text
    return repr(number) if math.isfinite(number) else text


def _probabilities(table: pd.DataFrame, columns: list[str]) -> Tensor:
    missing = [name for name in columns if name not in table]
    if missing:
        raise PredictionsError(f"predictions: no column {missing[0]!r}, found {', '.join(map(str, table.columns))}")
    values = torch.tensor(table[columns].to_numpy(np.float64))
    outside = ~((values >= 0) & (values <= 1)).all(1)
    if outside.any():
        raise PredictionsError(f"predictions: {int(outside.sum())} rows of {', '.join(columns)} outside [0, 1]")
    return values
