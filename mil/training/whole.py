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

from mil.bags import Bags
from mil.endpoints.endpoint import Endpoint
from mil.features.batch_shares import SharedOrder
from mil.features.batches import Batch, WholeOrder
from mil.models.mil_model import MILModel
from mil.models.network_ensemble import members_of
from mil.training.module import MILModule, Schedule
from mil.training.pooled_loss import seated


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
        """gradient of the loss with respect to the logits of all training bags, `(b, m * c)`"""

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Compute the gradient of all logits before the first batch of a pass."""
        if batch_idx % len(self.survey) == 0:
            self.pull = self._surveyed()
        self._sow(batch_idx % len(self.survey))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return a scalar whose gradient is this batch's part of the gradient of the loss of all bags, `()`."""
        logits, place, _ = self._logits(batch, batch_idx % len(self.survey))
        # the trainer divides by the batches that it accumulates
        return (logits * self.pull[place]).sum() * self.trainer.accumulate_grad_batches

    def _logits(self, batch: Batch, at: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits of the bags of a batch, of all members `(b, m * c)`, with their places and targets.

        Args:
            batch: Of a rank, its bags; a stand-in has no row in what is returned.
            at: The place of the batch in the pass.
        """
        bags = self._cast(batch.bags)
        if not self.ranks.by_bag:
            return self._member_logits(bags), batch.place, batch.target
        seats = seated(batch, lambda seat: self._sow(at, seat))
        rows = [(row, self._member_logits(bags[row])) for row, _ in seats]
        index = [row for row, _ in rows]
        width = len(members_of(self.model)) * self.endpoint.out_dim
        nothing = torch.zeros(0, width, device=bags.features.device, requires_grad=True)
        return torch.cat([nothing, *(logits for _, logits in rows)]), batch.place[index], batch.target[index]

    def _member_logits(self, bags: Bags) -> Tensor:
        """Return the logits of all members side by side, `(b, m * c)`."""
        logits = self.model.trained_logits(self.model(bags))  # (m, b, c)
        return logits.transpose(0, 1).flatten(1).float()

    def _surveyed(self) -> Tensor:
        """Run the pass without gradients, log the mean loss of the members, and return its gradient, `(b, m * c)`."""
        cast(SharedOrder | WholeOrder, self.survey.sampler).set_epoch(self.current_epoch)
        batches = []
        for at, batch in enumerate(self.survey):
            self._sow(at)
            # autocast must not cover the loader, which reads features
            with torch.no_grad(), self.trainer.precision_plugin.forward_context():
                logits, place, target = self._logits(batch._replace(bags=batch.bags.to(self.device)), at)
            batches.append((logits, target, place))
        values, targets, places = (torch.cat(columns) for columns in zip(*batches, strict=True))
        values, targets = self.of_all(values, targets, places)
        values = values.to(self.device).requires_grad_()
        targets = targets.to(self.device)
        losses = [self.endpoint.loss(logits, targets) for logits in torch.split(values, self.endpoint.out_dim, 1)]
        loss = torch.stack(losses).mean()
        self._log_loss(loss.detach(), torch.arange(len(values)))
        (pull,) = torch.autograd.grad(loss, values)
        return pull
