"""Train every fold of a split, and write their predictions in one table."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from mil import files
from mil.report.prediction_files import read
from mil.splits.folds import Split
from mil.study import build
from mil.study.run_config import RunConfig
from mil.study.study import Study
from mil.tables import csv_text
from mil.training.baseline import linear_logits, mean_features
from mil.training.fit import fit
from mil.training.fold import Fold, cut, encoded, predictions
from mil.training.one_encoder import FILE as ENCODERS
from mil.training.several_devices import Team
from mil.training.side_by_side import GIB, FoldTask, Share, StartedAhead, fit_side_by_side, started_ahead, train_task

logger = logging.getLogger(__name__)


def train(
    config: RunConfig,
    study: Study,
    split: Split,
    folder: Path,
    team: Team | None = None,
    ahead: StartedAhead | None = None,
) -> None:
    """Train every fold and write `predictions.csv`.

    With `config.baseline`, `baseline.csv` holds a linear model on mean features and, if models read covariates,
    `covariates.csv` one on the covariates alone.

    A fold that an earlier process finished is kept; one that it began continues from its last epoch. With several folds
    each has a folder of its own, and `config.parallel` of them are trained at the same time.

    Args:
        config: All options.
        study: The patients.
        split: Roles of the patients in each fold.
        folder: The run folder.
        team: The processes of several devices, which train one fold after the other; None trains in this process.
        ahead: Processes that were started to train folds at the same time; None starts them here.

    Raises:
        CohortError: The training patients of a fold are all of one class.
        FeatureError: A feature file cannot be read.
    """
    several = len(split.folds) > 1
    side_by_side = several and config.parallel > 1  # the processes then keep features themselves
    if not side_by_side and team is None:
        _keep_in_memory(config, study)
    folds = [cut(config, study, split, number, fold_folder(split, number, folder)) for number in split.folds]
    unfinished = {
        f"fold {number} of {len(folds)}": fold for number, fold in enumerate(folds, 1) if not is_trained(fold.folder)
    }
    if not (side_by_side and unfinished):
        write_baselines(config, study, folds, folder)
    for name, fold in unfinished.items():
        logger.info("%s: %s", name, _roles(fold))
        if team is not None:
            team.fit(FoldTask(config.plain(), study, split, fold))
        elif not side_by_side:
            fit(config, study, split, fold)
    if side_by_side and unfinished:
        with nullcontext(ahead) if ahead is not None else started_ahead(config) as started:
            baselines = partial(write_baselines, config, study, folds, folder)
            fit_side_by_side(config, study, split, unfinished, started, baselines)
    if team is not None:
        team.dismiss()
    if several:
        table = pd.concat([read(fold.folder / "predictions.csv", study.endpoint.columns) for fold in folds])
        if study.encoder.parts:
            alone = [fold.folder / ENCODERS for fold in folds if (fold.folder / ENCODERS).exists()]
            files.write(folder / ENCODERS, csv_text(pd.concat([read(path, study.endpoint.columns) for path in alone])))
        files.write(folder / "predictions.csv", csv_text(table))


def fold_folder(split: Split, number: int, folder: Path) -> Path:
    """Return where a fold's files go: with several folds each has a folder of its own in the run folder."""
    return folder / f"fold_{number}" if len(split.folds) > 1 else folder


def is_trained(fold: Path) -> bool:
    """Return whether the fold in this folder is finished."""
    return (fold / "predictions.csv").exists()


def train_fold(config: RunConfig, study: Study, split: Split, number: int, folder: Path) -> None:
    """Train one fold of a run, unless an earlier process finished it; the same weights as by `train`, to the bit.

    Args:
        config: All options.
        study: The patients.
        split: Roles of the patients in each fold.
        number: The fold, as in the split.
        folder: The run folder.

    Raises:
        MilError: As in `train`.
        Interrupted: A signal asks to stop; the state is saved.
    """
    place = fold_folder(split, number, folder)
    if is_trained(place):
        return
    fold = cut(config, study, split, number, place)
    name = f"fold {1 + split.folds.index(number)} of {len(split.folds)}"
    logger.info("%s: %s", name, _roles(fold))
    share = Share(torch.get_num_threads(), config.data.memory * GIB, build.workers(config))
    train_task(FoldTask(config.plain(), study, split, fold, name), share).raise_if_unfinished()


def write_baselines(config: RunConfig, study: Study, folds: Sequence[Fold], folder: Path) -> None:
    """Write the predictions of simpler models, if the options ask for them: `baseline.csv` and `covariates.csv`."""
    if config.baseline:
        means = mean_features(study.store, list(study.bags["slides"]))
        baseline = pd.concat([_baseline(study, fold, means) for fold in folds])
        files.write(folder / "baseline.csv", csv_text(baseline))
    if config.baseline and study.covariates is not None:
        clinical = [(fold, encoded(study, fold.covariates, study.bags)) for fold in folds]
        baseline = pd.concat(
            [_baseline(study, fold, covariates.double()) for fold, covariates in clinical if covariates is not None]
        )
        files.write(folder / "covariates.csv", csv_text(baseline))


def _keep_in_memory(config: RunConfig, study: Study) -> None:
    """Keep the features of small cohorts in memory: opening a file takes longer than training on its few tiles."""
    slides, limit = study.cohort.table["slide"], config.data.memory
    if not config.data.workers and limit and not study.store.keep(slides, limit * GIB):
        logger.info(
            "features of %d slides are larger than data.memory=%d GiB: read anew each epoch", len(slides), limit
        )


def _roles(fold: Fold) -> str:
    return ", ".join(f"{len(data)} bags ({sum(data.sizes)} tiles) {role}" for role, data in fold.data.items())


def _baseline(study: Study, fold: Fold, features: Tensor) -> pd.DataFrame:
    """Return a linear model's predictions on the same fold from the features `(b, d)` of all bags."""
    masks = {role: study.bags["bag"].isin(set(bags["bag"])).to_numpy() for role, bags in fold.bags.items()}
    rows = {role: torch.from_numpy(mask.nonzero()[0]) for role, mask in masks.items()}
    _, target = study.rows(list(study.patients.index))
    logits = linear_logits(features, target, rows["train"], rows.get("select", rows["train"]), fold.endpoint)
    return predictions(study, fold, {role: logits[row] for role, row in rows.items()})
