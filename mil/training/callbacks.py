"""Callbacks of the trainer: the state to resume from, and one log line per epoch."""

import logging
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint

from mil import interruption
from mil.progress import advance
from mil.training.ranks import Ranks
from mil.training.saved_state import TrainerState

logger = logging.getLogger(__name__)


class Last(Checkpoint):
    """Save the state of the trainer after each epoch, and after a batch where a signal asks to stop.

    Lightning's `ModelCheckpoint(save_last=True, save_top_k=0)` writes nothing, and its other settings write the weights
    of every epoch twice. As a `Checkpoint` it is called after all other callbacks.
    """

    def __init__(self, path: Path, ranks: Ranks) -> None:
        """Write to `path`, which is replaced each epoch; a signal to any of the `ranks` stops all of them."""
        self.path, self.ranks = path, ranks
        self.batches = 0

    def state_dict(self) -> TrainerState:
        """Return how many batches of the epoch are done; 0 where the epoch is."""
        return {"batches": self.batches}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals as before: Lightning has put handlers of its own in place."""
        interruption.install()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save the state and stop, if a signal asks for it and no gradients wait for the optimizer.

        After the last batch of an epoch the state is saved as usual, once the epoch has been validated.
        """
        done = batch_idx + 1
        steps = done % trainer.accumulate_grad_batches == 0
        if steps and done < trainer.num_training_batches and self._is_pending():
            self.batches = done
            trainer.save_checkpoint(self.path)
            interruption.raise_deferred()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the state; stop if a signal asks for it."""
        self.batches = 0
        trainer.save_checkpoint(self.path)
        self._is_pending()
        interruption.raise_deferred()

    def _is_pending(self) -> bool:
        """Return whether a signal waits in any of the ranks, after letting it wait here too."""
        number = self.ranks.highest(interruption.pending_signal())
        if number:
            interruption.share(number)
        return number > 0


class Progress(Callback):
    """Log loss, scores and duration of each epoch, and report the batches to `mil.progress`."""

    def __init__(self, shown: bool = True) -> None:
        """Report batches if `shown`."""
        self.shown = shown
        self.start = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.start = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report how many batches of all epochs are done; early stopping may leave some out."""
        batches = int(trainer.num_training_batches)
        self._report(trainer.current_epoch * batches + batch_idx + 1, (trainer.max_epochs or 1) * batches)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write one line with the values that were logged."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name != "epoch"}
        values = "  ".join(f"{name} {value:.4f}" for name, value in sorted(metrics.items()))
        seconds = time.monotonic() - self.start
        logger.info("epoch %d of %s  %s  %.1f s", trainer.current_epoch + 1, trainer.max_epochs, values, seconds)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report that nothing is left."""
        self._report(1, 1)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Report that nothing is left, before the message is printed."""
        self._report(1, 1)

    def _report(self, done: int, total: int) -> None:
        if self.shown:
            advance("training", done, total)
