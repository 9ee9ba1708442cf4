"""The patients of one fold by role, and the table of their predictions."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from torch import Tensor

from mil.cohort.covariates import Covariates
from mil.endpoints.endpoint import Endpoint
from mil.features.batches import BagDataset
from mil.fitted.checks import check_specification
from mil.inference.forward import decoded, per_patient
from mil.splits.folds import Split
from mil.study.run_config import RunConfig
from mil.study.study import Study
from mil.tables import SIMULATED_COLUMN

ROLES = ("train", "select", "report")


@dataclass(frozen=True)
class Fold:
    """One fold of a run.

    Attributes:
        number: As in the split.
        folder: Where its files go.
        endpoint: Fitted to the training patients of the fold.
        bags: One row per bag, for each role that has patients.
        data: The same bags with features and targets.
        covariates: Fitted to the training patients; None if the model reads none.
    """

    number: int
    folder: Path
    endpoint: Endpoint
    bags: Mapping[str, pd.DataFrame]
    data: Mapping[str, BagDataset]
    covariates: Covariates | None = None


def cut(config: RunConfig, study: Study, split: Split, number: int, folder: Path) -> Fold:
    """Return one fold of a split, with endpoint and covariates fitted to its training patients only.

    Raises:
        CohortError: The training patients are all of one class, or have no event.
        ConfigError: A decision about a horizon beyond the follow-up of the training patients.
    """
    covariates = study.covariates
    if covariates is not None:
        covariates = covariates.fit(study.patients.loc[split.patients(number, "train")])
    fold = assembled(config, study, split, number, folder, copy.deepcopy(study.endpoint), covariates)
    fold.endpoint.fit(fold.data["train"].target, balance=config.data.balance == "loss")
    check_specification(
        config.tool, fold.endpoint
    )  # a horizon may lie within the cohort's follow-up, beyond the fold's
    return fold


def assembled(
    config: RunConfig,
    study: Study,
    split: Split,
    number: int,
    folder: Path,
    endpoint: Endpoint,
    covariates: Covariates | None,
) -> Fold:
    """Return one fold of a split with an endpoint and covariates that are fitted elsewhere or later."""
    roles = [role for role in ROLES if split.patients(number, role)]
    rows = {role: study.rows(split.patients(number, role)) for role in roles}
    max_tiles = {"train": config.data.max_tiles}
    data = {
        role: BagDataset(
            study.store,
            list(bags["slides"]),
            target,
            max_tiles.get(role),
            config.seed,
            encoded(study, covariates, bags),
        )
        for role, (bags, target) in rows.items()
    }
    return Fold(number, folder, endpoint, {role: bags for role, (bags, _) in rows.items()}, data, covariates)


def encoded(study: Study, covariates: Covariates | None, bags: pd.DataFrame) -> Tensor | None:
    """Return the covariates of each bag's patient, `(b, k)`; None if the study has none."""
    return None if covariates is None else covariates.encode(study.patients.loc[bags["patient"]])


def predictions(study: Study, fold: Fold, logits: Mapping[str, Tensor]) -> pd.DataFrame:
    """Return one row per patient: patient, fold, role, targets and scores; and `simulated` where they are.

    Args:
        study: All patients.
        fold: The fold that was trained.
        logits: Of the bags of each role, `(b, c)`.
    """
    tables = []
    for role, values in logits.items():
        patients = study.patients.loc[sorted(set(fold.bags[role]["patient"]))]
        scores = decoded(fold.endpoint, per_patient(values, fold.bags[role]["patient"], patients.index))
        targets = patients[list(fold.endpoint.columns)].reset_index(drop=True)
        head = pd.DataFrame({"patient": patients.index, "fold": fold.number, "role": role})
        tables.append(pd.concat([head, targets], axis=1).assign(**scores))
    table = pd.concat(tables)
    return table.assign(**{SIMULATED_COLUMN: True}) if study.simulated else table
