"""The patients of a simulated cohort: clinical data and truth."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import poisson

from mil.simulation.associations import clinical_columns
from mil.simulation.clinical_variables import ClinicalVariable
from mil.simulation.draws import stratified
from mil.simulation.targets.simulated_target import Target, Truth

Floats = NDArray[np.float64]

_CASE_MIX = 0.6


@dataclass(frozen=True)
class Patients:
    """The `p` patients of a cohort before tiles are drawn; row `i` of every table is the same patient."""

    clinic: pd.DataFrame
    """patient, site, scanner, the clinical variables and the target's columns, with label noise."""
    truth: pd.DataFrame
    """patient, severity, what is hidden, and the labels without noise as `clean_<column>`."""
    oracle: pd.DataFrame
    """Score of a perfect reader of endless tiles."""
    shares: Floats
    """Of the tissue that can carry a biomarker, the share that carries each, `(p, biomarkers)`."""
    slides: NDArray[np.int64]
    """Slides of each, `(p,)`."""


def enrol(
    target: Target,
    variables: Mapping[str, ClinicalVariable],
    count: int,
    slides: float,
    sites: int,
    label_noise: float,
    rng: np.random.Generator,
    clinical_rng: np.random.Generator,
) -> Patients:
    """Draw patients with a given mean number of slides.

    The clinical variables have random numbers of their own (`clinical_rng`), so that everything else is the same
    whatever they are.
    """
    truth = target.draw(count, rng)
    uniform = stratified(count, 5, rng)  # columns 1 to 3 are unused, so that older cohorts keep their tiles
    patient = pd.Series([f"P{i:04d}" for i in range(count)], name="patient")
    chosen = rng.permutation(count)[: round(label_noise * count)]
    labels = target.flip(truth.labels, chosen, rng)
    site = _site(truth, sites, uniform[:, 0])
    clinical = clinical_columns(variables, target.outcome(truth.labels), truth.severity, clinical_rng)
    severity = pd.Series(truth.severity, name="severity")
    return Patients(
        clinic=pd.concat([patient, site, clinical, labels], axis=1),
        truth=pd.concat([patient, severity, truth.hidden, truth.labels.add_prefix("clean_"), labels], axis=1),
        oracle=target.oracle(truth.shares),
        shares=truth.shares,
        slides=1 + poisson.ppf(uniform[:, 4], slides - 1).astype(np.int64) if slides > 1 else np.ones(count, np.int64),
    )


def _site(truth: Truth, sites: int, uniform: Floats) -> pd.DataFrame:
    """Draw sites and scanners. Sites differ in size and in case mix.

    The case mix depends on what the tiles show, not on the severity: otherwise the stain of a site would carry
    information about the label that no biomarker tile has, and a reader could exceed the attainable discrimination.
    """
    index = np.arange(sites)
    tilt = np.cos(np.pi * index)[None] * _CASE_MIX * _standard(truth.shown)[:, None]  # (p, sites)
    weight = np.exp(tilt) / (index + 2)
    cumulative = np.cumsum(weight / weight.sum(axis=1, keepdims=True), axis=1)
    site = np.minimum((uniform[:, None] > cumulative).sum(axis=1), sites - 1)
    return pd.DataFrame({"site": [f"site-{i + 1}" for i in site], "scanner": [scanner(int(i)) for i in site]})


def scanner(site: int) -> str:
    """Return the scanner of a site; every third site has the same one."""
    return "scanner-" + "ABC"[site % 3]


def _standard(values: Floats) -> Floats:
    return np.asarray((values - values.mean()) / values.std())
