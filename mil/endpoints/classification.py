"""Classes of patients: binary and multiclass."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mil.endpoints.endpoint import Endpoint, Scores, numbers
from mil.endpoints.losses import ClassLoss
from mil.endpoints.question import Question, class_question
from mil.errors import CohortError, ConfigError, PredictionsError
from mil.stats.classification_metrics import against_rest, auroc, balanced_accuracy, levelled, macro_auroc


class Classes(Endpoint):
    """What endpoints of one column of declared words share: its labels, and weights that balance them."""

    task: ClassVar[str] = "classification"

    def __init__(self, column: str, classes: Sequence[str]) -> None:
        """`classes` in the order of the logits, as the cohort's table writes them."""
        self.column, self.columns = column, (column,)
        self.classes = tuple(str(name) for name in classes)
        if len({_folded(name) for name in self.classes}) != len(self.classes) or len(self.classes) < 2:
            raise ConfigError(f"endpoint {column}: classes {list(self.classes)}, expected two or more different ones")
        self.class_weight: list[float] | None = None

    def labels(self, table: pd.DataFrame) -> NDArray[np.int64]:
        """Each patient's class, as its place among the classes, `(p,)`."""
        found = places(table[self.column], self.classes)
        if (found < 0).any():
            refuse_label(table[self.column], int((found < 0).argmax()), self.classes)
        return found

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

    def _weighed(self, losses: Tensor, target: Tensor) -> Tensor:
        """The mean of `weight[class] * loss` over patients."""
        return (self._weights(losses)[target.long()] * losses).mean()


class Binary(Classes):
    """Two classes, one logit: `classes[1]` is the positive one."""

    metric: ClassVar[str] = "auroc"
    called_by: ClassVar[str] = "probability above 0.5"

    def __init__(
        self,
        column: str = "label",
        classes: Sequence[str] = ("0", "1"),
        loss: str = "cross_entropy",
        gamma: float | None = None,
        gamma_positive: float = 0.0,
        margin: float = 0.05,
        smoothing: float = 0.0,
    ) -> None:
        """`classes`: negative, then positive; the others are `ClassLoss`'s."""
        super().__init__(column, classes)
        self.losses = ClassLoss(column, loss, gamma, gamma_positive, margin, smoothing)
        if len(self.classes) != 2:
            raise ConfigError(f"endpoint {column}: {len(self.classes)} classes, a binary endpoint has two")
        self.out_dim = 1

    @property
    def positive(self) -> str:
        """The class whose probability is predicted."""
        return self.classes[1]

    @property
    def class_columns(self) -> tuple[str, ...]:
        """The column of the positive class."""
        return (f"p_{self.positive}",)

    def questions(self) -> list[Question]:
        """Return one question: whether the patient is positive."""
        return [Question(self.positive, self.class_columns, self, Tensor.double, *self.classes)]

    def encode(self, table: pd.DataFrame) -> Tensor:
        """0 or 1, `(p,)`."""
        return torch.from_numpy(self.labels(table)).float()

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy, focal or asymmetric loss, weighted by class where balanced."""
        return self._weighed(self.losses.binary(logits.squeeze(1), target), target)

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
        return logit(probabilities(table, [f"p_{self.positive}"]))

    def legend(self) -> str:
        """The probability, uncalibrated."""
        raw = "It is as the model gives it, before any calibration."
        return f"`p_{self.positive}` rises with the probability of {self.positive}. {raw}"


class Multiclass(Classes):
    """Classes that exclude each other, a logit each."""

    metric: ClassVar[str] = "macro_auroc"

    def __init__(
        self,
        column: str = "label",
        classes: Sequence[str] = ("0", "1", "2"),
        loss: str = "cross_entropy",
        gamma: float | None = None,
        smoothing: float = 0.0,
    ) -> None:
        """`classes` in the order of the logits; the others are `ClassLoss`'s."""
        super().__init__(column, classes)
        self.losses = ClassLoss(column, loss, gamma, smoothing=smoothing, kinds=("cross_entropy", "focal"))
        self.out_dim = len(self.classes)

    def questions(self) -> list[Question]:
        """Return one question per class: whether the patient has it."""
        return [class_question(self, [name], name, f"not {name}", name) for name in self.classes]

    def encode(self, table: pd.DataFrame) -> Tensor:
        """Places among the classes, `(p,)`."""
        return torch.from_numpy(self.labels(table))

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy or focal loss; where balanced, the mean of `weight[class] * loss` over patients."""
        return self._weighed(self.losses.exclusive(logits, target), target)

    def membership(self, target: Tensor) -> Tensor:
        """1 for the bag's own class, `(b, c)`."""
        return functional.one_hot(target, len(self.classes)).float()

    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """One-vs-rest AUROC of the probabilities, mean over classes; balanced accuracy of the likeliest class."""
        # a constant added to a patient's logits says nothing, yet would move the patient among the others
        values, label = logits.double().log_softmax(1).numpy(), target.numpy()
        return {
            "macro_auroc": macro_auroc(levelled(against_rest(values)), label, weight),
            "balanced_accuracy": balanced_accuracy(values.argmax(1), label, len(self.classes), weight),
        }

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """`p_<class>` for each class; they sum to one."""
        shares = logits.double().softmax(1).unbind(1)
        return {f"p_{name}": values for name, values in zip(self.classes, shares, strict=True)}

    def recode(self, table: pd.DataFrame) -> Tensor:
        """Logarithms of the probabilities."""
        return probabilities(table, [f"p_{name}" for name in self.classes]).clamp(min=1e-300).log()

    @property
    def oracle_columns(self) -> tuple[str, ...]:
        """A class each."""
        return tuple(f"oracle_{name}" for name in self.classes)

    def legend(self) -> str:
        """The probabilities, uncalibrated."""
        names = ", ".join(f"`p_{name}`" for name in self.classes)
        return f"{names}: probabilities that sum to one. They are as the model gives them, before any calibration."


def places(values: "pd.Series[str]", classes: Sequence[str]) -> NDArray[np.int64]:
    """Each value's place among the classes, `(p,)`; -1 for what is none of them."""
    known = {_folded(name): place for place, name in enumerate(classes)}
    return np.array([known.get(_folded(value), -1) for value in values], dtype=np.int64)


def refuse_label(values: "pd.Series[str]", row: int, classes: Sequence[str]) -> NoReturn:
    """Says that this row's value is none of the classes."""
    who, value = values.index[row], str(values.iloc[row])
    known = ", ".join(classes)
    raise CohortError(f"column {values.name}, row of {who}: label {value!r}, expected one of {known}")


def logit(probability: Tensor) -> Tensor:
    """Logits of probabilities, all finite."""
    # doubles are far finer near zero than near one: certain negatives keep their order, certain positives tie
    return probability.clamp(1e-300, 1 - 2**-53).logit()


def probabilities(table: pd.DataFrame, columns: Sequence[str]) -> Tensor:
    """Columns of a table `(p, k)`.

    Raises:
        PredictionsError: a column is missing, or holds what is no probability.
    """
    values = numbers(table, columns)
    outside = ~((values >= 0) & (values <= 1)).all(1)
    if outside.any():
        raise PredictionsError(f"predictions: {int(outside.sum())} rows of {', '.join(columns)} outside [0, 1]")
    return values


def _folded(value: object) -> str:
    """`1`, `1.0` and `01.0` are one class, whatever wrote the table."""
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        return text
    return repr(number) if math.isfinite(number) else text
