"""The loss of all training bags together, with few of them in memory at a time.

L. Gao, Y. Zhang, J. Han, J. Callan: Scaling deep contrastive learning batch size under memory limited setup. RepL4NLP
2021, arXiv:2101.06983 (gradient caching): a first pass without gradients computes the logits of all bags, and from
them the gradient of the loss with respect to each logit; a second pass propagates these gradients through the model,
batch by batch. Their sum is the gradient of one large batch. Thus a partial likelihood over all patients at risk needs
the memory of one batch.
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
    """A model that is trained with one step per pass over all training bags.

    The trainer accumulates the gradients of a pass. Batches and dropout are the same in the pass without gradients.
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
        """`survey` reads the batches of the pass without gradients; the others are `MILModule`'s."""
        super().__init__(model, endpoint, optimizer, schedule, seed)
        self.survey = survey
        self.pull = torch.empty(0)
        """gradient of the loss with respect to the logits of all training bags, `(b, c)`"""

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Compute the gradient of all logits before the first batch of a pass."""
        if batch_idx % len(self.survey) == 0:
            self.pull = self._surveyed()
        self._sow(batch_idx % len(self.survey))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return a scalar whose gradient is this batch's part of the gradient of the loss of all bags, `()`."""
        logits: Tensor = self.model(self._cast(batch.bags)).logits.float()
        # the trainer divides by the batches that it accumulates
        return (logits * self.pull[batch.place]).sum() * self.trainer.accumulate_grad_batches

    def _surveyed(self) -> Tensor:
        """Run the pass without gradients, log the loss, and return its gradient by the logits, `(b, c)`."""
        cast(WholeOrder, self.survey.sampler).set_epoch(self.current_epoch)
        batches = []
        for at, batch in enumerate(self.survey):
            self._sow(at)
            # autocast must not cover the loader, which reads features
            with torch.no_grad(), self.trainer.precision_plugin.forward_context():
                logits = self.model(self._cast(batch.bags.to(self.device))).logits.float()
            batches.append((logits, batch.target, batch.place))
        shuffled, target, place = (torch.cat(values) for values in zip(*batches, strict=True))
        order = place.argsort()
        logits = shuffled[order.to(self.device)].requires_grad_()
        loss = self.endpoint.loss(logits, target[order].to(self.device))
        self._check_finite(loss.detach(), torch.arange(len(logits)))
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(logits))
        self.log_epoch()
        (pull,) = torch.autograd.grad(loss, logits)
        return pull
