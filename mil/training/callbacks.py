"""What watches a fit: the best weights so far, the state to resume from, a line an epoch for a person to read."""

import logging
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint
from torch import Tensor

logger = logging.getLogger(__name__)


class Best(Callback):
    """Keeps the weights of the epoch with the lowest loss on the select patients.

    They travel in the trainer's own state, so a run that is resumed knows them.
    """

    def __init__(self) -> None:
        self.loss = float("inf")
        self.epoch = -1
        self.weights: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copies the weights where they are the best so far, and the first in any case."""
        loss = float(trainer.callback_metrics["select_loss"])
        if loss < self.loss or not self.weights:
            self.loss, self.epoch = loss, trainer.current_epoch
            self.weights = {name: value.detach().cpu().clone() for name, value in pl_module.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """For `last.ckpt`."""
        return {"loss": self.loss, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From `last.ckpt`."""
        self.loss, self.epoch, self.weights = (state_dict[key] for key in ("loss", "epoch", "weights"))


class Last(Checkpoint):
    """Writes the trainer's whole state after each epoch, whole or not at all.

    Lightning's own `ModelCheckpoint(save_last=True, save_top_k=0)` writes nothing, and its other settings write every
    epoch's weights twice. As a `Checkpoint` it is called after all other callbacks.
    """

    def __init__(self, path: Path) -> None:
        """`path` is replaced each epoch."""
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Beside the old file, then in its place: `kill -9` leaves one of the two."""
        fresh = self.path.with_suffix(".new")
        trainer.save_checkpoint(fresh)
        fresh.replace(self.path)


class Progress(Callback):
    """Logs loss and scores of each epoch, with its duration."""

    def __init__(self) -> None:
        self.start = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self.start = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reads what was logged."""
        values = "  ".join(f"{name} {float(value):.4f}" for name, value in sorted(trainer.callback_metrics.items()))
        seconds = time.monotonic() - self.start
        logger.info("epoch %d of %s  %s  %.1f s", trainer.current_epoch + 1, trainer.max_epochs, values, seconds)
