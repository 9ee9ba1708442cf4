"""One fold's patients in their roles, and tables of their predictions."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from torch import Tensor

from mil.cohort.covariates import Covariates
from mil.endpoints.endpoint import Endpoint
from mil.features.batches import BagDataset
from mil.inference.predict import decoded, per_patient
from mil.splits.folds import Split
from mil.study.config import RunConfig
from mil.study.study import Study

ROLES = ("train", "select", "report")


@dataclass(frozen=True)
class Fold:
    """Where a fold's files go, its own endpoint, and the bags of each role that has patients."""

    number: int
    folder: Path
    endpoint: Endpoint
    bags: Mapping[str, pd.DataFrame]
    data: Mapping[str, BagDataset]
    covariates: Covariates | None = None
    """fitted to the training patients"""


def cut(config: RunConfig, study: Study, split: Split, number: int, folder: Path) -> Fold:
    """One fold of a split, with endpoint and covariates fitted to its training patients alone.

    Raises:
        CohortError: the training patients have nothing to learn from.
    """
    endpoint = copy.deepcopy(study.endpoint)
    roles = [role for role in ROLES if split.patients(number, role)]
    rows = {role: study.rows(split.patients(number, role)) for role in roles}
    known = study.covariates
    beside = None if known is None else known.fit(study.patients.loc[split.patients(number, "train")])
    most = {"train": config.data.max_tiles}
    data = {
        role: BagDataset(
            study.store, list(bags["slides"]), target, most.get(role), config.seed, encoded(study, beside, bags)
        )
        for role, (bags, target) in rows.items()
    }
    endpoint.fit(data["train"].target, balance=config.data.balance == "loss")
    return Fold(number, folder, endpoint, {role: bags for role, (bags, _) in rows.items()}, data, beside)


def encoded(study: Study, covariates: Covariates | None, bags: pd.DataFrame) -> Tensor | None:
    """The covariates of each bag's patient, `(b, k)`."""
    return None if covariates is None else covariates.encode(study.patients.loc[bags["patient"]])


def predictions(study: Study, fold: Fold, logits: Mapping[str, Tensor]) -> pd.DataFrame:
    """`patient, fold, role`, targets and scores of every patient, from each role's bags' logits `(b, c)`."""
    tables = []
    for role, found in logits.items():
        patients = study.patients.loc[sorted(set(fold.bags[role]["patient"]))]
        scores = decoded(fold.endpoint, per_patient(found, fold.bags[role]["patient"], patients.index))
        targets = patients[list(fold.endpoint.columns)].reset_index(drop=True)
        head = pd.DataFrame({"patient": patients.index, "fold": fold.number, "role": role})
        tables.append(pd.concat([head, targets], axis=1).assign(**scores))
    return pd.concat(tables)
