"""Callbacks of the trainer: the best weights, the state to resume from, and one log line per epoch."""

import logging
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint
from torch import Tensor

logger = logging.getLogger(__name__)


class Best(Callback):
    """Keep the weights of the epoch with the lowest loss of the patients of model selection.

    The weights are part of the trainer's state, so that a resumed run has them.
    """

    def __init__(self) -> None:
        self.loss = float("inf")
        self.epoch = -1
        self.weights: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the weights if their loss is the lowest so far; the first are always copied."""
        loss = float(trainer.callback_metrics["select_loss"])
        if loss < self.loss or not self.weights:
            self.loss, self.epoch = loss, trainer.current_epoch
            self.weights = {name: value.detach().cpu().clone() for name, value in pl_module.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the state for `last.ckpt`."""
        return {"loss": self.loss, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from `last.ckpt`."""
        self.loss, self.epoch, self.weights = (state_dict[key] for key in ("loss", "epoch", "weights"))


class Last(Checkpoint):
    """Write the state of the trainer after each epoch, completely or not at all.

    Lightning's `ModelCheckpoint(save_last=True, save_top_k=0)` writes nothing, and its other settings write the weights
    of every epoch twice. As a `Checkpoint` it is called after all other callbacks.
    """

    def __init__(self, path: Path) -> None:
        """Write to `path`, which is replaced each epoch."""
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write a new file, then rename it over the old one: after `kill -9` one of the two is complete."""
        fresh = self.path.with_suffix(".new")
        trainer.save_checkpoint(fresh)
        fresh.replace(self.path)


class Progress(Callback):
    """Log loss, scores and duration of each epoch."""

    def __init__(self) -> None:
        self.start = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.start = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write one line with the values that were logged."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name != "epoch"}
        values = "  ".join(f"{name} {value:.4f}" for name, value in sorted(metrics.items()))
        seconds = time.monotonic() - self.start
        logger.info("epoch %d of %s  %s  %.1f s", trainer.current_epoch + 1, trainer.max_epochs, values, seconds)
