"""What a coordinator can check of a total whose parts it does not see: that no step is larger than it may be.

A total tells of its parts only that some of them are too large, not whose they are. Two checks, masked or not:

- `federation.norm_bound`: each site clips its part before it is masked (`clipped`), so that the total of honest sites
  is within the bound. This is the bound of Sun et al., Can you really backdoor federated learning?, arXiv:1911.07963,
  for a sum; it holds from the first step on.
- `federation.norm_factor`: no total is so many times as large as the largest before it.

A site that lies within the bound, in size or in direction, is not recognised.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mil.federation.federation_options import FederationOptions

Floats = NDArray[np.float64]
SLACK = 1e-6
"""Relative; a clipped vector is as long as its bound but for rounding."""
HIDDEN = "masks hide whose part it is"
SHOWN = "the part of each site was within its bound"


def clipped(values: Floats, bound: float | None) -> Floats:
    """Return a vector, made shorter where its norm is beyond a bound; None does not clip."""
    norm = float(np.linalg.norm(values))
    return values if bound is None or norm <= bound else values * (bound / norm)


def step_norm(totals: Mapping[str, Floats]) -> float | None:
    """Return the norm of the mean gradient, or of the mean change of weights, in a total; None for other sums."""
    if "gradient" in totals:
        return float(np.linalg.norm(totals["gradient"]))
    if "change" in totals:
        return float(np.linalg.norm(totals["change"])) / max(float(totals["bags"][0]), 1e-12)
    return None


class NormGuard:
    """Remembers the largest step, and checks the next ones."""

    def __init__(self, options: FederationOptions) -> None:
        """Prepare to check the totals of a training."""
        self.options, self.largest = options, 0.0

    def refusal(self, kind: str, totals: Mapping[str, Floats]) -> str | None:
        """Return why a total may not be used; None where it may, and is remembered."""
        norm, bound = step_norm(totals), self.options.norm_bound
        if norm is None:
            return None
        ending = HIDDEN if self.options.secure else SHOWN
        if bound is not None and not norm <= bound * (1 + SLACK):
            return (
                f"{kind}: the mean over all sites has norm {norm:.3g}, beyond that of sites that clip their parts to "
                f"{bound:g} (federation.norm_bound); {ending}"
            )
        factor = self.options.norm_factor
        if self.largest > 0 and not norm <= factor * self.largest:
            return (
                f"{kind}: the mean over all sites is {norm / self.largest:.3g} times as large as the largest before, "
                f"expected {factor:g} times or less (federation.norm_factor); {ending}"
            )
        self.largest = max(self.largest, norm)
        return None
