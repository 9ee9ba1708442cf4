"""Ordered grades: intervals of a scale that depends on severity."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from mil.errors import ConfigError
from mil.simulation.associations import ClassOutcome
from mil.simulation.draws import SPREAD, Draws, Floats, label_draw, noisy_view, stratified
from mil.simulation.targets.event_targets import most_typical
from mil.simulation.targets.simulated_target import Truth, class_names, normal_scores, proportion
from mil.stats.classification_metrics import auroc, macro_auroc
from mil.stats.kappa import quadratic_kappa

MEASURES = ("qwk", "macro_auroc")
_READ = 2000  # patients of a population's quadrature


@dataclass(frozen=True)
class Ordinal:
    """A cumulative probit model of the severity: each grade is a part of a normal scale.

    Args:
        column: the grade's column.
        classes: the grades, lowest first.
        prevalence: share of each; they sum to one.
        attainable: what a perfect reader of the tiles reaches, who calls the median of what it knows.
        measure: `qwk`, quadratic weighted kappa, or `macro_auroc`, of one grade against the rest.
    """

    column: str
    classes: Sequence[str]
    prevalence: Sequence[float]
    attainable: float
    measure: str = "qwk"

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", class_names(self.classes, least=2, most=20))
        object.__setattr__(self, "prevalence", tuple(float(share) for share in self.prevalence))
        for share in self.prevalence:
            proportion("prevalence", share)
        if len(self.prevalence) != len(self.classes) or abs(sum(self.prevalence) - 1) > 1e-3:
            expected = f"{len(self.classes)} shares that sum to 1"
            raise ConfigError(f"prevalence: {list(self.prevalence)} found, {expected} expected")
        if self.measure not in MEASURES:
            raise ConfigError(f"measure: {self.measure!r} found, one of {', '.join(MEASURES)} expected")
        proportion("attainable", self.attainable)

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def biomarkers(self) -> tuple[str, ...]:
        return ("biomarker",)

    @cached_property
    def correlation(self) -> float:
        """Return the correlation of the scale with what the tiles show.

        Raises:
            ConfigError: The attainable value exceeds that of a scale that equals the severity.
        """
        best = self._population(1 / SPREAD)
        if self.attainable > best:
            raise ConfigError(f"attainable: {self.attainable} cannot be reached with these grades, at most {best:.3f}")
        if self.attainable <= self._population(1e-3):
            return 0.0
        return float(brentq(lambda x: self._population(x) - self.attainable, 1e-3, 1 / SPREAD, xtol=1e-4))

    def _population(self, correlation: float) -> float:
        """Return the measure in the population, by quadrature over what the tiles show."""
        share = self._posterior(np.asarray(ndtri((np.arange(_READ) + 0.5) / _READ)), correlation)  # (n, c)
        grades = share.shape[1]
        if self.measure == "qwk":
            called, true = np.repeat(_median(share), grades), np.tile(np.arange(grades), _READ)
            return float(quadratic_kappa(called, true, grades, share.reshape(1, -1))[0])
        positive = np.repeat([True, False], _READ)
        areas = [auroc(np.tile(level, 2), positive, np.concatenate([level, 1 - level])[None]) for level in share.T]
        return float(np.mean(areas))

    def _posterior(self, shown: Floats, correlation: float) -> Floats:
        """Return the probability of each grade, `(p, c)`, given what the tiles show in standard deviations `(p,)`."""
        cuts = ndtri(np.cumsum(self.prevalence)[:-1] / sum(self.prevalence))
        below = ndtr((cuts - correlation * shown[:, None]) / np.sqrt(1 - correlation**2))
        return np.diff(below, axis=1, prepend=0.0, append=1.0)

    def draw(self, patients: int, rng: Draws) -> Truth:
        correlation = self.correlation
        return most_typical(lambda: self._draw(correlation, patients, rng), self._luck, patients)

    def _draw(self, correlation: float, patients: int, rng: Draws) -> Truth:
        normal = ndtri(stratified(patients, 3, rng))
        shown, severity = noisy_view(normal[:, 0], normal[:, 1])
        weight = min(correlation * SPREAD, 1.0)
        scale = weight * severity + np.sqrt(1 - weight**2) * normal[:, 2]
        grade = np.sort(label_draw(np.array(self.prevalence) / sum(self.prevalence), patients, rng))
        return Truth(
            severity=severity,
            shown=shown,
            shares=ndtr(shown / SPREAD)[:, None],
            labels=pd.DataFrame({self.column: np.array(self.classes)[grade[scale.argsort().argsort()]]}),
            hidden=pd.DataFrame(index=range(patients)),
        )

    def _luck(self, truth: Truth) -> float:
        share = self.oracle(truth.shares).to_numpy()
        label = self._grades(truth.labels)
        if self.measure == "qwk":
            return abs(float(quadratic_kappa(_median(share), label, len(self.classes))) - self.attainable)
        return abs(float(macro_auroc(share, label)) - self.attainable)

    def _grades(self, labels: pd.DataFrame) -> NDArray[np.int64]:
        return np.array([self.classes.index(name) for name in labels[self.column]], dtype=np.int64)

    def outcome(self, labels: pd.DataFrame) -> ClassOutcome:
        """Return the number of steps above the lowest grade: effects are odds ratios of neighbouring grades."""
        return ClassOutcome({self.column: self._grades(labels).astype(np.float64)})

    def oracle(self, shares: Floats) -> pd.DataFrame:
        """Return the probability of each grade."""
        share = self._posterior(normal_scores(shares[:, 0]), self.correlation)
        return pd.DataFrame({f"oracle_{name}": share[:, k] for k, name in enumerate(self.classes)})

    def flip(self, labels: pd.DataFrame, chosen: NDArray[np.intp], rng: Draws) -> pd.DataFrame:
        """Give the chosen patients a neighbouring grade."""
        code, top = self._grades(labels), len(self.classes) - 1
        step = rng.choice([-1, 1], len(chosen))
        inside = (code[chosen] + step >= 0) & (code[chosen] + step <= top)
        code[chosen] += np.where(inside, step, -step)
        return labels.assign(**{self.column: np.array(self.classes)[code]})


def _median(share: Floats) -> NDArray[np.int64]:
    """Return the median grade, `(p,)`."""
    return np.asarray((np.cumsum(share, axis=1)[:, :-1] < 0.5).sum(axis=1))
