"""Which epoch's weights count, and over how many steps they are averaged.

Few select patients choose an epoch badly: of twenty events the loss of one epoch is as good as that of the next, and
its lowest value is where chance put it. Three remedies, each an option of `selection`:

- `average`: what is validated and kept is not the weights of the last step but their exponential moving average (B. T.
  Polyak, A. B. Juditsky, SIAM Journal on Control and Optimization 1992, doi 10.1137/0330046; A. Tarvainen, H. Valpola,
  Mean teachers, NeurIPS 2017, arXiv:1703.01780). Each average divides by the sum of its weights, as Adam's moments do,
  so that the random first weights have no part in it.
- `tolerance`: the latest epoch counts whose loss is higher than the lowest by no more than so many standard errors of
  the difference (the one-standard-error rule of L. Breiman et al., Classification and Regression Trees, 1984, towards
  the longer training: the schedule ends where the options say). The error is that of a jackknife that leaves out a
  tenth of the patients in turn, which any loss has, also one that compares patients.
- `refit`: see `mil.training.refit`.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from mil.endpoints.endpoint import Endpoint
from mil.training.module import MILModule
from mil.training.saved_state import TrainerState

PARTS = 10
"""How many parts of the patients the jackknife leaves out in turn."""


class Average(Callback):
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
    """Decides which epoch's weights of a training count.

    Attributes:
        weights: Those that it kept; empty where the last ones count.
        validates: Whether it needs the patients of model selection to be predicted after each epoch.
        logged: Whether the training is the fold's own, which the options' logger describes.
    """

    validates = True
    logged = True

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}

    @property
    def number(self) -> int | None:
        """The number of the epoch, counted from one; None where the last one counts."""
        return None


class Chosen(Judge):
    """Keep the weights of the epoch that the patients of model selection choose, see `selection.tolerance`.

    The weights are part of the trainer's state, so that a resumed run has them.
    """

    def __init__(self, tolerance: float = 0.0, patients: Sequence[str] = ()) -> None:
        """Choose an epoch.

        Args:
            tolerance: Standard errors by which the loss of a later epoch may be higher than the lowest.
            patients: Of the bags of model selection, in their order.
        """
        super().__init__()
        self.tolerance, self.patients = tolerance, patients
        self.lowest = float("inf")
        self.logits = torch.empty(0)
        """of the epoch with the lowest loss"""
        self.epoch = -1

    @property
    def number(self) -> int | None:
        """The number of the epoch; None where nothing was validated."""
        return self.epoch + 1 or None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights if their loss is the lowest so far, or not clearly higher; the first are always kept."""
        loss = float(trainer.callback_metrics["select_loss"])
        if loss < self.lowest or not self.weights:
            self.lowest = loss
            self._keep(trainer.current_epoch, pl_module)
            if self.tolerance:
                self.logits = _validated(pl_module)[0]
        elif self.tolerance and loss - self.lowest <= self.tolerance * self._error(pl_module):
            self._keep(trainer.current_epoch, pl_module)

    def _keep(self, epoch: int, pl_module: LightningModule) -> None:
        self.epoch = epoch
        self.weights = {name: value.detach().cpu().clone() for name, value in pl_module.state_dict().items()}

    def _error(self, pl_module: LightningModule) -> float:
        """Return the standard error of how much higher the loss is now than it was at its lowest."""
        logits, target, endpoint = _validated(pl_module)
        return difference_error(endpoint, logits, self.logits, target, self.patients)

    @property
    def state_key(self) -> str:
        """The name of the state in `last.ckpt`, that of runs begun with earlier versions."""
        return "Best"

    def state_dict(self) -> TrainerState:
        """Return the state for `last.ckpt`."""
        return {"loss": self.lowest, "logits": self.logits, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state_dict: TrainerState) -> None:
        """Restore the state from `last.ckpt`."""
        self.lowest, self.epoch, self.weights = (state_dict[key] for key in ("loss", "epoch", "weights"))
        self.logits = state_dict.get("logits", self.logits)


class Trace(Judge):
    """Keep the loss and the logits of the patients of model selection in every epoch."""

    logged = False

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []
        self.logits: list[Tensor] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add those of this epoch."""
        self.losses.append(float(trainer.callback_metrics["select_loss"]))
        self.logits.append(_validated(pl_module)[0])

    def state_dict(self) -> TrainerState:
        """Return the state for `last.ckpt`."""
        return {"losses": self.losses, "logits": self.logits}

    def load_state_dict(self, state_dict: TrainerState) -> None:
        """Restore the state from `last.ckpt`."""
        self.losses, self.logits = list(state_dict["losses"]), list(state_dict["logits"])


class Until(Judge):
    """Stop after a number of epochs of a schedule that is made for more."""

    validates = False

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    @property
    def number(self) -> int | None:
        """The number of epochs."""
        return self.epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop after the last of them."""
        if trainer.current_epoch + 1 >= self.epochs:
            trainer.should_stop = True


def difference_error(
    endpoint: Endpoint, logits: Tensor, others: Tensor, target: Tensor, patients: Sequence[str]
) -> float:
    """Return the standard error of the difference of two losses of the same patients, by the jackknife.

    Args:
        endpoint: Whose loss it is.
        logits: Of each bag, `(b, c)`.
        others: Those that they are compared with, `(b, c)`.
        target: `(b, ...)`.
        patients: The patient of each bag, `(b,)`.

    Returns:
        In the unit of the loss; 0 where it is not defined, as for a single patient.
    """
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    part = torch.tensor([numbers[patient] for patient in patients]) % PARTS
    without = [part != number for number in range(min(PARTS, len(numbers)))]
    if len(without) < 2:
        return 0.0
    changes = torch.stack(
        [endpoint.loss(logits[rest], target[rest]) - endpoint.loss(others[rest], target[rest]) for rest in without]
    ).double()
    error = float(((len(without) - 1) * changes.var(correction=0)).sqrt())
    return error if math.isfinite(error) else 0.0


def _validated(pl_module: LightningModule) -> tuple[Tensor, Tensor, Endpoint]:
    """Return logits `(b, c)` and targets of the bags of model selection as they were just seen, and the endpoint."""
    module = cast(MILModule, pl_module)
    return *module.validated, module.endpoint
