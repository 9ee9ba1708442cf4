"""Learning rates over a run, as factors of the optimiser's own."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Cosine:
    """Rises linearly over the first `warmup` of all steps, then falls along a cosine to `floor`.

    I. Loshchilov, F. Hutter: SGDR. ICLR 2017, equation (5) with one period.
    """

    warmup: float = 0.05
    floor: float = 0.01

    def __call__(self, step: int, steps: int) -> float:
        """The factor at `step` of `steps`, both counted from zero."""
        rising = self.warmup * steps
        if step < rising:
            return (step + 1) / (rising + 1)
        share = min((step - rising) / max(steps - rising, 1), 1.0)
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True)
class Constant:
    """The optimiser's own learning rate throughout."""

    def __call__(self, step: int, steps: int) -> float:
        """One."""
        return 1.0
