"""Train one network on the bags of one fold, and continue where an earlier process was stopped."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch as lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ProgressBar
from lightning.pytorch.loggers import Logger

from mil import files, interruption
from mil.errors import CheckpointError, ResourceError, TrainingError
from mil.features.batch_shares import SharedOrder, one_by_one
from mil.features.batches import BagDataset, TrainOrder, WholeOrder, loader, reading
from mil.memory import enough_for
from mil.models.mil_model import MILModel
from mil.study import build
from mil.study.run_config import RunConfig
from mil.training import saved_state, wandb_logger
from mil.training.callbacks import Last, Progress
from mil.training.chosen_precision import precision
from mil.training.epoch_choice import Best, Judge, MovingAverage
from mil.training.fold import Fold
from mil.training.module import MILModule, feature_dtype
from mil.training.ranks import Ranks
from mil.training.record import Outcome
from mil.training.saved_state import SavedState, SyncedFiles
from mil.training.summed_gradients import SummedGradients, environment
from mil.training.whole import WholeModule


def train_network(
    config: RunConfig, fold: Fold, model: MILModel, judge: Judge, saved: SavedState | None, readers: int, ranks: Ranks
) -> Outcome:
    """Train a network in batches; afterwards it holds the weights that count.

    Those are the weights that `judge` kept, or else the last ones, averaged as `selection.moving_average` says. The
    options' early stopping is for `Best`: the others train as many epochs as they are told to.

    Args:
        config: All options.
        fold: The fold, whose folder holds the saved state.
        model: With fresh weights, which are those of `saved` where there is one.
        judge: Chooses an epoch, traces all of them, or stops after a number of them, without validation.
        saved: The state to continue from.
        readers: Processes that read ahead.
        ranks: The processes that train the network together.

    Raises:
        MilError: As `mil.training.fit.fit`.
        Interrupted: A signal asks to stop; the state is saved.
    """
    seed, average = config.seed + fold.number, MovingAverage(config.selection.moving_average)
    orders = _orders(config, fold, seed, saved)
    last = Last(fold.folder / saved_state.FOLDER / saved_state.LAST, ranks)
    trainer = _trainer(config, fold, judge, average, last, *(len(survey) for survey in orders[1:]))
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
    if weights := judge.weights:
        module.load_state_dict(weights)
    else:
        average.swap(module)
    return Outcome(trainer.current_epoch, judge.epochs, str(trainer.precision))


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


def _trainer(
    config: RunConfig, fold: Fold, judge: Judge, average: MovingAverage, last: Last, accumulate: int | None = None
) -> lightning.Trainer:
    """Return the trainer; `accumulate` batches make a step, by default as many as the options say."""
    callbacks = [build.make(callback) for callback in config.callbacks.values()]
    if not isinstance(judge, Best):
        callbacks = [callback for callback in callbacks if not isinstance(callback, EarlyStopping)]
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
    validation = {} if judge.validates else {"limit_val_batches": 0}
    trainer: lightning.Trainer = build.make(
        config.trainer,
        **validation,
        precision=precision(options.precision),
        accumulate_grad_batches=accumulate or options.accumulate_grad_batches,
        enable_progress_bar=is_theirs,  # Lightning's own would write over the log's lines
        callbacks=[*callbacks, judge, average, Progress(shown), last],
        plugins=[SyncedFiles(), environment(ranks)],
        strategy="auto" if ranks.count == 1 else SummedGradients(ranks),
        use_distributed_sampler=False,
        logger=_logger(config, fold) if judge.logged else False,
        default_root_dir=str(fold.folder),
    )
    return trainer


def _shared(order: TrainOrder | WholeOrder, ranks: Ranks) -> TrainOrder | WholeOrder | SharedOrder:
    """Return the bags of each batch that this rank reads."""
    return SharedOrder(order, order.sizes, ranks.number, ranks.count) if ranks.by_bag else order


def _logger(config: RunConfig, fold: Fold) -> Logger:
    several = fold.folder.name == f"fold_{fold.number}"
    run = fold.folder.parent if several else fold.folder
    names = wandb_logger.names(config.logger, config.tool.name, run, fold.number)
    made: Logger = build.make(config.logger, save_dir=str(fold.folder / "log"), **names)
    return made


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
