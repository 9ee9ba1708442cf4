"""Grades: classes with an order.

Of K classes a method reads its logits as the probabilities of being above each of the K - 1 boundaries, `P(y > k)`,
which fall from boundary to boundary, so that class probabilities, their differences, are never negative:

- `cumulative`, K - 1 logits: the first boundary's logit, and for each further one what it lies lower, through softplus.
  The loss is CORAL's (Cao et al., Pattern Recognition Letters 140, 2020). CORAL's head has one score and
  K - 1 thresholds shared by all patients; here the model's head gives the distances too, so that they may differ
  between patients: proportional odds are what it finds where the weights of the distances are zero.
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
from mil.endpoints.endpoint import Scores
from mil.endpoints.question import Question, class_question
from mil.errors import ConfigError
from mil.stats.classification_metrics import against_rest, auroc, levelled, macro_auroc
from mil.stats.kappa import quadratic_kappa

_LEAST = 1e-300


class Method(NamedTuple):
    """How logits `(b, c)` are read, with K - 1 boundaries."""

    losses: Callable[[Tensor, Tensor, int], Tensor]
    """Of logits and grades `(b,)`, `(b,)`."""
    above: Callable[[Tensor, int], Tensor]
    """`log P(y > k)` and `log P(y <= k)`, `(2, b, K - 1)`."""
    classes: Callable[[Tensor, int], Tensor]
    """Logarithms of the class probabilities, `(b, K)`."""
    logits: Callable[[Tensor], Tensor]
    """Logits from class probabilities `(b, K)`."""


def boundaries(logits: Tensor) -> Tensor:
    """Logits of `P(y > k)`, falling in k, from those of the cumulative method, `(b, K - 1)` both."""
    return torch.cat([logits[:, :1], -functional.softplus(logits[:, 1:])], 1).cumsum(1)


def cumulative_losses(logits: Tensor, grade: Tensor, steps: int) -> Tensor:
    """Mean over the boundaries of the cross-entropy of lying above them, `(b,)`."""
    above = _exceeds(grade, steps).to(logits.dtype)
    return functional.binary_cross_entropy_with_logits(boundaries(logits), above, reduction="none").mean(1)


def corn_losses(logits: Tensor, grade: Tensor, steps: int) -> Tensor:
    """Sum over the boundaries that a patient comes to of the cross-entropy of passing them, `(b,)`.

    This is the negative log likelihood of the class; CORN divides each boundary's sum by its own number of patients.
    """
    above = _exceeds(grade, steps)
    reached = torch.cat([torch.ones_like(above[:, :1]), above[:, :-1]], 1)
    losses = functional.binary_cross_entropy_with_logits(logits, above.to(logits.dtype), reduction="none")
    return (losses * reached).sum(1)


def binomial_losses(logits: Tensor, grade: Tensor, steps: int) -> Tensor:
    """Negative log likelihood of a grade that is a number of successes in K - 1 trials, `(b,)`."""
    return -_binomial(logits, steps).gather(1, grade.long().unsqueeze(1)).squeeze(1)


def _exceeds(grade: Tensor, steps: int) -> Tensor:
    """Whether each boundary lies below the grade, `(b, K - 1)`."""
    return grade.unsqueeze(1) > torch.arange(steps, device=grade.device)


def _cumulative_above(logits: Tensor, steps: int) -> Tensor:
    at = boundaries(logits)
    return torch.stack([functional.logsigmoid(at), functional.logsigmoid(-at)])


def _cumulative_classes(logits: Tensor, steps: int) -> Tensor:
    above, below = _cumulative_above(logits, steps)
    # sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - exp(b - a)): no digit is lost where both are near one
    gap = functional.softplus(logits[:, 1:])
    between = above[:, :-1] + below[:, 1:] + torch.log(-torch.expm1(-gap))
    return torch.cat([below[:, :1], between, above[:, -1:]], 1)


def _cumulative_logits(share: Tensor) -> Tensor:
    at = logit(_above(share))
    gap = (at[:, :-1] - at[:, 1:]).clamp(min=_LEAST)
    return torch.cat([at[:, :1], gap + torch.log(-torch.expm1(-gap))], 1)  # softplus inverted


def _corn_above(logits: Tensor, steps: int) -> Tensor:
    above = functional.logsigmoid(logits).cumsum(1)
    return torch.stack([above, _corn_classes(logits, steps)[:, :-1].logcumsumexp(1)])


def _corn_classes(logits: Tensor, steps: int) -> Tensor:
    passed = functional.pad(functional.logsigmoid(logits).cumsum(1), (1, 0))
    stopped = functional.pad(functional.logsigmoid(-logits), (0, 1))
    return passed + stopped


def _corn_logits(share: Tensor) -> Tensor:
    above = _above(share).clamp(min=_LEAST)
    return above.log() - share[:, :-1].clamp(min=_LEAST).log()


def _binomial(logits: Tensor, steps: int) -> Tensor:
    grade = torch.arange(steps + 1, dtype=logits.dtype, device=logits.device)
    ways = torch.lgamma(grade.new_tensor(steps + 1.0)) - torch.lgamma(grade + 1) - torch.lgamma(steps - grade + 1)
    return ways + grade * functional.logsigmoid(logits) + (steps - grade) * functional.logsigmoid(-logits)


def _binomial_above(logits: Tensor, steps: int) -> Tensor:
    share = _binomial(logits, steps)
    return torch.stack([share.flip(1).logcumsumexp(1).flip(1)[:, 1:], share.logcumsumexp(1)[:, :-1]])


def _binomial_logits(share: Tensor) -> Tensor:
    # the mean is what a binomial distribution is fitted by, and gives its own logit back
    up = share @ torch.arange(share.shape[1], dtype=share.dtype)
    down = share @ torch.arange(share.shape[1] - 1, -1, -1, dtype=share.dtype)
    return (up.clamp(min=_LEAST).log() - down.clamp(min=_LEAST).log()).unsqueeze(1)


def _above(share: Tensor) -> Tensor:
    """`P(y > k)` from class probabilities, `(b, K - 1)`."""
    return share.flip(1).cumsum(1).flip(1)[:, 1:].clamp(max=1)


METHODS = {
    "cumulative": Method(cumulative_losses, _cumulative_above, _cumulative_classes, _cumulative_logits),
    "corn": Method(corn_losses, _corn_above, _corn_classes, _corn_logits),
    "binomial": Method(binomial_losses, _binomial_above, _binomial, _binomial_logits),
}


class Ordinal(Classes):
    """Grades, from the lowest to the highest; the grade called is the median of the predicted distribution."""

    metric: ClassVar[str] = "qwk"
    ordered: ClassVar[bool] = True
    called_by: ClassVar[str] = "median grade"

    def __init__(
        self, column: str = "grade", classes: Sequence[str] = ("0", "1", "2"), method: str = "cumulative"
    ) -> None:
        """`classes` from the lowest to the highest; `method` as this module's docstring says."""
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

    def call_classes(self, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the index of the median grade, `(p,)`."""
        above = np.cumsum(probabilities[:, ::-1], axis=1)[:, -2::-1]  # (p, K - 1)
        return np.asarray((above > 0.5).sum(1), dtype=np.int64)

    def encode(self, table: pd.DataFrame) -> Tensor:
        """Places among the classes, `(p,)`."""
        return torch.from_numpy(self.labels(table))

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The method's loss, weighted by class where balanced; half precisions compute in float32."""
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return self._weighed(self.method.losses(wide, target, self.steps), target).to(logits.dtype)

    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """Quadratic weighted kappa, macro AUROC of the class probabilities, and the AUROC of each boundary."""
        wide, label = logits.double(), target.numpy()
        above, below = (part.numpy() for part in self.method.above(wide, self.steps))  # (p, K - 1)
        called, names = (above > below).sum(1), self.classes[1:]
        odds = levelled(above - below)
        shares = levelled(against_rest(self.method.classes(wide, self.steps).numpy()))
        return {
            "qwk": quadratic_kappa(called, label, len(self.classes), weight),
            "macro_auroc": macro_auroc(shares, label, weight),
        } | {f"auroc_from_{name}": auroc(odds[:, k], label > k, weight) for k, name in enumerate(names)}

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """`p_<class>` for each class, summing to one, and `expected`: the mean place among the classes, from zero."""
        share = self.method.classes(logits.double(), self.steps).exp()  # (p, K)
        expected = share @ torch.arange(len(self.classes), dtype=share.dtype)
        columns = {f"p_{name}": own for name, own in zip(self.classes, share.unbind(1), strict=True)}
        return columns | {"expected": expected}

    def recode(self, table: pd.DataFrame) -> Tensor:
        """The method's logits from `p_<class>`; a binomial has those of the same mean."""
        return self.method.logits(probabilities(table, [f"p_{name}" for name in self.classes]))

    @property
    def oracle_columns(self) -> tuple[str, ...]:
        """A class each: its probability."""
        return tuple(f"oracle_{name}" for name in self.classes)

    def from_oracle(self, scores: Tensor) -> Tensor:
        """The method's logits of these class probabilities `(p, K)`."""
        return self.method.logits(scores)

    def legend(self) -> str:
        """The probabilities, uncalibrated, and the grade they expect."""
        names = ", ".join(f"`p_{name}`" for name in self.classes)
        ends = f"from 0 ({self.classes[0]}) to {self.steps} ({self.classes[-1]})"
        shares = f"{names}: probabilities that sum to one. They are as the model gives them, before any calibration."
        return f"{shares} `expected` is the mean grade, {ends}."
