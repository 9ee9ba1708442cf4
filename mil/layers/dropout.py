"""Dropout with a mask that is cheap to draw on a CPU."""

import numpy as np
import torch
from torch import Tensor, nn


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
        return values * self._mask(values)

    def _mask(self, values: Tensor) -> Tensor:
        seed = int(torch.randint(2**63 - 1, ()))
        generator = np.random.Generator(np.random.SFC64(seed))
        drawn = generator.integers(0, 2**64, -(-values.numel() // 8), dtype=np.uint64).view(np.uint8)[: values.numel()]
        # numpy compares bytes and torch converts uint8 with vector instructions; the reverse is ten times slower
        survives = (drawn >= self.cut).view(np.uint8)
        if self.remainder:
            undecided = np.flatnonzero(drawn == self.cut)
            survives[undecided] = generator.random(len(undecided)) >= self.remainder
        mask = torch.from_numpy(survives).view(values.shape).to(values.dtype)
        return mask.mul_(1 / (1 - self.rate))

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"rate={self.rate}"
