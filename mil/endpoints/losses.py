"""Losses of classes: cross-entropy, focal and asymmetric, with labels smoothed where asked.

Focal loss: Lin et al., ICCV 2017, equation 4; asymmetric loss: Ridnik et al., ICCV 2021, section 2. Both are
stated for hard labels; a smoothed label `t` (Szegedy et al., CVPR 2016, section 7) takes `t` of what a positive would
cost and `1 - t` of a negative's. Lin's alpha is the endpoint's class weights.
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
    """A loss of classes, one value an item; half precisions compute in float32.

    Args:
        column: Named in errors.
        kind: One of `KINDS`; classes that exclude each other have no asymmetric loss.
        gamma: How much less an item counts the better it is predicted, zero is cross-entropy; of `asymmetric`, this is
            said of negatives. None: 2 for focal, 4 for asymmetric.
        gamma_positive: The same of positives, `asymmetric` only.
        margin: Negatives predicted below this probability cost nothing, `asymmetric` only.
        smoothing: Share of each label that is spread evenly over the classes.

    Raises:
        ConfigError: an unknown kind, or a parameter out of its range.
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

    def _refuse(self, name: str, found: object, expected: str) -> None:
        raise ConfigError(f"endpoint {self.column}: {name} {found!r}, expected {expected}")

    @property
    def focus(self) -> float:
        """The exponent in force."""
        return _FOCUS.get(self.kind, 0.0) if self.gamma is None else self.gamma

    def binary(self, logits: Tensor, target: Tensor) -> Tensor:
        """Losses of logits and targets in [0, 1] of one shape, each item a question of its own."""
        target = target.to(logits.dtype) * (1 - self.smoothing) + self.smoothing / 2
        if self.kind == "cross_entropy":
            return functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        positive_focus, margin = (self.gamma_positive, self.margin) if self.kind == "asymmetric" else (self.focus, 0.0)
        positive = _powered(functional.logsigmoid(-wide), positive_focus) * functional.softplus(-wide)
        negative = _negative(wide, self.focus, margin)
        return (target * positive + (1 - target) * negative).to(logits.dtype)

    def exclusive(self, logits: Tensor, target: Tensor) -> Tensor:
        """Losses `(b,)` of logits `(b, c)` whose classes exclude each other, of targets `(b,)`."""
        if self.kind == "cross_entropy":
            return functional.cross_entropy(logits, target, reduction="none", label_smoothing=self.smoothing)
        log_share = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(1)  # (b, c)
        hard = functional.one_hot(target, logits.shape[1]).to(log_share.dtype)
        label = hard * (1 - self.smoothing) + self.smoothing / logits.shape[1]
        # below one, the power's slope at zero is infinite: a class that is certain is held a rounding error off
        rest = torch.expm1(log_share).neg().clamp(min=torch.finfo(log_share.dtype).eps)
        return (label * rest**self.focus * -log_share).sum(1).to(logits.dtype)


def _powered(log_base: Tensor, exponent: float) -> Tensor:
    """`base^exponent` from the base's logarithm, with a gradient at zero."""
    return torch.exp(exponent * log_base)


def _negative(logits: Tensor, focus: float, margin: float) -> Tensor:
    """What a negative costs: of the probability less the margin, where that is positive."""
    if margin == 0:
        return _powered(functional.logsigmoid(logits), focus) * functional.softplus(logits)
    shifted = (logits.sigmoid() - margin).clamp(min=torch.finfo(logits.dtype).tiny)
    return shifted**focus * -torch.log1p(-shifted)
