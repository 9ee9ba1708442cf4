"""Which epochs' weights count, and over how many steps they are averaged.

Few select patients choose an epoch badly: of twenty events the loss of one epoch is as good as that of the next, and
its lowest value is where chance put it. Three remedies, each an option of `selection`:

- `best_epochs`: not the weights of the epoch with the lowest loss count, but the mean of those of several epochs with
  the lowest losses: where one is as good as another, their mean is better than most of them (averaging of weights along
  a training: P. Izmailov et al., UAI 2018, arXiv:1803.05407; of the best checkpoints: A. Vaswani et al., Attention is
  all you need, NeurIPS 2017, section 6.1).
- `moving_average`: what is validated and kept is not the weights of the last step but their exponential moving average
  (B. T. Polyak, A. B. Juditsky, SIAM Journal on Control and Optimization 1992, doi 10.1137/0330046; A. Tarvainen, H.
  Valpola, Mean teachers, NeurIPS 2017, arXiv:1703.01780). Each average divides by the sum of its weights, as Adam's
  moments do, so that the random first weights have no part in it.
- `refit`: see `mil.training.refit`.
"""

from bisect import bisect_right
from collections.abc import Sequence
from math import inf, isnan
from typing import NamedTuple, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from mil.training.module import MILModule
from mil.training.saved_state import TrainerState


class MovingAverage(Callback):
    """Keep the exponential moving average of the weights, and validate with it.

    Buffers, such as running counts, are those of the last step.
    """

    def __init__(self, epochs: float) -> None:
        """Average over about so many `epochs`; 0 keeps the weights of the last step."""
        self.epochs = epochs
        self.steps = 0
        self.weights: dict[str, Tensor] = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Add the weights after a step of the optimizer."""
        if not self.epochs or trainer.global_step == self.steps:
            return
        self.steps = trainer.global_step
        steps = trainer.num_training_batches / trainer.accumulate_grad_batches
        share = share_of_step(self.epochs, steps, self.steps)
        with torch.no_grad():
            for name, weight in pl_module.named_parameters():
                if name in self.weights:
                    self.weights[name] = self.weights[name].to(weight.device).lerp_(weight, share)
                else:
                    self.weights[name] = weight.detach().clone()

    def swap(self, pl_module: LightningModule) -> None:
        """Exchange the module's weights and their average, if there is one."""
        if not self.weights:
            return
        for name, weight in pl_module.named_parameters():
            weight.data, self.weights[name] = self.weights[name].to(weight.device), weight.data

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the average."""
        self.swap(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train on from the weights of the last step."""
        self.swap(pl_module)

    def state_dict(self) -> TrainerState:
        """Return the state for `last.ckpt`."""
        return {"steps": self.steps, "weights": self.weights}

    def load_state_dict(self, state_dict: TrainerState) -> None:
        """Restore the state from `last.ckpt`."""
        self.steps, self.weights = state_dict["steps"], state_dict["weights"]


def share_of_step(epochs: float, steps: float, number: int) -> float:
    """Return the share of the weights after a step in their average with those of all steps before.

    Args:
        epochs: Over which they are averaged; 0 takes the last.
        steps: Of an epoch.
        number: Of the step, from one.
    """
    decay = max(0.0, 1 - 1 / max(epochs * steps, 1))
    return (1 - decay) / (1 - decay**number)


class Judge(Callback):
    """Decides which epochs' weights of a training count.

    Attributes:
        validates: Whether it needs the patients of model selection to be predicted after each epoch.
        logged: Whether the training is the fold's own, which the options' logger describes.
    """

    validates = True
    logged = True

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights that count; empty where those of the last epoch do."""
        return {}

    @property
    def epochs(self) -> list[int]:
        """The epochs whose weights count, counted from one, that of the lowest loss first; empty: the last one."""
        return []


class Epoch(NamedTuple):
    """An epoch with one of the lowest losses so far."""

    loss: float
    number: int
    """from one"""
    weights: dict[str, Tensor]


class Best(Judge):
    """Keep the weights of the epochs with the lowest losses of the patients of model selection.

    They are part of the trainer's state, so that a resumed run has them.
    """

    def __init__(self, count: int = 1) -> None:
        """Keep so many epochs, of which at most half of those that were trained count."""
        self.count = count
        self.trained = 0
        """epochs"""
        self.lowest: list[Epoch] = []
        """the lowest loss first"""

    @property
    def weights(self) -> dict[str, Tensor]:
        """The mean of the weights; what is no floating-point number is that of the epoch with the lowest loss."""
        return mean_weights([epoch.weights for epoch in self._counting()]) if self.lowest else {}

    @property
    def epochs(self) -> list[int]:
        """The epochs whose weights count, counted from one, that of the lowest loss first."""
        return [epoch.number for epoch in self._counting()]

    def _counting(self) -> list[Epoch]:
        return self.lowest[: counting([epoch.loss for epoch in self.lowest], self.count, self.trained)]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights if their loss is one of the lowest so far; the first are always kept."""
        loss, self.trained = float(trainer.callback_metrics["select_loss"]), trainer.current_epoch + 1
        place = place_of(loss, [epoch.loss for epoch in self.lowest], self.count)
        if place is not None:
            self.lowest.insert(place, Epoch(loss, self.trained, cloned(pl_module)))
            del self.lowest[self.count :]

    def state_dict(self) -> TrainerState:
        """Return the state for `last.ckpt`."""
        return {"trained": self.trained, "lowest": [epoch._asdict() for epoch in self.lowest]}

    def load_state_dict(self, state_dict: TrainerState) -> None:
        """Restore the state from `last.ckpt`; that of earlier versions has one epoch, counted from zero."""
        if "lowest" in state_dict:
            self.trained = state_dict["trained"]
            self.lowest = [Epoch(**epoch) for epoch in state_dict["lowest"]]
        elif weights := state_dict["weights"]:
            self.trained = state_dict["epoch"] + 1
            self.lowest = [Epoch(state_dict["loss"], state_dict["epoch"] + 1, weights)]


def counting(losses: Sequence[float], count: int, trained: int) -> int:
    """Return how many of the best epochs count.

    Args:
        losses: Theirs, sorted; those that are not a number count only where no other is.
        count: How many at most.
        trained: Epochs, of which at most half count: of a short training the first are not yet worth it.
    """
    return min(count, max(1, trained // 2), max(1, sum(not isnan(loss) for loss in losses)))


def place_of(loss: float, lowest: Sequence[float], count: int) -> int | None:
    """Return where a loss comes among the lowest so far, which are sorted; None if `count` are as low or lower.

    A loss that is not a number comes last.
    """
    place = bisect_right([_sortable(each) for each in lowest], _sortable(loss))
    return place if place < count else None


def _sortable(loss: float) -> float:
    return inf if isnan(loss) else loss


def mean_weights(weights: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of each tensor; of one that has no floating-point numbers, the first."""
    return {
        name: torch.stack([each[name] for each in weights]).mean(0) if first.is_floating_point() else first
        for name, first in weights[0].items()
    }


class Trace(Judge):
    """Keep the loss and the logits of the patients of model selection in every epoch."""

    logged = False

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.logits: list[Tensor] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add those of this epoch."""
        self.losses.append(float(trainer.callback_metrics["select_loss"]))
        self.logits.append(_validated(pl_module))

    def state_dict(self) -> TrainerState:
        """Return the state for `last.ckpt`."""
        return {"losses": self.losses, "logits": self.logits}

    def load_state_dict(self, state_dict: TrainerState) -> None:
        """Restore the state from `last.ckpt`."""
        self.losses, self.logits = list(state_dict["losses"]), list(state_dict["logits"])


class CarriedOver(Judge):
    """Keep the weights of epochs that are known beforehand, and stop after the last of them."""

    validates = False

    def __init__(self, epochs: Sequence[int]) -> None:
        """Keep `epochs`, counted from one, that of the lowest loss first."""
        self.numbers = list(epochs)
        self.trained: dict[int, dict[str, Tensor]] = {}

    @property
    def weights(self) -> dict[str, Tensor]:
        """The mean of the weights."""
        return mean_weights([self.trained[number] for number in self.numbers])

    @property
    def epochs(self) -> list[int]:
        """The epochs."""
        return self.numbers

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights, averaged as they are, if they count, and stop after the last that do."""
        number = trainer.current_epoch + 1
        if number in self.numbers:
            (average,) = (each for each in trainer.callbacks if isinstance(each, MovingAverage))  # type: ignore[attr-defined]
            average.swap(pl_module)
            self.trained[number] = cloned(pl_module)
            average.swap(pl_module)
        if number >= max(self.numbers):
            trainer.should_stop = True

    def state_dict(self) -> TrainerState:
        """Return the state for `last.ckpt`."""
        return {"trained": self.trained}

    def load_state_dict(self, state_dict: TrainerState) -> None:
        """Restore the state from `last.ckpt`."""
        self.trained = state_dict["trained"]


def cloned(pl_module: LightningModule) -> dict[str, Tensor]:
    """Return a copy of a module's weights, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in pl_module.state_dict().items()}


def _validated(pl_module: LightningModule) -> Tensor:
    """Return the logits of the bags of model selection as they were just seen, `(b, c)`."""
    logits: Tensor = cast(MILModule, pl_module).validated
    return logits
