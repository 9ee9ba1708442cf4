"""The Lightning module: training and validation steps, gradient clipping, optimizer."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mil.bags import Bags
from mil.endpoints.endpoint import Endpoint
from mil.errors import TrainingError
from mil.features.batch_shares import IDLE
from mil.features.batches import Batch
from mil.layers.dropout import seed_draws
from mil.models.mil_model import MILModel
from mil.models.network_ensemble import members_of
from mil.tables import listed
from mil.training.member_gradients import clip_gradients, restore_gradients
from mil.training.pooled_loss import packed, pooled_loss, unpacked
from mil.training.pretrained import groups
from mil.training.ranks import Ranks
from mil.training.summed_gradients import separate_gradients

Schedule = Callable[[int, int], float]
_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def feature_dtype(precision: str) -> torch.dtype:
    """Return the type in which the first layer computes under one of Lightning's precisions."""
    return _DTYPES.get(precision, torch.float32)


def on_device(batch: Batch, device: torch.device) -> Batch:
    """Return a batch on a device. Copies from page-locked memory to a GPU are not waited for."""
    later = device.type == "cuda"
    tensors = (None if rows is None else rows.to(device, non_blocking=later) for rows in batch[1:])
    return Batch(batch.bags.to(device, non_blocking=later), *tensors)  # type: ignore[arg-type]  # they keep their order


@dataclass
class _Step:
    """The loss `()` of a training step, and the places `(b,)` of its bags in the dataset."""

    loss: Tensor
    place: Tensor
    epoch: int
    number: int
    copied: "torch.cuda.Event | None" = None

    def begin_copy(self) -> None:
        """Begin to copy the loss of a GPU to page-locked memory."""
        if self.loss.device.type == "cuda":
            loss = torch.empty_like(self.loss, device="cpu", pin_memory=True)
            self.loss = loss.copy_(self.loss, non_blocking=True)
            self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.copied.record()

    def on_host(self) -> "_Step":
        """Return the step once its loss is known; the device goes on with what came after."""
        if self.copied is not None:
            self.copied.synchronize()
        return self


class MILModule(LightningModule):
    """A model that is trained for an endpoint."""

    def __init__(
        self, model: MILModel, endpoint: Endpoint, optimizer: "partial[Optimizer]", schedule: Schedule, seed: int
    ) -> None:
        """Wrap a model.

        Args:
            model: The network.
            endpoint: Its loss and scores.
            optimizer: Still to be called with the parameters.
            schedule: Factor of the learning rate by step and number of steps.
            seed: With step and batch it determines dropout.
        """
        super().__init__()
        self.model, self.endpoint = model, endpoint
        self.optimizer, self.schedule, self.seed = optimizer, schedule, seed
        self.trunk_lr: float | None = None
        """factor of the learning rate of all layers but heads, 0 freezes them; None treats all alike"""
        self.stepped = 0
        """steps that the model was told of"""
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []
        """logits, targets and places of the selection bags"""
        self.validated = torch.empty(0)
        """logits `(b, c)` of all selection bags after the latest epoch, in their order, on the CPU"""
        self.ranks = Ranks()
        """the processes that train the model together"""
        self.bag_names: Sequence[str] = ()
        """of the training bags, for messages"""
        self._earlier: _Step | None = None
        """the latest step of a GPU, whose loss was not looked at yet"""

    def _log_loss(self, loss: Tensor, place: Tensor) -> None:
        """Check and log the loss `()` of the training bags at `place`, `(b,)`."""
        self._check_finite(loss, place)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(place))

    def _check_finite(self, loss: Tensor, place: Tensor) -> None:
        """Stop at the step at which the loss is not finite: every later weight would be NaN. On a GPU one step later.

        Args:
            loss: `()`.
            place: Which training bags it is of, `(b,)`.

        Raises:
            TrainingError: It is NaN or infinite.
        """
        self._check_earlier()
        detached = loss.detach()
        step = _Step(detached, place, self.current_epoch + 1, self.global_step + 1)
        if loss.device.type == "cpu":
            self._require_finite(step)
        else:
            # asking now would wait until the device has computed everything so far: it is looked at one step later
            step.begin_copy()
            self._earlier = step

    def _check_earlier(self) -> None:
        """Check the loss of the latest step that was not looked at."""
        earlier, self._earlier = self._earlier, None
        if earlier is not None:
            self._require_finite(earlier.on_host())

    def _require_finite(self, step: "_Step") -> None:
        if bool(torch.isfinite(step.loss)):
            return
        bags = [self.bag_names[index] if self.bag_names else str(index) for index in step.place.tolist()]
        raise TrainingError(
            f"the loss is not finite ({float(step.loss)}) in epoch {step.epoch}, "
            f"step {step.number}, for the bags {listed(sorted(bags))}"
        )

    def log_epoch(self) -> None:
        """Log the number of the epoch, counted from 1 as everywhere else; Lightning itself would log it from 0."""
        self.log("epoch", float(self.current_epoch + 1), on_step=False, on_epoch=True, batch_size=1)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Return the batch on a device; a GPU copies it from page-locked memory while it computes.

        Lightning waits for the copy of everything that is no tensor, such as `Bags`.
        """
        return on_device(batch, device)

    def on_train_epoch_start(self) -> None:
        """Tell the model which epoch begins."""
        self.model.begin_epoch(self.current_epoch)

    def on_train_epoch_end(self) -> None:
        """Log the number of the epoch."""
        self.log_epoch()

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Tell the model when the optimizer has taken a step."""
        if self.global_step != self.stepped:
            self.stepped = self.global_step
            self.model.after_step()
        if self.trainer.is_last_batch:
            self._check_earlier()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout, so that a resumed run repeats that of an uninterrupted one and batches of a step differ."""
        self._sow(batch_idx)

    def _sow(self, place: int, *seat: int) -> None:
        """Seed by the run's seed, the step, the place of the batch in the epoch, and the seat of a bag in the batch."""
        seed_draws(hash((self.seed, self.global_step, place, *seat)) % 2**63, self.device)

    def _cast(self, bags: Bags) -> Bags:
        return bags.cast(feature_dtype(str(self.trainer.precision)))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch, `()`; of a rank a scalar whose gradient is its part of that of the loss."""
        bags = self._cast(batch.bags)
        if self.ranks.by_bag:
            sow = partial(self._sow, batch_idx)
            pooled = pooled_loss(self.model, self.endpoint, batch._replace(bags=bags), self.ranks, sow)
            self._log_loss(pooled.value, pooled.place)
            return pooled.local
        loss: Tensor = self.model.loss(self.model(bags), batch.target, self.endpoint)
        self._log_loss(loss, batch.place)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the logits of one bag of model selection; of a stand-in, no row of them."""
        rows = 0 if batch.seat is not None and int(batch.seat[0]) == IDLE else 1
        logits: Tensor = self.model(self._cast(batch.bags)).logits
        self.seen.append((logits[:rows].float(), batch.target[:rows], batch.place[:rows]))

    def _seen(self) -> tuple[Tensor, Tensor]:
        """Return logits and targets of all selection bags, in their order, and forget them."""
        logits, target, place = (torch.cat(values).cpu() for values in zip(*self.seen, strict=True))
        self.seen.clear()
        return self.of_all(logits, target, place)

    def of_all(self, logits: Tensor, target: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits `(b, c)` and targets of the bags of all ranks, in the order of their places, on the CPU."""
        if self.ranks.count == 1:
            order = place.argsort()
            return logits[order], target[order]
        columns = place.unsqueeze(1).double().cpu(), packed(logits), packed(target)
        table, _ = self.ranks.gathered(torch.cat(columns, 1))
        table = table[table[:, 0].argsort()]
        width = logits.shape[1]
        return table[:, 1 : 1 + width].to(logits.dtype), unpacked(table[:, 1 + width :], target)

    def on_validation_epoch_end(self) -> None:
        """Log loss and scores of all selection bags together: a partial likelihood needs all patients at risk.

        Raises:
            TrainingError: Outputs are not finite.
        """
        logits, target = self._seen()
        self.validated = logits
        if not bool(torch.isfinite(logits).all()):
            count = int((~torch.isfinite(logits)).any(1).sum())
            raise TrainingError(
                f"the loss is not finite in epoch {self.current_epoch + 1}: after its last step the outputs of {count} "
                f"of {len(logits)} bags of model selection are NaN or infinite"
            )
        scores = {name: float(value) for name, value in self.endpoint.score(logits, target).items()}
        values = {"loss": float(self.endpoint.loss(logits, target)), **scores}
        self.log_dict({f"select_{name}": value for name, value in values.items()}, batch_size=len(logits))
        self.log_epoch()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by norm or value, each member of an ensemble by itself.

        Lightning refuses fused optimizers for every precision, not float16 alone.
        """
        if self.ranks.by_bag:
            separate_gradients(self)
        restore_gradients(self.model)
        is_scaled = getattr(optimizer, "_step_supports_amp_scaling", False)  # what Lightning refuses to clip
        if self.trainer.precision == "16-mixed" and (is_scaled or len(members_of(self.model)) == 1):
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            clip_gradients(self.model, gradient_clip_val, gradient_clip_algorithm == "value")

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule, one factor per step."""
        weights: Iterable[Any] = self.model.parameters()
        if self.trunk_lr is not None:
            weights = list(groups(self.model, self.trunk_lr, float(self.optimizer.keywords["lr"])))
        optimizer = self.optimizer(weights)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = LambdaLR(optimizer, lambda step: self.schedule(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
