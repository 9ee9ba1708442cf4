"""Classes that exclude each other, binary or several."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr

from mil.errors import ConfigError
from mil.simulation.associations import ClassOutcome
from mil.simulation.draws import Draws, Floats, label_draw, latents
from mil.simulation.effect_sizes import binormal_separation, multiclass_separation, shares_of
from mil.simulation.targets.simulated_target import Truth, class_names, discrimination, proportion


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
        object.__setattr__(self, "classes", class_names(self.classes, least=2, most=2))
        proportion("prevalence", self.prevalence)
        discrimination(self.attainable)

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

    def outcome(self, labels: pd.DataFrame) -> ClassOutcome:
        return ClassOutcome({self.classes[1]: np.where(labels[self.column] == self.classes[1], 1.0, 0.0)})

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
        object.__setattr__(self, "classes", class_names(self.classes, least=2, most=20))
        object.__setattr__(self, "prevalence", tuple(float(share) for share in self.prevalence))
        for share in self.prevalence:
            proportion("prevalence", share)
        if len(self.prevalence) != len(self.classes) or abs(sum(self.prevalence) - 1) > 1e-3:
            expected = f"{len(self.classes)} shares that sum to 1"
            raise ConfigError(f"prevalence: {list(self.prevalence)} found, {expected} expected")
        discrimination(self.attainable)

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

    def outcome(self, labels: pd.DataFrame) -> ClassOutcome:
        return ClassOutcome({name: np.where(labels[self.column] == name, 1.0, 0.0) for name in self.classes[1:]})

    def oracle(self, shares: Floats) -> pd.DataFrame:
        every = np.column_stack([1 - shares.sum(axis=1), shares])
        return pd.DataFrame({f"oracle_{name}": every[:, k] for k, name in enumerate(self.classes)})

    def flip(self, labels: pd.DataFrame, chosen: NDArray[np.intp], rng: Draws) -> pd.DataFrame:
        return _other_class(labels, self.column, self.classes, chosen, rng)


def _other_class(
    labels: pd.DataFrame, column: str, classes: Sequence[str], chosen: NDArray[np.intp], rng: Draws
) -> pd.DataFrame:
    code = np.array([classes.index(name) for name in labels[column]])
    code[chosen] = (code[chosen] + rng.integers(1, len(classes), len(chosen))) % len(classes)
    return labels.assign(**{column: np.array(classes)[code]})
