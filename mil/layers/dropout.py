"""Dropout with a mask that is cheap to draw on a CPU."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers by their bytes. A bitwise product with a mask takes a third of the time of a product of numbers."""


def seed_draws(seed: int, device: torch.device) -> None:
    """Seed torch's draws on a device, as `torch.manual_seed`.

    That also seeds devices that the process does not use, and notes for each of them where it was called from, which
    takes a twentieth of a step on small bags.

    Args:
        seed: Not negative, below `2**63`.
        device: Where the model is.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


class Dropout(nn.Module):
    """Inverted dropout (Srivastava et al. 2014) with masks from random bytes.

    On CPU `nn.Dropout` draws one random number for each element, which takes half of a training step of attention MIL.
    Here eight elements share one 64-bit number, with a byte each. A byte below `256 rate` drops its element; at the
    byte that this number cuts, one in 256, a second draw decides, so that every rate is exact. The seed of torch
    determines the draws. On other devices torch's fused kernel is faster and is used.
    """

    def __init__(self, rate: float = 0.25) -> None:
        """Create the layer; `rate` is the fraction of values set to zero, in [0, 1)."""
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"dropout rate is {rate}, expected a number in [0, 1)")
        self.rate = rate
        self.cut, self.remainder = int(rate * 256), rate * 256 % 1

    def forward(self, values: Tensor) -> Tensor:
        """Drop values in training; return them unchanged in evaluation."""
        if not self.training or self.rate == 0:
            return values
        if values.device.type != "cpu":
            return nn.functional.dropout(values, self.rate)
        dropped: Tensor = _Dropped.apply(values, self._mask(values), 1 / (1 - self.rate))  # type: ignore[no-untyped-call]
        return dropped

    def of_relu(self, values: Tensor) -> Tensor:
        """Return `self(relu(values))`; in training on a CPU the gradient needs neither the mask nor the values."""
        if not self.training or self.rate == 0 or values.device.type != "cpu":
            return self.forward(values.relu())
        dropped: Tensor = _DroppedRelu.apply(values, self._mask(values), 1 / (1 - self.rate))  # type: ignore[no-untyped-call]
        return dropped

    def _mask(self, values: Tensor) -> Tensor:
        """Return 0 for values that are dropped and -1, all bits set, for others, as integers of the values' size."""
        seed = int(torch.randint(2**63 - 1, ()))
        generator = np.random.Generator(np.random.SFC64(seed))
        drawn = generator.integers(0, 2**64, -(-values.numel() // 8), dtype=np.uint64).view(np.uint8)[: values.numel()]
        # numpy compares bytes and torch converts uint8 with vector instructions; the reverse is ten times slower
        survives = (drawn >= self.cut).view(np.uint8)
        if self.remainder:
            undecided = np.flatnonzero(drawn == self.cut)
            survives[undecided] = generator.random(len(undecided)) >= self.remainder
        mask = torch.from_numpy(survives.view(np.int8)).view(values.shape)
        return mask.neg_().to(_BITS[values.element_size()])

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"rate={self.rate}"


class _Dropped(torch.autograd.Function):
    """Values times a scale where the bits of a mask are set, zero elsewhere."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return _masked(values, mask).mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return _masked(pull, mask).mul_(ctx.scale), None, None


class _DroppedRelu(torch.autograd.Function):
    """The same of positive values; the result tells where the gradient passes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, mask: Tensor, scale: float) -> Tensor:
        result = _masked(values.relu(), mask).mul_(scale)
        ctx.save_for_backward(result)
        ctx.scale = scale
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor, None, None]:
        (result,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(pull, result, 0).mul_(ctx.scale), None, None


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    return (values.view(mask.dtype) & mask).view(values.dtype)
