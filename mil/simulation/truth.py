"""What is true of simulated patients: a latent severity, the label it causes, and the tissue share that shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from mil.errors import ConfigError
from mil.simulation.calibration import (
    Hazard,
    binormal_separation,
    multiclass_separation,
    proportional_hazard,
    sample_c,
    shares_of,
)
from mil.simulation.draws import SPREAD, Draws, Floats, label_draw, latents, stratified, told_apart

_TRIES = 64
_TRIED = 2000  # patients from whom on luck is small and a second try not worth its time


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
    """What a simulated cohort is about."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of cohort.csv that hold the target."""

    @property
    def biomarkers(self) -> tuple[str, ...]:
        """Phenotypes of tumour that carry the signal."""

    def draw(self, patients: int, rng: Draws) -> Truth:
        """The truth about so many patients."""

    def oracle(self, shares: Floats) -> pd.DataFrame:
        """Scores of a perfect reader of the tiles from the biomarkers' shares `(p, biomarkers)`."""

    def flip(self, labels: pd.DataFrame, chosen: NDArray[np.intp], rng: Draws) -> pd.DataFrame:
        """The labels, wrong for the chosen patients."""


@dataclass(frozen=True)
class Binary:
    """One class against another; the second is the positive one.

    Args:
        column: the label's column.
        classes: the two labels, negative first.
        prevalence: share of positive patients.
        attainable: AUROC of a perfect reader of the tiles, by a binormal model.
    """

    column: str
    classes: Sequence[str]
    prevalence: float
    attainable: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", _classes(self.classes, least=2, most=2))
        _proportion("prevalence", self.prevalence)
        _discrimination(self.attainable)

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def biomarkers(self) -> tuple[str, ...]:
        return ("biomarker",)

    def draw(self, patients: int, rng: Draws) -> Truth:
        label = label_draw(np.array([1 - self.prevalence, self.prevalence]), patients, rng)
        distance = binormal_separation(self.attainable)
        shown, severity = latents(distance * label[:, None].astype(np.float64), label, rng)
        return Truth(
            severity=severity[:, 0],
            shown=shown[:, 0],
            shares=np.asarray(ndtr(shown - distance / 2)),
            labels=pd.DataFrame({self.column: np.array(self.classes)[label]}),
            hidden=pd.DataFrame(index=range(patients)),
        )

    def oracle(self, shares: Floats) -> pd.DataFrame:
        return pd.DataFrame({"oracle": shares[:, 0]})

    def flip(self, labels: pd.DataFrame, chosen: NDArray[np.intp], rng: Draws) -> pd.DataFrame:
        return _other_class(labels, self.column, self.classes, chosen, rng)


@dataclass(frozen=True)
class Multiclass:
    """Several classes: each but the first, the reference, has a biomarker phenotype of its own.

    Args:
        column: the label's column.
        classes: the labels, the reference first.
        prevalence: share of each class; they sum to one.
        attainable: macro one-vs-rest AUROC of a perfect reader of the tiles.
    """

    column: str
    classes: Sequence[str]
    prevalence: Sequence[float]
    attainable: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", _classes(self.classes, least=2, most=20))
        object.__setattr__(self, "prevalence", tuple(float(share) for share in self.prevalence))
        for share in self.prevalence:
            _proportion("prevalence", share)
        if len(self.prevalence) != len(self.classes) or abs(sum(self.prevalence) - 1) > 1e-3:
            wanted = f"{len(self.classes)} shares that sum to 1"
            raise ConfigError(f"prevalence: {list(self.prevalence)} found, {wanted} expected")
        _discrimination(self.attainable)

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def biomarkers(self) -> tuple[str, ...]:
        return tuple(f"biomarker:{name}" for name in self.classes[1:])

    def draw(self, patients: int, rng: Draws) -> Truth:
        if patients < 2 * len(self.classes):
            raise ConfigError(
                f"patients: {patients} found, at least two for each of {len(self.classes)} classes expected"
            )
        prevalence = np.array(self.prevalence) / sum(self.prevalence)
        label = label_draw(prevalence, patients, rng)
        distance = multiclass_separation(self.attainable, prevalence)
        shown, severity = latents(distance * np.eye(len(prevalence))[label], label, rng)
        return Truth(
            severity=-severity[:, 0],
            shown=-shown[:, 0],
            shares=shares_of(shown)[:, 1:],
            labels=pd.DataFrame({self.column: np.array(self.classes)[label]}),
            hidden=pd.DataFrame({f"severity_{name}": severity[:, k] for k, name in enumerate(self.classes)}),
        )

    def oracle(self, shares: Floats) -> pd.DataFrame:
        every = np.column_stack([1 - shares.sum(axis=1), shares])
        return pd.DataFrame({f"oracle_{name}": every[:, k] for k, name in enumerate(self.classes)})

    def flip(self, labels: pd.DataFrame, chosen: NDArray[np.intp], rng: Draws) -> pd.DataFrame:
        return _other_class(labels, self.column, self.classes, chosen, rng)


@dataclass(frozen=True)
class Survival:
    """Time to an event, by a Weibull proportional-hazards model with administrative and random censoring.

    Args:
        time: the column of follow-up times, months.
        event: the column of the event indicator, 0 or 1.
        event_rate: share of patients whose event is seen.
        attainable: Harrell's C of a perfect reader of the tiles.
        horizon: end of follow-up, months.
        shape: the Weibull distribution's; above one the hazard rises.
    """

    time: str
    event: str
    event_rate: float
    attainable: float
    horizon: float = 60.0
    shape: float = 1.2

    def __post_init__(self) -> None:
        _proportion("event_rate", self.event_rate)
        _discrimination(self.attainable)
        for name, value in (("horizon", self.horizon), ("shape", self.shape)):
            if not 0 < value < np.inf:
                raise ConfigError(f"{name}: {value} found, a positive number expected")

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.time, self.event)

    @property
    def biomarkers(self) -> tuple[str, ...]:
        return ("biomarker",)

    def draw(self, patients: int, rng: Draws) -> Truth:
        """The truth about so many patients.

        Few patients have few events, and the C-index of a perfect reader would go far up or down by luck. Of several
        draws the one is kept whose C-index is next to the population's.
        """
        hazard = proportional_hazard(self.attainable, self.event_rate, self.horizon, self.shape)
        draws = (self._draw(hazard, patients, rng) for _ in range(_TRIES if patients < _TRIED else 1))
        return min(draws, key=self._luck)

    def _draw(self, hazard: Hazard, patients: int, rng: Draws) -> Truth:
        uniform = stratified(patients, 4, rng)
        shown, severity = told_apart(ndtri(uniform[:, 0]), ndtri(uniform[:, 1]))
        died = _death(hazard, severity, uniform[:, 2])
        left = np.minimum(hazard.horizon, -np.log(uniform[:, 3]) / max(hazard.loss, 1e-12))
        time = np.clip(np.round(np.minimum(died, left), 2), 0.01, None)
        return Truth(
            severity=severity,
            shown=shown,
            shares=ndtr(shown / SPREAD)[:, None],
            labels=pd.DataFrame({self.time: time, self.event: (died <= left).astype(np.int64)}),
            hidden=pd.DataFrame({f"uncensored_{self.time}": np.round(died, 2)}),
        )

    def _luck(self, truth: Truth) -> float:
        time, event = (truth.labels[column].to_numpy() for column in self.columns)
        return abs(sample_c(time, event, truth.shown) - self.attainable)

    def oracle(self, shares: Floats) -> pd.DataFrame:
        return pd.DataFrame({"oracle": shares[:, 0]})

    def flip(self, labels: pd.DataFrame, chosen: NDArray[np.intp], rng: Draws) -> pd.DataFrame:
        """The chosen patients hand their time and event on to one another."""
        wrong = labels.copy()
        wrong.iloc[chosen] = labels.iloc[np.roll(chosen, 1)].to_numpy()
        return wrong.astype(labels.dtypes)


def _death(hazard: Hazard, severity: Floats, uniform: Floats) -> Floats:
    """Times of death `(p,)` by inversion of the survival function."""
    cumulative = -np.log(uniform) * np.exp(-hazard.slope * severity)
    return np.asarray(hazard.scale * cumulative ** (1 / hazard.shape))


def _other_class(
    labels: pd.DataFrame, column: str, classes: Sequence[str], chosen: NDArray[np.intp], rng: Draws
) -> pd.DataFrame:
    code = np.array([classes.index(name) for name in labels[column]])
    code[chosen] = (code[chosen] + rng.integers(1, len(classes), len(chosen))) % len(classes)
    return labels.assign(**{column: np.array(classes)[code]})


def _classes(names: Sequence[str], least: int, most: int) -> tuple[str, ...]:
    found = tuple(str(name) for name in names)
    if not least <= len(found) <= most or len(set(found)) < len(found):
        expected = f"{least}" if least == most else f"{least} to {most}"
        raise ConfigError(f"classes: {list(found)} found, {expected} different names expected")
    return found


def _proportion(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"{name}: {value} found, a number between 0 and 1 expected")


def _discrimination(attainable: float) -> None:
    if not 0.5 <= attainable < 1:
        raise ConfigError(f"attainable: {attainable} found, a number from 0.5 to below 1 expected")
