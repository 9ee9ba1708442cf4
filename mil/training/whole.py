"""The loss of all training bags at once, although few of them are in memory.

L. Gao, Y. Zhang, J. Han, J. Callan: Scaling deep contrastive learning batch size under memory limited setup. RepL4NLP
2021, arXiv:2101.06983 (gradient caching): a first pass without gradients gives every bag's logits and by them the
gradient of the loss in each logit; a second pass hands these back through the model, batch by batch. The sum is the
gradient of the one large batch. A partial likelihood over the whole risk set is learnt so in the memory of a batch.
"""

from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from mil.endpoints.endpoint import Endpoint
from mil.features.batches import Batch, WholeOrder
from mil.models.mil_model import MILModel
from mil.training.module import MILModule, Schedule


class WholeModule(MILModule):
    """A model that learns an endpoint, a step a pass over all training bags.

    The trainer accumulates the batches of a pass. Their composition is the same in both passes, and so is dropout,
    which depends on step and batch.
    """

    def __init__(
        self,
        model: MILModel,
        endpoint: Endpoint,
        optimizer: "partial[Optimizer]",
        schedule: Schedule,
        seed: int,
        survey: DataLoader[Batch],
    ) -> None:
        """`survey` reads a pass of the same batches as the trainer's own loader; the others are `MILModule`'s."""
        super().__init__(model, endpoint, optimizer, schedule, seed)
        self.survey = survey
        self.pull = torch.empty(0)
        """Gradient of the loss in each training bag's logits, `(b, c)`."""

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Surveys all bags before the first batch of a pass."""
        if batch_idx % len(self.survey) == 0:
            self.pull = self._surveyed()
        self._sow(batch_idx % len(self.survey))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """What has the gradient of the whole cohort's loss in this batch's part of the logits, `()`."""
        logits: Tensor = self.model(self._cast(batch.bags)).logits.float()
        # the trainer divides by the batches that it accumulates
        return (logits * self.pull[batch.place]).sum() * self.trainer.accumulate_grad_batches

    def _surveyed(self) -> Tensor:
        """The first pass: the loss is logged, its gradient returned, `(b, c)`."""
        cast(WholeOrder, self.survey.sampler).set_epoch(self.current_epoch)
        found = []
        for at, batch in enumerate(self.survey):
            self._sow(at)
            # not the loader: it would read under autocast
            with torch.no_grad(), self.trainer.precision_plugin.forward_context():
                logits = self.model(self._cast(batch.bags.to(self.device))).logits.float()
            found.append((logits, batch.target, batch.place))
        every, target, place = (torch.cat(parts) for parts in zip(*found, strict=True))
        order = place.argsort()
        every = every[order.to(self.device)].requires_grad_()
        loss = self.endpoint.loss(every, target[order].to(self.device))
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(every))
        (pull,) = torch.autograd.grad(loss, every)
        return pull
