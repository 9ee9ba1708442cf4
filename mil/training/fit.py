"""Train one fold, predict its patients and save both; continue where an earlier process was stopped."""

import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from operator import itemgetter
from pathlib import Path

import lightning.pytorch as lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import ProgressBar
from torch import Tensor

from mil import checkpoint, files, interruption
from mil.bags import Bags
from mil.errors import CheckpointError, ResourceError, TrainingError
from mil.features.batch_shares import SharedOrder, one_by_one
from mil.features.batches import BagDataset, TrainOrder, WholeOrder, loader, reading
from mil.fitted.state import BagSummaries, FittedState
from mil.inference.forward import logits, mean, per_patient
from mil.manifest import mean_tile
from mil.memory import enough_for
from mil.models.mil_model import MILModel, Output
from mil.splits.folds import Split
from mil.study import build
from mil.study.run_config import RunConfig, ToolConfig
from mil.study.study import Study
from mil.tables import csv_text
from mil.training import saved_state, wandb_logger
from mil.training.callbacks import Best, Last, Progress
from mil.training.chosen_precision import precision
from mil.training.fitted_tiles import fit_tiles
from mil.training.fold import Fold, predictions
from mil.training.module import MILModule, feature_dtype
from mil.training.one_encoder import FILE as ENCODERS
from mil.training.one_encoder import alone_predictions
from mil.training.pretrained import start_from
from mil.training.ranks import Ranks
from mil.training.record import Outcome, manifest
from mil.training.saved_state import SavedState, SyncedFiles
from mil.training.solve import solve
from mil.training.summed_gradients import SummedGradients, environment
from mil.training.whole import WholeModule


def fit(
    config: RunConfig,
    study: Study,
    split: Split,
    fold: Fold,
    workers: int | None = None,
    ranks: Ranks | None = None,
) -> None:
    """Train one fold; write its checkpoint, and last `predictions.csv`, which marks the fold as finished.

    Several processes call this at the same time with a rank each, and the first of them writes.

    Args:
        config: All options.
        study: The patients.
        split: Roles of the patients in each fold.
        fold: The fold.
        workers: Processes that read ahead, where the features do not stay in memory; None takes `data.workers`.
        ranks: The processes that train the fold together, which are connected; None trains it in this one.

    Raises:
        LostRankError: Another of the processes has ended.
        TrainingError: The loss is not finite, or a process that reads features was killed; the state after the last
            complete epoch is kept.
        CheckpointError: The saved states are damaged, or of another model.
        Interrupted: A signal asks to stop; the state is saved.
    """
    ranks = ranks or Ranks(by_bag=config.trainer.options.by_bag)
    saved, state = saved_state.latest(fold.folder), fold.folder / saved_state.FOLDER
    seed = config.seed + fold.number
    torch.manual_seed(seed)
    model = build.network(config, study.encoder.dim, fold.endpoint, study.encoder.widths)
    if saved is None and config.model.options.pretrained is not None:
        start_from(model, Path(config.model.options.pretrained), study.encoder)
    if saved is None and model.tiles_to_fit:
        fit_tiles(model, fold.data["train"], seed)
    # none for features that stay in memory
    readers = 0 if study.store.keeps else build.workers(config) if workers is None else workers
    if model.solved:
        if not ranks.leads:
            return
        ranks = Ranks()
    with ranks.watching():
        trained = _solved(model, fold) if model.solved else _trained(config, fold, model, saved, readers, ranks)
        raw, bags = _predicted(model, fold, readers, ranks)
    if not ranks.leads:
        return
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
    shutil.rmtree(state, ignore_errors=True)


def _tool(config: RunConfig, study: Study) -> ToolConfig:
    """Return the tool; a smallest number of tiles says nothing about vectors of whole slides."""
    novelty = config.tool.novelty
    if study.encoder.level == "tile" or novelty is None or novelty.min_tiles is None:
        return config.tool
    return config.tool.model_copy(update={"novelty": novelty.model_copy(update={"min_tiles": None})})


def _solved(model: MILModel, fold: Fold) -> Outcome:
    solve(model, fold.endpoint, fold.data["train"], fold.data.get("select", fold.data["train"]))
    return Outcome(0, None, "64-true", None)


def _trained(
    config: RunConfig, fold: Fold, model: MILModel, saved: SavedState | None, readers: int, ranks: Ranks
) -> Outcome:
    """Train the model in batches, read by `readers` processes; it holds the best weights afterwards."""
    state, best, seed = fold.folder / saved_state.FOLDER, Best(), config.seed + fold.number
    orders = _orders(config, fold, seed, saved)
    last = Last(state / saved_state.LAST, ranks)
    trainer = _trainer(config, fold, best, last, *(len(survey) for survey in orders[1:]))
    dtype = feature_dtype(str(trainer.precision))
    data = _near(fold.data["train"].cast(dtype), trainer.strategy.root_device)
    train, *survey = (loader(data, _shared(order, ranks), readers) for order in orders)
    arguments = (model, fold.endpoint, build.optimizer(config), build.make(config.schedule), seed)
    module = WholeModule(*arguments, *survey) if survey else MILModule(*arguments)
    module.ranks = ranks
    module.trunk_lr = config.model.options.trunk_lr
    module.bag_names = fold.bags["train"]["bag"].tolist()
    select = fold.data.get("select", fold.data["train"]).cast(dtype)
    selection = loader(select, one_by_one(len(select), ranks.number, ranks.count), workers=readers)
    needs_memory = enough_for(
        lambda: f"training, with up to {max(fold.data['train'].sizes)} tiles in a bag",
        "a smaller data.max_tiles or data.tiles_per_batch needs less",
    )
    with _explained(config, fold), interruption.deferred(), reading(), needs_memory, files.writing(fold.folder):
        trainer.fit(module, train, selection, ckpt_path=None if saved is None else saved.path, weights_only=True)
    module.load_state_dict(best.weights or module.state_dict())  # there are none if validation was switched off
    return Outcome(trainer.current_epoch, best.epoch + 1 or None, str(trainer.precision))


def _near(data: BagDataset, device: torch.device) -> BagDataset:
    """Return the bags with features on the GPU, if they stay in memory anyway and half of its memory suffices."""
    if device.type != "cuda" or not data.store.keeps:
        return data
    free, _ = torch.cuda.mem_get_info(device)
    return data.kept_on(device) if data.stored_bytes() <= free / 2 else data


@contextmanager
def _explained(config: RunConfig, fold: Fold) -> Iterator[None]:
    """Say of an error in training which fold it is of, what may help, and where the last good weights are."""
    try:
        yield
    except (TrainingError, ResourceError) as error:
        saved = saved_state.latest(fold.folder)
        rate = config.optimizer.options.lr
        hint = (
            "" if rate is None or "not finite" not in str(error) else f" (optimizer.lr={rate:g}; a lower one may help)"
        )
        rest = (
            "no epoch was finished"
            if saved is None
            else f"the weights after epoch {saved.epoch} are kept in {saved.path}"
        )
        raise type(error)(f"fold {fold.number}: {error}{hint}; {rest}") from error
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        folder = fold.folder / saved_state.FOLDER
        raise CheckpointError(
            f"{folder} holds the state of another model; remove it to train fold {fold.number} from its beginning"
        ) from error


def _trainer(config: RunConfig, fold: Fold, best: Best, last: Last, accumulate: int | None = None) -> lightning.Trainer:
    """Return the trainer; `accumulate` batches make a step, by default as many as the options say."""
    callbacks = [build.make(callback) for callback in config.callbacks.values()]
    options = config.trainer.options
    is_theirs = any(isinstance(callback, ProgressBar) for callback in callbacks)  # of the user's options
    # folds in processes of their own draw nothing: `mil.progress` reports to who listens in this process
    shown, ranks = options.enable_progress_bar and not is_theirs, last.ranks
    # Lightning 2.6.6 calls what torch 2.13 deprecates; no user can mend that
    warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)` is deprecated", module="lightning")
    # what Lightning warns of when an epoch is continued does not apply: the order of batches goes on where it was
    warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch")
    # `mil` starts the processes of several devices itself where srun has not
    warnings.filterwarnings("ignore", "The `srun` command is available on your system but is not used")
    # all ranks log the same numbers
    warnings.filterwarnings("ignore", "It is recommended to use `self.log\\(.*sync_dist=True")
    trainer: lightning.Trainer = build.make(
        config.trainer,
        precision=precision(options.precision),
        accumulate_grad_batches=accumulate or options.accumulate_grad_batches,
        enable_progress_bar=is_theirs,  # Lightning's own would write over the log's lines
        callbacks=[*callbacks, best, Progress(shown), last],
        plugins=[SyncedFiles(), environment(ranks)],
        strategy="auto" if ranks.count == 1 else SummedGradients(ranks),
        use_distributed_sampler=False,
        logger=build.make(config.logger, save_dir=str(fold.folder / "log"), **_names(config, fold)),
        default_root_dir=str(fold.folder),
    )
    return trainer


def _shared(order: TrainOrder | WholeOrder, ranks: Ranks) -> TrainOrder | WholeOrder | SharedOrder:
    """Return the bags of each batch that this rank reads."""
    return SharedOrder(order, order.sizes, ranks.number, ranks.count) if ranks.by_bag else order


def _names(config: RunConfig, fold: Fold) -> dict[str, str]:
    several = fold.folder.name == f"fold_{fold.number}"
    run = fold.folder.parent if several else fold.folder
    return wandb_logger.names(config.logger, config.tool.name, run, fold.number)


def _orders(
    config: RunConfig, fold: Fold, seed: int, saved: SavedState | None
) -> tuple[TrainOrder] | tuple[WholeOrder, WholeOrder]:
    """Return the order of training batches; for whole-cohort losses also that of the pass without gradients."""
    data, options = fold.data["train"], config.data
    epoch, skip = (0, 0) if saved is None else (saved.epoch, saved.batches)
    sizes = np.minimum(data.sizes, options.max_tiles or np.inf).astype(int).tolist()
    if options.whole_cohort:
        limits = (sizes, options.batch_bags, options.tiles_per_batch)
        return WholeOrder(*limits, options.passes, epoch, skip), WholeOrder(*limits, epoch=epoch)
    weight = None
    if options.balance == "sampling":
        strata = fold.endpoint.strata(data.target)
        weight = 1 / np.bincount(strata)[strata]
    events = None if weight is not None else fold.endpoint.events(data.target)
    return (TrainOrder(sizes, options.batch_bags, options.tiles_per_batch, weight, seed, epoch, events, skip),)


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
