"""Exclusive classes of patients: binary and multiclass."""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, NoReturn

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mil.endpoints.endpoint import Endpoint, Ranking, Scores, State, numbers
from mil.endpoints.explained import Explained
from mil.endpoints.losses import ClassLoss
from mil.endpoints.question import Question, class_question
from mil.errors import CohortError, ConfigError, PredictionsError
from mil.stats.classification_metrics import against_rest, auroc, balanced_accuracy, levelled, macro_auroc

_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Classes(Endpoint):
    """Base of endpoints whose target is one column of class names: labels, and weights that balance the classes."""

    task: ClassVar[str] = "classification"

    def __init__(self, column: str, classes: Sequence[str]) -> None:
        """Create the endpoint; `classes` are in the order of the logits and spelled as in the cohort's table."""
        self.column, self.columns = column, (column,)
        self.classes = tuple(str(name) for name in classes)
        if len({_normalised(name) for name in self.classes}) != len(self.classes) or len(self.classes) < 2:
            raise ConfigError(f"endpoint {column}: classes {list(self.classes)}, expected two or more different ones")
        self.class_weight: list[float] | None = None

    @property
    def declared_words(self) -> Mapping[str, tuple[str, ...]]:
        """The classes."""
        return {self.column: self.classes}

    def labels(self, table: pd.DataFrame) -> NDArray[np.int64]:
        """Return the index of each patient's class, `(p,)`."""
        indices = class_indices(table[self.column], self.classes)
        if (indices < 0).any():
            refuse_label(table[self.column], int((indices < 0).argmax()), self.classes)
        return indices

    def counts(self, target: Tensor) -> dict[str, int]:
        """Return the number of patients, and of patients in each class."""
        amounts = np.bincount(target.long().numpy(), minlength=len(self.classes))
        return {"n": len(target)} | dict(zip(self.classes, map(int, amounts), strict=True))

    def strata(self, target: Tensor) -> NDArray[np.int64]:
        """Return the index of each patient's class, `(p,)`."""
        return target.long().numpy()

    def fit(self, target: Tensor, balance: bool = False) -> None:
        """Set the class weights `n / (k n_class)`, with which every class contributes equally to the loss.

        Raises:
            CohortError: fewer than two classes among the training patients.
        """
        amounts = self.counts(target)
        present = [name for name in self.classes if amounts[name]]
        if len(present) < 2:
            only = present[0] if present else "missing"
            raise CohortError(
                f"column {self.column}: all {len(target)} training patients are {only!r}, "
                f"expected two classes or more of {', '.join(self.classes)}"
            )
        weights = [len(target) / (len(present) * amounts[name]) if amounts[name] else 0.0 for name in self.classes]
        self.class_weight = weights if balance else None

    def state(self) -> State:
        """Return the class weights, None where the loss is not balanced."""
        return {"class_weight": self.class_weight}

    def load_state(self, state: State) -> None:
        """Restore the class weights."""
        self.class_weight = state.get("class_weight")

    def _weights(self, like: Tensor) -> Tensor:
        return torch.tensor(self.class_weight or [1.0] * len(self.classes), dtype=like.dtype, device=like.device)

    def _weighted_mean(self, losses: Tensor, target: Tensor) -> Tensor:
        """Return the mean of `weight[class] * loss` over patients, `()`."""
        return (self._weights(losses)[target.long()] * losses).mean()


def _odds(logits: Tensor) -> NDArray[np.float64]:
    """Return ranks of each class's odds against the rest, `(p, c)`.

    Logits are normalised first: a constant added to all of a patient means nothing, but would change their rank.
    """
    return levelled(against_rest(logits.double().log_softmax(1).numpy()))


class Binary(Classes):
    """Two classes, one logit: `classes[1]` is the positive class."""

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
        """Create the endpoint.

        Args:
            column: Column of the labels.
            classes: Negative, then positive.
            loss: As `kind` in `ClassLoss`; the arguments below are explained there too.
            gamma: Focusing exponent.
            gamma_positive: Focusing exponent of positives.
            margin: Probability below which negatives cost nothing.
            smoothing: Label smoothing.
        """
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

    def explained(self) -> tuple[Explained, ...]:
        """Return the log odds of the positive class."""
        return (Explained(self.positive, f"speaks for {self.positive}", "log odds", 0.0),)

    def encode(self, table: pd.DataFrame) -> Tensor:
        """Return 0 for negative and 1 for positive, `(p,)`."""
        return torch.from_numpy(self.labels(table)).float()

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy, focal or asymmetric loss, weighted by class where balanced, `()`."""
        return self._weighted_mean(self.losses.binary(logits.squeeze(1), target), target)

    def membership(self, target: Tensor) -> Tensor:
        """Return 1 for bags of the positive class, `(b, 1)`."""
        return target.unsqueeze(1)

    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """Return the AUROC, and the balanced accuracy at probability one half."""
        values, label = logits.double().squeeze(1).numpy(), target.long().numpy()
        return {
            "auroc": auroc(values, label == 1, weight),
            "balanced_accuracy": balanced_accuracy((values > 0).astype(np.int64), label, 2, weight),
        }

    def rankings(self, logits: Tensor, target: Tensor) -> dict[str, list[Ranking]]:
        """Return the ranking by the logit."""
        return {"auroc": [Ranking(logits.double().squeeze(1).numpy(), target.double().numpy())]}

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return `p_<positive>`, `(p,)`.

        In double precision logits up to 16 survive a round trip to 1e-9; probabilities of logits above 36 are all 1.
        """
        return {f"p_{self.positive}": logits.double().squeeze(1).sigmoid()}

    def recode(self, table: pd.DataFrame) -> Tensor:
        """Return the logits of `p_<positive>`, `(p, 1)`."""
        return logit(probabilities(table, [f"p_{self.positive}"]))

    def legend(self) -> str:
        """Return what the uncalibrated probability means."""
        raw = "It is as the model gives it, before any calibration."
        return f"`p_{self.positive}` rises with the probability of {self.positive}. {raw}"


class Multiclass(Classes):
    """Classes that exclude each other, one logit each."""

    metric: ClassVar[str] = "macro_auroc"

    def __init__(
        self,
        column: str = "label",
        classes: Sequence[str] = ("0", "1", "2"),
        loss: str = "cross_entropy",
        gamma: float | None = None,
        smoothing: float = 0.0,
    ) -> None:
        """Create the endpoint.

        Args:
            column: Column of the labels.
            classes: In the order of the logits.
            loss: cross_entropy or focal, see `ClassLoss`.
            gamma: Focusing exponent.
            smoothing: Label smoothing.
        """
        super().__init__(column, classes)
        self.losses = ClassLoss(column, loss, gamma, smoothing=smoothing, kinds=("cross_entropy", "focal"))
        self.out_dim = len(self.classes)

    def questions(self) -> list[Question]:
        """Return one question per class: whether the patient has it."""
        return [class_question(self, [name], name, f"not {name}", name) for name in self.classes]

    def explained(self) -> tuple[Explained, ...]:
        """Return the log odds of each class against all others."""
        return tuple(Explained(name, f"speaks for {name}", "log odds", 0.0) for name in self.classes)

    def explained_values(self, logits: Tensor) -> Tensor:
        """Return the logit of each class less the log of the summed exponentials of the others, `(b, k)`."""
        classes = logits.shape[1]
        others = torch.stack([logits[:, [c for c in range(classes) if c != k]].logsumexp(1) for k in range(classes)], 1)
        return logits - others

    def encode(self, table: pd.DataFrame) -> Tensor:
        """Return the index of each patient's class, `(p,)`."""
        return torch.from_numpy(self.labels(table))

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy or focal loss, weighted by class where balanced, `()`."""
        return self._weighted_mean(self.losses.exclusive(logits, target), target)

    def membership(self, target: Tensor) -> Tensor:
        """Return 1 for the class of each bag and 0 for the others, `(b, c)`."""
        return functional.one_hot(target, len(self.classes)).float()

    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """Return the mean one-vs-rest AUROC, and the balanced accuracy of the likeliest class."""
        values, label = logits.double().log_softmax(1).numpy(), target.numpy()
        return {
            "macro_auroc": macro_auroc(_odds(logits), label, weight),
            "balanced_accuracy": balanced_accuracy(values.argmax(1), label, len(self.classes), weight),
        }

    def rankings(self, logits: Tensor, target: Tensor) -> dict[str, list[Ranking]]:
        """Return the ranking of each class against the rest."""
        label = target.numpy()
        return {"macro_auroc": [Ranking(odds, np.equal(label, k) * 1.0) for k, odds in enumerate(_odds(logits).T)]}

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return `p_<class>` of each class, `(p,)` each; they sum to one."""
        columns = logits.double().softmax(1).unbind(1)
        return {f"p_{name}": values for name, values in zip(self.classes, columns, strict=True)}

    def recode(self, table: pd.DataFrame) -> Tensor:
        """Return the logarithms of the probabilities, `(p, c)`."""
        return probabilities(table, [f"p_{name}" for name in self.classes]).clamp(min=1e-300).log()

    @property
    def oracle_columns(self) -> tuple[str, ...]:
        """One column per class."""
        return tuple(f"oracle_{name}" for name in self.classes)

    def legend(self) -> str:
        """Return what the uncalibrated probabilities mean."""
        names = ", ".join(f"`p_{name}`" for name in self.classes)
        return f"{names}: probabilities that sum to one. They are as the model gives them, before any calibration."


def class_indices(values: "pd.Series[str]", classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the index of each value among the classes, `(p,)`; -1 for values that are not a class.

    A word of truth, such as `no` or `FALSE`, is also the only class that says the same: yaml reads the class `no` as
    `False`, and spreadsheets write `FALSE`.
    """
    indices = {_normalised(name): index for index, name in enumerate(classes)}
    truths = [_truth(name) for name in classes]
    by_truth = {truth: truths.index(truth) for truth in (True, False) if truths.count(truth) == 1}

    def index_of(value: object) -> int:
        truth = _truth(value)
        return indices.get(_normalised(value), -1 if truth is None else by_truth.get(truth, -1))

    return np.array([index_of(value) for value in values], dtype=np.int64)


def refuse_label(values: "pd.Series[str]", row: int, classes: Sequence[str]) -> NoReturn:
    """Raise the error that the value in this row is not one of the classes.

    Raises:
        CohortError: always.
    """
    patient, value = values.index[row], str(values.iloc[row])
    raise CohortError(f"column {values.name}, row of {patient}: label {value!r}, expected one of {', '.join(classes)}")


def logit(probability: Tensor) -> Tensor:
    """Return finite logits of probabilities in [0, 1]."""
    # doubles are much denser near zero than near one: tiny probabilities stay ordered, those near one become ties
    return probability.clamp(1e-300, 1 - 2**-53).logit()


def probabilities(table: pd.DataFrame, columns: Sequence[str]) -> Tensor:
    """Return columns of a table as probabilities, `(p, k)`.

    Raises:
        PredictionsError: a column is missing, or has a value outside [0, 1].
    """
    values = numbers(table, columns)
    outside = ~((values >= 0) & (values <= 1)).all(1)
    if outside.any():
        raise PredictionsError(f"predictions: {int(outside.sum())} rows of {', '.join(columns)} outside [0, 1]")
    return values


def _truth(value: object) -> bool | None:
    """Return what a word of truth says; None for other words, and for numbers."""
    return _TRUTH.get(str(value).strip().casefold())


def _normalised(value: object) -> str:
    """Return one spelling for `1`, `1.0` and `01.0`, so that a class matches whichever software wrote the table."""
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        return text
    return repr(number) if math.isfinite(number) else text
