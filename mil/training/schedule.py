"""Schedules of the learning rate: factors by step, `(step, steps) -> factor`."""

import math
from dataclasses import dataclass

from mil.errors import ConfigError


@dataclass(frozen=True)
class Cosine:
    """Rise linearly over the fraction `warmup` of all steps, then fall along a cosine to `floor`.

    I. Loshchilov, F. Hutter: SGDR. ICLR 2017, equation (5) with one period.

    Raises:
        ConfigError: One of the two is no fraction.
    """

    warmup: float = 0.05
    floor: float = 0.01

    def __post_init__(self) -> None:
        for name in ("warmup", "floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"schedule.{name}={getattr(self, name)}, expected a number from 0 to 1")

    def __call__(self, step: int, steps: int) -> float:
        """Return the factor at `step`, counted from zero, of `steps`."""
        rising = self.warmup * steps
        if step < rising:
            return (step + 1) / (rising + 1)
        share = min((step - rising) / max(steps - rising, 1), 1.0)
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True)
class Constant:
    """Keep the learning rate of the optimizer."""

    def __call__(self, step: int, steps: int) -> float:
        """Return one."""
        return 1.0
