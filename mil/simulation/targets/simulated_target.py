"""The truth about simulated patients: a latent severity, the label it causes, and the share of tissue that shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from mil.errors import ConfigError
from mil.simulation.associations import Outcome
from mil.simulation.draws import Draws, Floats


@dataclass(frozen=True)
class Truth:
    """The truth about `p` patients."""

    severity: Floats
    """What drives label and covariates, `(p,)`."""
    shown: Floats
    """What of it the tiles show, `(p,)`."""
    shares: Floats
    """Of the tissue that can carry a biomarker, the share that carries each, `(p, biomarkers)`."""
    labels: pd.DataFrame
    """The target's columns, without label noise."""
    hidden: pd.DataFrame
    """What else is known of each patient and no reader of a cohort sees."""


class Target(Protocol):
    """The target of a simulated cohort."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of cohort.csv with the target."""

    @property
    def biomarkers(self) -> tuple[str, ...]:
        """Phenotypes of tumour that carry the signal."""

    def draw(self, patients: int, rng: Draws) -> Truth:
        """Draw the truth about patients."""

    def outcome(self, labels: pd.DataFrame) -> Outcome | None:
        """Return on what clinical variables can have an effect, from labels without noise; None for severity alone."""

    def oracle(self, shares: Floats) -> pd.DataFrame:
        """Return the scores of a perfect reader of the tiles from the biomarkers' shares `(p, biomarkers)`."""

    def flip(self, labels: pd.DataFrame, chosen: NDArray[np.intp], rng: Draws) -> pd.DataFrame:
        """Return the labels, wrong for the chosen patients."""


def class_names(names: Sequence[str], least: int, most: int) -> tuple[str, ...]:
    """Check that there are `least` to `most` different names, and return them."""
    classes = tuple(str(name) for name in names)
    if not least <= len(classes) <= most or len(set(classes)) < len(classes):
        expected = f"{least}" if least == most else f"{least} to {most}"
        raise ConfigError(f"classes: {list(classes)} found, {expected} different names expected")
    return classes


def proportion(name: str, value: float) -> None:
    """Check that a share lies between 0 and 1."""
    if not 0 < value < 1:
        raise ConfigError(f"{name}: {value} found, a number between 0 and 1 expected")


def discrimination(attainable: float) -> None:
    """Check that an AUROC or C-index is better than chance and attainable."""
    if not 0.5 <= attainable < 1:
        raise ConfigError(f"attainable: {attainable} found, a number from 0.5 to below 1 expected")


def normal_scores(values: Floats) -> Floats:
    """Return standard normal quantiles of the ranks of `values (p,)`; ties share theirs.

    What the tiles show is drawn from a normal distribution, so the order of the shares recovers it, although the shares
    were changed by cutting tissue into tiles.
    """
    return np.asarray(ndtri((rankdata(values) - 0.5) / len(values)))
