"""What a person watching a run wants to read: a line an epoch."""

import logging
import time

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

logger = logging.getLogger(__name__)


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
