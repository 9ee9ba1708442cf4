"""Train one fold, predict its patients and save both; continue where an earlier process was stopped."""

import shutil
from collections.abc import Mapping
from functools import partial
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mil import checkpoint, files
from mil.bags import Bags
from mil.fitted.state import BagSummaries, FittedState
from mil.inference.forward import logits, mean, per_patient
from mil.manifest import mean_tile
from mil.models.mil_model import MILModel, Output
from mil.splits.folds import Split
from mil.study import build
from mil.study.run_config import RunConfig, ToolConfig
from mil.study.study import Study
from mil.tables import csv_text
from mil.training import saved_state
from mil.training.epoch_choice import Best, CarriedOver
from mil.training.fitted_tiles import fit_tiles
from mil.training.fold import Fold, predictions
from mil.training.one_encoder import FILE as ENCODERS
from mil.training.one_encoder import alone_predictions
from mil.training.pretrained import start_from
from mil.training.ranks import Ranks
from mil.training.record import Outcome, manifest
from mil.training.refit import cross_fit, joined_fold
from mil.training.saved_state import TrainedModel
from mil.training.solve import solve
from mil.training.train_network import train_network


def fit(
    config: RunConfig,
    study: Study,
    split: Split,
    fold: Fold,
    workers: int | None = None,
    ranks: Ranks | None = None,
    predict: bool = True,
) -> None:
    """Train one fold; write its checkpoint, and last `predictions.csv`, which marks the fold as finished.

    Several processes call this at the same time with a rank each, and the first of them writes. A fold whose epoch was
    chosen by this or an earlier process is only predicted.

    Args:
        config: All options.
        study: The patients.
        split: Roles of the patients in each fold.
        fold: The fold.
        workers: Processes that read ahead, where the features do not stay in memory; None takes `data.workers`.
        ranks: The processes that train the fold together, which are connected; None trains it in this one.
        predict: Whether the fold is also predicted; if not, a further call does that. Models that are solved at once
            and those that are refitted are always predicted.

    Raises:
        LostRankError: Another of the processes has ended.
        TrainingError: The loss is not finite, or a process that reads features was killed; the state after the last
            complete epoch is kept.
        CheckpointError: The saved states are damaged, or of another model.
        Interrupted: A signal asks to stop; the state is saved.
    """
    ranks = ranks or Ranks(by_bag=config.trainer.options.by_bag)
    # none for features that stay in memory
    readers = 0 if study.store.keeps else build.workers(config) if workers is None else workers
    fresh = partial(fresh_network, config, study)
    cross = None
    with ranks.watching():
        if config.selection.refit is None:
            model = fresh(fold)
            if model.solved:
                if not ranks.leads:
                    return
                ranks = Ranks()
            trained = _solved(model, fold) if model.solved else _chosen(config, fold, model, readers, ranks)
            if not (predict or model.solved):
                return
        else:
            cross = cross_fit(config, study, split, fold, fresh, readers, ranks)
            together, fold = joined_fold(config, study, split, fold)
            model = fresh(together)
            saved = saved_state.latest(fold.folder)
            trained = train_network(config, together, model, CarriedOver(cross.epochs), saved, readers, ranks)
        raw, bags = _predicted(model, fold, readers, ranks)
    if not ranks.leads:
        return
    if cross is not None:
        raw["select"] = cross.logits(fold.bags["select"]["bag"].tolist(), _by_bag(fold, raw), fold.endpoint)
    table = _table(study, fold, raw)
    outcome = trained._replace(mean_tile=mean_tile(bags["train"]))
    if study.encoder.parts and outcome.mean_tile is not None and "report" in fold.data:
        alone = alone_predictions(study, model, fold, outcome.mean_tile, readers)
        files.write(fold.folder / ENCODERS, csv_text(alone))
    train_rows, select = (table[table["role"] == role] for role in ("train", "select"))
    fitted = FittedState.fit(_tool(config, study), fold.endpoint, train_rows, select, bags)
    done = manifest(config, study, split, fold, model, fitted=fitted, outcome=outcome)
    checkpoint.save(fold.folder / "checkpoint", model.cpu().eval(), done)
    files.write(fold.folder / "predictions.csv", csv_text(table))
    shutil.rmtree(fold.folder / saved_state.FOLDER, ignore_errors=True)


def _tool(config: RunConfig, study: Study) -> ToolConfig:
    """Return the tool; a smallest number of tiles says nothing about vectors of whole slides."""
    novelty = config.tool.novelty
    if study.encoder.level == "tile" or novelty is None or novelty.min_tiles is None:
        return config.tool
    return config.tool.model_copy(update={"novelty": novelty.model_copy(update={"min_tiles": None})})


def fresh_network(config: RunConfig, study: Study, fold: Fold) -> MILModel:
    """Return a network with the weights that a fold's training starts from; those of a saved state come later."""
    seed, saved = config.seed + fold.number, saved_state.latest(fold.folder)
    torch.manual_seed(seed)
    model = build.network(config, study.encoder.dim, fold.endpoint, study.encoder.widths)
    if saved is None and config.model.options.pretrained is not None:
        start_from(model, Path(config.model.options.pretrained), study.encoder)
    if saved is None and model.tiles_to_fit:
        fit_tiles(model, fold.data["train"], seed)
    return model


def _chosen(config: RunConfig, fold: Fold, model: MILModel, readers: int, ranks: Ranks) -> Outcome:
    """Train; the patients of model selection choose the epoch. What an earlier call has trained to the end is read."""
    earlier = saved_state.read_trained(fold.folder)
    if earlier is not None:
        model.load_state_dict(earlier.weights)
        return Outcome(earlier.epochs, earlier.best_epochs, earlier.precision)
    judge = Best(config.selection.best_epochs)
    outcome = train_network(config, fold, model, judge, saved_state.latest(fold.folder), readers, ranks)
    if ranks.leads:
        saved_state.write_trained(
            fold.folder, TrainedModel(model.state_dict(), outcome.epochs, outcome.best_epochs, outcome.precision)
        )
    return outcome


def _by_bag(fold: Fold, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the logits `(c,)` of every bag of training and model selection by its name."""
    roles = ("train", "select")
    return {bag: row for role in roles for bag, row in zip(fold.bags[role]["bag"], raw[role], strict=True)}


def _solved(model: MILModel, fold: Fold) -> Outcome:
    solve(model, fold.endpoint, fold.data["train"], fold.data.get("select", fold.data["train"]))
    return Outcome(0, [], "64-true", None)


def _predicted(
    model: MILModel, fold: Fold, readers: int, ranks: Ranks
) -> tuple[dict[str, Tensor], dict[str, BagSummaries]]:
    """Return the logits of all bags by role, and summaries of the bags of training and model selection.

    The report patients are read here for the first and only time. Each rank predicts some of the bags.
    """
    raw: dict[str, Tensor] = {}
    bags: dict[str, BagSummaries] = {}
    for role, data in fold.data.items():
        rows = list(range(ranks.number, len(data), ranks.count))
        means: list[Tensor] = []
        values = logits(model, data.only(rows), readers, partial(_append_mean, means)) if rows else torch.empty(0)
        predicted = sorted(ranks.all_of(list(zip(rows, values, means, strict=True))), key=itemgetter(0))
        raw[role] = torch.stack([row for _, row, _ in predicted])
        if role != "report":
            bags[role] = BagSummaries(np.asarray(data.sizes), torch.stack([each for *_, each in predicted]).numpy())
    return raw, bags


def _table(study: Study, fold: Fold, raw: Mapping[str, Tensor]) -> pd.DataFrame:
    """Return the predictions of every patient from the logits of the bags, after fitting what they need."""
    patients = pd.Index(sorted(set(fold.bags["train"]["patient"])))
    trained = per_patient(raw["train"], fold.bags["train"]["patient"], patients)
    fold.endpoint.finish(trained, study.target[study.patients.index.get_indexer(patients)])
    return predictions(study, fold, raw)


def _append_mean(means: list[Tensor], index: int, bags: Bags, output: Output) -> None:
    means.append(mean(bags))
