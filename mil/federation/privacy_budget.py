"""Clipping and noise that bound what the weights tell of a single patient, and the epsilon that they give."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mil import files
from mil.endpoints.endpoint import Endpoint
from mil.errors import ConfigError
from mil.federation.federation_options import FederationOptions
from mil.federation.renyi_accountant import epsilon
from mil.study.run_config import RunConfig

Floats = NDArray[np.float64]
LEDGER = "privacy.json"
"""File in which a hospital counts, by fold, how often a gradient with noise has left it."""


@dataclass
class NoisyGradient:
    """How one hospital draws its patients and adds noise, and how often it did.

    Attributes:
        clip: Norm to which each patient's gradient is clipped.
        noise: Standard deviation in multiples of it, of the total over hospitals.
        secure: Whether the coordinator sees totals only. Each hospital then adds its part of the noise; else all of it.
        ledger: File of the counts, which survive a restart; None keeps none.
        rng: Secret: who was drawn and what was added must not be known to others.
    """

    clip: float
    noise: float
    secure: bool
    ledger: Path | None = None
    rng: np.random.Generator = field(default_factory=np.random.default_rng)
    _counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.ledger is not None and self.ledger.is_file():
            self._counts = {str(fold): int(count) for fold, count in files.read_json(self.ledger).items()}

    def drawn(self, bags: int, steps: int) -> list[int]:
        """Return the bags of a step: each with the same probability and independently, so that an epoch has all once.

        The number drawn differs from step to step and may be zero.
        """
        return [int(bag) for bag in np.flatnonzero(self.rng.random(bags) < 1 / steps)]

    def added(self, gradient: Floats, amount: float, sites: int) -> Floats:
        """Return a sum of clipped gradients, each divided by `amount`, with noise.

        Args:
            gradient: `(parameters,)`.
            amount: What each gradient was divided by.
            sites: Hospitals that take part in the round.
        """
        share = 1 / np.sqrt(sites) if self.secure else 1.0
        noise = self.rng.normal(0, self.noise * self.clip * share / amount, len(gradient))
        return np.asarray(gradient + noise)

    def count(self, fold: int) -> int:
        """Count one more release of a fold before it leaves, and return how many there were."""
        self._counts[str(fold)] = self._counts.get(str(fold), 0) + 1
        if self.ledger is not None:
            files.write_json(self.ledger, self._counts)
        return self._counts[str(fold)]


def noise_of(options: FederationOptions, ledger: Path | None) -> NoisyGradient | None:
    """Return how a hospital adds noise; None where it adds none."""
    if options.clip is None or options.noise is None:
        return None
    return NoisyGradient(options.clip, options.noise, options.secure, ledger)


def budget(options: FederationOptions, steps_per_epoch: int, released: int) -> float | None:
    """Return epsilon of so many gradients with noise; None without noise."""
    if options.noise is None:
        return None
    return epsilon(1 / steps_per_epoch, options.noise, released, options.delta)


def check_noise(
    config: RunConfig, options: FederationOptions, endpoint: Endpoint, quantities: Mapping[str, Mapping[str, int]]
) -> None:
    """Check that clipping and noise bound what one patient adds.

    Args:
        config: Of the run.
        options: Of the federation.
        endpoint: What is predicted.
        quantities: Patients of each site by role.

    Raises:
        ConfigError: They do not.
    """
    if options.clip is None:
        return
    if config.data.bag != "patient":
        raise ConfigError(
            "federation.clip: a patient with several bags adds several gradients, expected data.bag=patient"
        )
    if not endpoint.alone:
        raise ConfigError(
            f"federation.clip: endpoint {', '.join(endpoint.columns)} compares patients, so that one patient changes "
            "the gradients of others; expected an endpoint without a partial likelihood"
        )
    without = [site for site, roles in quantities.items() if not roles.get("select")]
    if options.noise is not None and without:
        raise ConfigError(
            f"federation.noise: site {without[0]} has no patients of model selection, so that the loss of its training "
            "patients would leave it without noise; expected split.select above 0"
        )
