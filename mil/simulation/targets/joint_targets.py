"""Several independent targets of one patient."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.errors import ConfigError
from mil.simulation.draws import Draws, Floats
from mil.simulation.targets.simulated_target import Target, Truth


@dataclass(frozen=True)
class Several:
    """Several targets, each with separate biomarkers in a part of the tumour.

    Args:
        targets: by name.
        missing: share of patients whom cohort.csv gives no value of a target; every patient keeps one target.
    """

    targets: Mapping[str, Target]
    missing: float = 0.0
    kinds: tuple[str, ...] = field(init=False)
    """The targets' classes: two cohorts that differ in nothing else are two."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", {str(name): target for name, target in self.targets.items()})
        object.__setattr__(self, "kinds", tuple(type(target).__qualname__ for target in self.targets.values()))
        if not self.targets:
            raise ConfigError("targets: none found, one or more expected")
        if len(set(self.columns)) < len(self.columns):
            raise ConfigError(f"targets: columns {', '.join(self.columns)} found, different ones expected")
        if not 0 <= self.missing < 1:
            raise ConfigError(f"missing: {self.missing} found, a number from 0 to below 1 expected")

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(column for target in self.targets.values() for column in target.columns)

    @property
    def biomarkers(self) -> tuple[str, ...]:
        return tuple(f"{name}:{biomarker}" for name, target in self.targets.items() for biomarker in target.biomarkers)

    def draw(self, patients: int, rng: Draws) -> Truth:
        drawn = {name: target.draw(patients, rng) for name, target in self.targets.items()}
        hidden = {f"severity_{name}": truth.severity for name, truth in drawn.items()}
        return Truth(
            severity=np.mean([truth.severity for truth in drawn.values()], axis=0),
            shown=np.mean([truth.shown for truth in drawn.values()], axis=0),
            shares=np.concatenate([truth.shares for truth in drawn.values()], axis=1) / len(drawn),
            labels=pd.concat([truth.labels for truth in drawn.values()], axis=1),
            hidden=pd.concat(
                [pd.DataFrame(hidden), *(truth.hidden.add_prefix(f"{name}_") for name, truth in drawn.items())], axis=1
            ),
        )

    def outcome(self, labels: pd.DataFrame) -> None:
        """Return None: clinical variables have effects on the severity."""

    def oracle(self, shares: Floats) -> pd.DataFrame:
        """Return the oracle of each target, with its name as prefix."""
        each = (target.oracle(columns).add_prefix(f"{name}_") for name, target, columns in self._each(shares))
        return pd.concat(list(each), axis=1)

    def _each(self, shares: Floats) -> Iterator[tuple[str, Target, Floats]]:
        start = 0
        for name, target in self.targets.items():
            end = start + len(target.biomarkers)
            yield name, target, np.minimum(shares[:, start:end] * len(self.targets), 1.0)
            start = end

    def flip(self, labels: pd.DataFrame, chosen: NDArray[np.intp], rng: Draws) -> pd.DataFrame:
        """Make every target of the chosen patients wrong; then leave some targets of all patients empty."""
        wrong = [target.flip(labels[list(target.columns)], chosen, rng) for target in self.targets.values()]
        if not self.missing:
            return pd.concat(wrong, axis=1)
        empty = rng.random((len(labels), len(wrong))) < self.missing
        empty[np.arange(len(labels)), rng.integers(0, len(wrong), len(labels))] &= ~empty.all(axis=1)
        tables = [labels.astype(object).where(~empty[:, [at] * labels.shape[1]], "") for at, labels in enumerate(wrong)]
        return pd.concat(tables, axis=1)
