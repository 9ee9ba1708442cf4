"""P values of several tests at once."""

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p values adjusted by Holm's step-down method; None stays None and does not count as a test.

    References:
        Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    tested = sorted((p, position) for position, p in enumerate(p_values) if p is not None and np.isfinite(p))
    adjusted, highest = list[float | None]([None] * len(p_values)), 0.0
    for rank, (p, position) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p))
        adjusted[position] = highest
    return adjusted
