"""Grades: classes with an order.

With K classes, each method turns its logits into the probabilities `P(y > k)` of lying above each of the K - 1
boundaries. These fall from boundary to boundary, so that the class probabilities, their differences, are never
negative:

- `cumulative`, K - 1 logits: the logit of the first boundary, and for each further one its distance below the previous
  one, through softplus. The loss is that of CORAL (Cao et al., Pattern Recognition Letters 140, 2020). CORAL's head has
  one score and K - 1 thresholds shared by all patients; here the distances too are outputs of the model and may differ
  between patients. With zero weights for the distances it is a proportional odds model.
- `corn`, K - 1 logits: `P(y > k | y > k - 1)`, multiplied along the chain (Shi et al., Pattern Analysis and
  Applications 26, 2023).
- `binomial`, one logit: `y ~ Binomial(K - 1, sigmoid)`, unimodal for every logit (da Costa et al., Neural Networks 21,
  2008); the loss is the negative log likelihood.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mil.endpoints.classification import Classes, logit, probabilities
from mil.endpoints.endpoint import Ranking, Scores
from mil.endpoints.explained import Explained
from mil.endpoints.question import Question, class_question
from mil.errors import ConfigError
from mil.stats.classification_metrics import against_rest, auroc, levelled, macro_auroc
from mil.stats.kappa import quadratic_kappa

_SMALLEST = 1e-300


class Method(NamedTuple):
    """How logits `(b, c)` are turned into probabilities; the last argument is the number of boundaries, K - 1."""

    losses: Callable[[Tensor, Tensor, int], Tensor]
    """from logits and grades `(b,)` to losses `(b,)`"""
    above: Callable[[Tensor, int], Tensor]
    """from logits to `log P(y > k)` and `log P(y <= k)`, `(2, b, K - 1)`"""
    classes: Callable[[Tensor, int], Tensor]
    """from logits to log probabilities of the classes, `(b, K)`"""
    logits: Callable[[Tensor], Tensor]
    """from class probabilities `(b, K)` to logits"""


def boundaries(logits: Tensor) -> Tensor:
    """Return the logits of `P(y > k)`, falling in k, from the logits of the cumulative method, `(b, K - 1)` both."""
    return torch.cat([logits[:, :1], -functional.softplus(logits[:, 1:])], 1).cumsum(1)


def cumulative_losses(logits: Tensor, grade: Tensor, steps: int) -> Tensor:
    """Return the cross-entropy of lying above a boundary, mean over the boundaries, `(b,)`."""
    above = _exceeds(grade, steps).to(logits.dtype)
    return functional.binary_cross_entropy_with_logits(boundaries(logits), above, reduction="none").mean(1)


def corn_losses(logits: Tensor, grade: Tensor, steps: int) -> Tensor:
    """Return the cross-entropy of passing a boundary, summed over the boundaries that a patient reaches, `(b,)`.

    This is the negative log likelihood of the class; CORN divides the sum at each boundary by the number of patients
    who reach it.
    """
    above = _exceeds(grade, steps)
    reached = torch.cat([torch.ones_like(above[:, :1]), above[:, :-1]], 1)
    losses = functional.binary_cross_entropy_with_logits(logits, above.to(logits.dtype), reduction="none")
    return (losses * reached).sum(1)


def binomial_losses(logits: Tensor, grade: Tensor, steps: int) -> Tensor:
    """Return the negative log likelihood of the grade as the number of successes in K - 1 trials, `(b,)`."""
    return -_binomial(logits, steps).gather(1, grade.long().unsqueeze(1)).squeeze(1)


def _exceeds(grade: Tensor, steps: int) -> Tensor:
    """Return whether each boundary lies below the grade, `(b, K - 1)`."""
    return grade.unsqueeze(1) > torch.arange(steps, device=grade.device)


def _cumulative_above(logits: Tensor, steps: int) -> Tensor:
    boundary = boundaries(logits)
    return torch.stack([functional.logsigmoid(boundary), functional.logsigmoid(-boundary)])


def _cumulative_classes(logits: Tensor, steps: int) -> Tensor:
    above, below = _cumulative_above(logits, steps)
    # sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - exp(b - a)) has no cancellation where both are near one
    gap = functional.softplus(logits[:, 1:])
    between = above[:, :-1] + below[:, 1:] + torch.log(-torch.expm1(-gap))
    return torch.cat([below[:, :1], between, above[:, -1:]], 1)


def _cumulative_logits(probability: Tensor) -> Tensor:
    boundary = logit(_above(probability))
    gap = (boundary[:, :-1] - boundary[:, 1:]).clamp(min=_SMALLEST)
    return torch.cat([boundary[:, :1], gap + torch.log(-torch.expm1(-gap))], 1)  # inverse softplus


def _corn_above(logits: Tensor, steps: int) -> Tensor:
    above = functional.logsigmoid(logits).cumsum(1)
    return torch.stack([above, _corn_classes(logits, steps)[:, :-1].logcumsumexp(1)])


def _corn_classes(logits: Tensor, steps: int) -> Tensor:
    passed = functional.pad(functional.logsigmoid(logits).cumsum(1), (1, 0))
    stopped = functional.pad(functional.logsigmoid(-logits), (0, 1))
    return passed + stopped


def _corn_logits(probability: Tensor) -> Tensor:
    above = _above(probability).clamp(min=_SMALLEST)
    return above.log() - probability[:, :-1].clamp(min=_SMALLEST).log()


def _binomial(logits: Tensor, steps: int) -> Tensor:
    """Return the log probabilities of 0 to K - 1 successes, `(b, K)`."""
    grade = torch.arange(steps + 1, dtype=logits.dtype, device=logits.device)
    ways = torch.lgamma(grade.new_tensor(steps + 1.0)) - torch.lgamma(grade + 1) - torch.lgamma(steps - grade + 1)
    return ways + grade * functional.logsigmoid(logits) + (steps - grade) * functional.logsigmoid(-logits)


def _binomial_above(logits: Tensor, steps: int) -> Tensor:
    log_probability = _binomial(logits, steps)
    above = log_probability.flip(1).logcumsumexp(1).flip(1)[:, 1:]
    return torch.stack([above, log_probability.logcumsumexp(1)[:, :-1]])


def _binomial_logits(probability: Tensor) -> Tensor:
    # the mean determines a binomial distribution, so that its own probabilities return the same logit
    classes = probability.shape[1]
    up = probability @ torch.arange(classes, dtype=probability.dtype)
    down = probability @ torch.arange(classes - 1, -1, -1, dtype=probability.dtype)
    return (up.clamp(min=_SMALLEST).log() - down.clamp(min=_SMALLEST).log()).unsqueeze(1)


def _above(probability: Tensor) -> Tensor:
    """Return `P(y > k)` from class probabilities, `(b, K - 1)`."""
    return probability.flip(1).cumsum(1).flip(1)[:, 1:].clamp(max=1)


METHODS = {
    "cumulative": Method(cumulative_losses, _cumulative_above, _cumulative_classes, _cumulative_logits),
    "corn": Method(corn_losses, _corn_above, _corn_classes, _corn_logits),
    "binomial": Method(binomial_losses, _binomial_above, _binomial, _binomial_logits),
}


class Ordinal(Classes):
    """Grades, from the lowest to the highest; the called grade is the median of the predicted distribution."""

    metric: ClassVar[str] = "qwk"
    ordered: ClassVar[bool] = True
    called_by: ClassVar[str] = "median grade"

    def __init__(
        self, column: str = "grade", classes: Sequence[str] = ("0", "1", "2"), method: str = "cumulative"
    ) -> None:
        """Create the endpoint.

        Args:
            column: Column of the grades.
            classes: From the lowest to the highest.
            method: cumulative, corn or binomial, see the docstring of this module.
        """
        super().__init__(column, classes)
        if method not in METHODS:
            raise ConfigError(f"endpoint {column}: method {method!r}, expected one of {', '.join(METHODS)}")
        self.method, self.steps = METHODS[method], len(self.classes) - 1
        self.out_dim = 1 if method == "binomial" else self.steps

    def questions(self) -> list[Question]:
        """Return one question per boundary: whether the patient's grade lies above it."""
        return [
            class_question(self, self.classes[index:], f">= {grade}", f"< {grade}", f">= {grade}")
            for index, grade in enumerate(self.classes)
            if index
        ]

    def explained(self) -> tuple[Explained, ...]:
        """Return the log odds of lying above each boundary."""
        return tuple(
            Explained(f">= {grade}", f"speaks for {grade} or higher", "log odds", 0.0) for grade in self.classes[1:]
        )

    def explained_values(self, logits: Tensor) -> Tensor:
        """Return the log odds of lying above each boundary, `(b, K - 1)`."""
        above, below = self.method.above(logits, self.steps)
        difference: Tensor = above - below
        return difference

    def call_classes(self, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the index of the median grade, `(p,)`."""
        above = np.cumsum(probabilities[:, ::-1], axis=1)[:, -2::-1]  # (p, K - 1)
        return np.asarray((above > 0.5).sum(1), dtype=np.int64)

    def encode(self, table: pd.DataFrame) -> Tensor:
        """Return the index of each patient's grade, `(p,)`."""
        return torch.from_numpy(self.labels(table))

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of the method, weighted by class where balanced; half precisions compute in float32."""
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return self._weighted_mean(self.method.losses(wide, target, self.steps), target).to(logits.dtype)

    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """Return the quadratic weighted kappa, the macro AUROC of the classes, and the AUROC of each boundary."""
        label = target.numpy()
        above, below = (side.numpy() for side in self.method.above(logits.double(), self.steps))  # (p, K - 1)
        odds, probability = self._ranks(logits)
        return {
            "qwk": quadratic_kappa((above > below).sum(1), label, len(self.classes), weight),
            "macro_auroc": macro_auroc(probability, label, weight),
        } | {f"auroc_from_{name}": auroc(odds[:, k], label > k, weight) for k, name in enumerate(self.classes[1:])}

    def rankings(self, logits: Tensor, target: Tensor) -> dict[str, list[Ranking]]:
        """Return the ranking of each class against the rest, and of each boundary."""
        label = target.numpy()
        odds, probability = self._ranks(logits)
        classes = [Ranking(probability[:, k], np.equal(label, k) * 1.0) for k in range(len(self.classes))]
        boundaries = {
            f"auroc_from_{name}": [Ranking(odds[:, k], np.greater(label, k) * 1.0)]
            for k, name in enumerate(self.classes[1:])
        }
        return {"macro_auroc": classes} | boundaries

    def _ranks(self, logits: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return ranks of the odds of each boundary `(p, K - 1)`, and of each class against the rest `(p, K)`."""
        wide = logits.double()
        above, below = (side.numpy() for side in self.method.above(wide, self.steps))
        return levelled(above - below), levelled(against_rest(self.method.classes(wide, self.steps).numpy()))

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return `p_<class>` of each class, which sum to one, and `expected`, the mean index of the class."""
        probability = self.method.classes(logits.double(), self.steps).exp()  # (p, K)
        expected = probability @ torch.arange(len(self.classes), dtype=probability.dtype)
        columns = {f"p_{name}": values for name, values in zip(self.classes, probability.unbind(1), strict=True)}
        return columns | {"expected": expected}

    def recode(self, table: pd.DataFrame) -> Tensor:
        """Return the method's logits from `p_<class>`; those of a binomial reproduce the mean only."""
        return self.method.logits(probabilities(table, [f"p_{name}" for name in self.classes]))

    @property
    def oracle_columns(self) -> tuple[str, ...]:
        """One column per class, its probability."""
        return tuple(f"oracle_{name}" for name in self.classes)

    def from_oracle(self, scores: Tensor) -> Tensor:
        """Return the method's logits from class probabilities `(p, K)`."""
        return self.method.logits(scores)

    def legend(self) -> str:
        """Return what the uncalibrated probabilities and the expected grade mean."""
        names = ", ".join(f"`p_{name}`" for name in self.classes)
        ends = f"from 0 ({self.classes[0]}) to {self.steps} ({self.classes[-1]})"
        raw = f"{names}: probabilities that sum to one. They are as the model gives them, before any calibration."
        return f"{raw} `expected` is the mean grade, {ends}."
