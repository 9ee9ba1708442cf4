"""Classification losses: cross-entropy, focal and asymmetric, optionally with label smoothing.

Focal loss: Lin et al., ICCV 2017, equation 4; asymmetric loss: Ridnik et al., ICCV 2021, section 2. Both are defined
for hard labels; a smoothed label `t` (Szegedy et al., CVPR 2016, section 7) costs `t` times the loss of a positive and
`1 - t` times the loss of a negative. Lin's alpha corresponds to the endpoint's class weights.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mil.errors import ConfigError

KINDS = ("cross_entropy", "focal", "asymmetric")
_FOCUS = {"focal": 2.0, "asymmetric": 4.0}


@dataclass(frozen=True)
class ClassLoss:
    """A classification loss without reduction; half precisions compute in float32.

    Args:
        column: Target column, for error messages.
        kind: One of `kinds`.
        gamma: Focusing exponent: the larger, the less well-predicted items count; zero is cross-entropy. For
            `asymmetric` it applies to negatives. None: 2 for focal, 4 for asymmetric.
        gamma_positive: Focusing exponent of positives, for `asymmetric` only.
        margin: Negatives with a predicted probability below this cost nothing, for `asymmetric` only.
        smoothing: Fraction of each label that is spread evenly over the classes.
        kinds: Losses to choose from; exclusive classes have no asymmetric loss.

    Raises:
        ConfigError: the kind is unknown, or a parameter is out of its range.
    """

    column: str
    kind: str = "cross_entropy"
    gamma: float | None = None
    gamma_positive: float = 0.0
    margin: float = 0.05
    smoothing: float = 0.0
    kinds: tuple[str, ...] = KINDS

    def __post_init__(self) -> None:
        if self.kind not in self.kinds:
            self._refuse("loss", self.kind, f"one of {', '.join(self.kinds)}")
        if self.gamma is not None and (self.kind not in _FOCUS or not 0 <= self.gamma < float("inf")):
            self._refuse("gamma", self.gamma, "zero or more, with loss=focal or asymmetric")
        if not 0 <= self.gamma_positive < float("inf"):
            self._refuse("gamma_positive", self.gamma_positive, "zero or more")
        for name in ("margin", "smoothing"):
            if not 0 <= getattr(self, name) < 1:
                self._refuse(name, getattr(self, name), "a number from 0 to below 1")

    def _refuse(self, name: str, value: object, expected: str) -> None:
        raise ConfigError(f"endpoint {self.column}: {name} {value!r}, expected {expected}")

    @property
    def focus(self) -> float:
        """The focusing exponent: `gamma`, or the default of the loss."""
        return _FOCUS.get(self.kind, 0.0) if self.gamma is None else self.gamma

    def binary(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each yes-or-no item; logits and targets in [0, 1] have the same shape."""
        target = target.to(logits.dtype) * (1 - self.smoothing) + self.smoothing / 2
        if self.kind == "cross_entropy":
            return functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        positive_focus, margin = (self.gamma_positive, self.margin) if self.kind == "asymmetric" else (self.focus, 0.0)
        positive = _powered(functional.logsigmoid(-wide), positive_focus) * functional.softplus(-wide)
        negative = _negative(wide, self.focus, margin)
        return (target * positive + (1 - target) * negative).to(logits.dtype)

    def exclusive(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each bag `(b,)` for exclusive classes, of logits `(b, c)` and class indices `(b,)`."""
        if self.kind == "cross_entropy":
            return functional.cross_entropy(logits, target, reduction="none", label_smoothing=self.smoothing)
        log_probability = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(1)  # (b, c)
        hard = functional.one_hot(target, logits.shape[1]).to(log_probability.dtype)
        label = hard * (1 - self.smoothing) + self.smoothing / logits.shape[1]
        # x**focus with focus < 1 has an infinite slope at x = 0, so 1 - p is at least one rounding error
        complement = torch.expm1(log_probability).neg().clamp(min=torch.finfo(log_probability.dtype).eps)
        return (label * complement**self.focus * -log_probability).sum(1).to(logits.dtype)


def _powered(log_base: Tensor, exponent: float) -> Tensor:
    """Return `base ** exponent` from the logarithm of the base; its gradient is finite where the base is zero."""
    return torch.exp(exponent * log_base)


def _negative(logits: Tensor, focus: float, margin: float) -> Tensor:
    """Return the loss of negatives: of the probability minus the margin, where that is positive."""
    if margin == 0:
        return _powered(functional.logsigmoid(logits), focus) * functional.softplus(logits)
    shifted = (logits.sigmoid() - margin).clamp(min=torch.finfo(logits.dtype).tiny)
    return shifted**focus * -torch.log1p(-shifted)
