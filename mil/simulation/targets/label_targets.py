"""Several binary labels of one patient, some of them missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr

from mil.errors import ConfigError
from mil.simulation.associations import ClassOutcome
from mil.simulation.draws import Draws, Floats, label_draw, latents
from mil.simulation.effect_sizes import binormal_separation
from mil.simulation.targets.simulated_target import Truth, class_names, discrimination, proportion


@dataclass(frozen=True)
class Multilabel:
    """Independent labels, each with a separate biomarker phenotype in a part of the tumour.

    Args:
        names: the labels' columns.
        classes: the two words of each, negative first: a pair for all labels or one for each.
        prevalence: share of positive patients, one for all labels or one for each.
        attainable: AUROC of a perfect reader of the tiles, one for all labels or one for each.
        missing: share of the labels that cohort.csv leaves empty; every patient keeps one.
    """

    names: Sequence[str]
    classes: Sequence[str] | Sequence[Sequence[str]]
    prevalence: float | Sequence[float]
    attainable: float | Sequence[float]
    missing: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", class_names(self.names, least=1, most=20))
        shared = all(not isinstance(word, list | tuple) for word in self.classes)
        pairs: list[Any] = [self.classes] * len(self.names) if shared else list(self.classes)
        object.__setattr__(self, "classes", tuple(class_names(pair, least=2, most=2) for pair in pairs))
        for name in ("prevalence", "attainable"):
            object.__setattr__(self, name, self._each(getattr(self, name)))
        for name in ("classes", "prevalence", "attainable"):
            if len(getattr(self, name)) != len(self.names):
                raise ConfigError(
                    f"{name}: {len(getattr(self, name))} found, one for all or {len(self.names)} expected"
                )
        for label in self._labels():
            proportion("prevalence", label.prevalence)
            discrimination(label.attainable)
        if not 0 <= self.missing < 1:
            raise ConfigError(f"missing: {self.missing} found, a number from 0 to below 1 expected")

    def _each(self, value: float | Sequence[float]) -> tuple[float, ...]:
        values = np.ravel(np.asarray(value, dtype=np.float64))
        return tuple(map(float, np.repeat(values, len(self.names)) if len(values) == 1 else values))

    def _labels(self) -> "list[_Label]":
        columns = (self.names, self.classes, self.prevalence, self.attainable)  # sequences since __post_init__
        return [_Label(*row) for row in zip(*cast("tuple[Sequence[Any], ...]", columns), strict=True)]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.names)

    @property
    def biomarkers(self) -> tuple[str, ...]:
        return tuple(f"biomarker:{name}" for name in self.names)

    def draw(self, patients: int, rng: Draws) -> Truth:
        drawn = [label.draw(patients, rng) for label in self._labels()]
        severity, shown, shares = (np.column_stack([draw[1][at] for draw in drawn]) for at in range(3))  # (p, k) each
        return Truth(
            severity=severity.mean(axis=1),
            shown=shown.mean(axis=1),
            shares=shares / len(self.names),
            labels=pd.DataFrame({name: draw[0] for name, draw in zip(self.names, drawn, strict=True)}),
            hidden=pd.DataFrame({f"severity_{name}": severity[:, k] for k, name in enumerate(self.names)}),
        )

    def outcome(self, labels: pd.DataFrame) -> ClassOutcome:
        positive = [pair[1] for pair in self.classes]
        return ClassOutcome(
            {name: np.where(labels[name] == word, 1.0, 0.0) for name, word in zip(self.names, positive, strict=True)}
        )

    def oracle(self, shares: Floats) -> pd.DataFrame:
        return pd.DataFrame({f"oracle_{name}": shares[:, k] for k, name in enumerate(self.names)})

    def flip(self, labels: pd.DataFrame, chosen: NDArray[np.intp], rng: Draws) -> pd.DataFrame:
        """Make one label of each chosen patient wrong; then leave some labels of all patients empty."""
        cells = labels.to_numpy(dtype=object, copy=True)
        for row, at in zip(chosen, rng.integers(0, len(self.names), len(chosen)), strict=True):
            negative, positive = self.classes[at]
            cells[row, at] = negative if cells[row, at] == positive else positive
        empty = rng.random(cells.shape) < self.missing
        empty[np.arange(len(cells)), rng.integers(0, len(self.names), len(cells))] &= ~empty.all(axis=1)
        cells[empty] = ""
        return pd.DataFrame(cells, columns=labels.columns)


@dataclass(frozen=True)
class _Label:
    name: str
    classes: tuple[str, str]
    prevalence: float
    attainable: float

    def draw(self, patients: int, rng: Draws) -> tuple[NDArray[np.str_], tuple[Floats, Floats, Floats]]:
        """Draw words, severity, what the tiles show of it, and its share of the label's part of the tumour, `(p,)`."""
        label = label_draw(np.array([1 - self.prevalence, self.prevalence]), patients, rng)
        distance = binormal_separation(self.attainable)
        shown, severity = latents(distance * label[:, None].astype(np.float64), label, rng)
        # about the classes' middle: labels that are easy to tell are no more of the patient's severity than others
        middle = distance / 2
        severity, shown = severity[:, 0] - middle, shown[:, 0] - middle
        return np.array(self.classes)[label], (severity, shown, np.asarray(ndtr(shown)))
