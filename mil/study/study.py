"""A study: patients with bags of tiles and targets, read and checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
from torch import Tensor

from mil.cohort.clinical_table import Cohort
from mil.cohort.covariates import Covariates
from mil.endpoints.endpoint import Endpoint
from mil.features.encoders import Encoder
from mil.features.store import FeatureStore
from mil.findings import Finding
from mil.study.flow import FlowStep
from mil.tables import says_simulated


@dataclass(frozen=True)
class Labels:
    """The patients of a study and what is to be predicted of them.

    Attributes:
        patients: One row a patient, by id.
        target: `(p, ...)`, in the order of `patients`.
    """

    patients: pd.DataFrame
    target: Tensor


@dataclass(frozen=True)
class Study:
    """A tool's patients with their bags, targets and features, checked against each other."""

    cohort: Cohort
    store: FeatureStore
    encoder: Encoder
    endpoint: Endpoint
    patients: pd.DataFrame
    """one row a patient, in the order of `target`"""
    target: Tensor
    """`(p, ...)`"""
    bags: pd.DataFrame
    """one row a bag: bag, patient, slides"""
    source: Path
    """the cohort's table"""
    truth: Path | None
    """folder of the simulated cohort; none for real data"""
    covariates: Covariates | None = None
    """clinical columns that models read beside the tiles, not yet fitted"""
    balance: Literal["none", "loss", "sampling"] = "none"
    """how classes are balanced"""
    findings: tuple[Finding, ...] = ()
    """warnings of the stages that read it"""
    flow: tuple[FlowStep, ...] = ()
    """from the clinical table to the patients of the study"""

    @property
    def simulated(self) -> bool:
        """Whether the patients are simulated: by this package for the run, or as the clinical table says."""
        return self.truth is not None or says_simulated(self.cohort.table)

    def rows(self, patients: list[str]) -> tuple[pd.DataFrame, Tensor]:
        """Return the bags of these patients `(b,)`, and each bag's target `(b, ...)`."""
        bags = self.bags[self.bags["patient"].isin(patients)].reset_index(drop=True)
        return bags, self.target[self.patients.index.get_indexer(pd.Index(bags["patient"]))]
