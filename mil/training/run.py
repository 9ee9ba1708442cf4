"""One run: every fold of a split, and their predictions in one table."""

import logging
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from mil import files
from mil.report.prediction_files import read
from mil.splits.folds import Split
from mil.study.config import RunConfig
from mil.study.study import Study
from mil.training.baseline import linear_logits, mean_features
from mil.training.fit import fit
from mil.training.fold import Fold, cut, encoded, predictions

logger = logging.getLogger(__name__)
GIB = 2**30


def train(config: RunConfig, study: Study, split: Split, folder: Path) -> None:
    """Fits every fold and writes `predictions.csv`, with `baseline.csv` beside it where the baseline is asked for.

    Where models read covariates, `covariates.csv` is a baseline of these alone.

    A fold that an earlier process finished is kept; one that it began goes on from its last epoch. A run of one fold
    holds it itself, a run of several has a folder for each.
    """
    _keep(config, study)
    several = len(split.folds) > 1
    folds = [
        cut(config, study, split, number, folder / f"fold_{number}" if several else folder) for number in split.folds
    ]
    if config.baseline:
        means = mean_features(study.store, list(study.bags["slides"]))
        beside = pd.concat([_baseline(study, fold, means) for fold in folds])
        files.write(folder / "baseline.csv", beside.to_csv(index=False))
    if config.baseline and study.covariates is not None:
        clinical = [(fold, encoded(study, fold.covariates, study.bags)) for fold in folds]
        beside = pd.concat([_baseline(study, fold, known.double()) for fold, known in clinical if known is not None])
        files.write(folder / "covariates.csv", beside.to_csv(index=False))
    for place, fold in enumerate(folds, 1):
        done = fold.folder / "predictions.csv"
        if not done.exists():
            logger.info("fold %d of %d: %s", place, len(folds), _roles(fold))
            fit(config, study, split, fold)
    if several:
        table = pd.concat([read(fold.folder / "predictions.csv", study.endpoint.columns) for fold in folds])
        files.write(folder / "predictions.csv", table.to_csv(index=False))


def _keep(config: RunConfig, study: Study) -> None:
    """Small cohorts stay in memory: opening a file costs more than training on its few tiles."""
    slides, room = study.cohort.table["slide"], config.data.memory
    if not config.data.workers and room and not study.store.keep(slides, room * GIB):
        logger.info("features of %d slides are larger than data.memory=%d GiB: read anew each epoch", len(slides), room)


def _roles(fold: Fold) -> str:
    return ", ".join(f"{len(data)} bags ({sum(data.sizes)} tiles) {role}" for role, data in fold.data.items())


def _baseline(study: Study, fold: Fold, features: Tensor) -> pd.DataFrame:
    """A linear model's predictions on the same fold, from features of every bag `(b, d)`."""
    places = {role: study.bags["bag"].isin(set(bags["bag"])).to_numpy() for role, bags in fold.bags.items()}
    rows = {role: torch.from_numpy(mask.nonzero()[0]) for role, mask in places.items()}
    _, target = study.rows(list(study.patients.index))
    logits = linear_logits(features, target, rows["train"], rows.get("select", rows["train"]), fold.endpoint)
    return predictions(study, fold, {role: logits[row] for role, row in rows.items()})
