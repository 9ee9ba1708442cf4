"""Lightning's strategy of several processes, with gradients that are summed once a step.

torch's `DistributedDataParallel` averages gradients while they are computed. Here each process has its part of the
gradient of one loss (`mil.training.pooled_loss`), so they are summed; a process may have no bag of a batch, and
weights that no bag used keep no gradient, as in one process, so that the optimizer leaves them alone. Models have some
megabytes: to overlap their exchange with the backward pass would save little.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as distributed
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from mil.study.available_devices import slurm_tasks
from mil.training.ranks import Ranks


def environment(ranks: Ranks) -> ClusterEnvironment:
    """Return how Lightning learns of the processes: from SLURM where `srun` has started all of them.

    Elsewhere not from SLURM, which would count tasks as devices; and never with its answer to signals, to requeue.
    """
    if ranks.count > 1 and slurm_tasks() == ranks.count:
        return SLURMEnvironment(auto_requeue=False)
    return LightningEnvironment()


class SummedGradients(DDPStrategy):
    """Sums the gradients of all processes after the last backward pass of a step."""

    def __init__(self, ranks: Ranks, **options: Any) -> None:
        """`ranks` are the processes, which are connected; `options` those of Lightning's strategy."""
        super().__init__(**options)
        self.ranks = ranks
        self.waits = False
        """whether further batches belong to the step"""

    def configure_ddp(self) -> None:
        """Start from the weights of rank 0; the model is not wrapped."""
        module = self.lightning_module
        for values in () if module is None else (*module.parameters(), *module.buffers()):
            distributed.broadcast(values.detach(), 0)

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Leave the gradients of a batch that does not end a step as they are."""
        self.waits = True
        try:
            yield
        finally:
            self.waits = False

    def post_backward(self, closure_loss: Tensor) -> None:
        """Sum the gradients."""
        module = self.lightning_module
        if not self.waits and module is not None:
            sum_gradients(module)

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        """Wait for all processes."""
        self.ranks.highest(0)


def sum_gradients(module: nn.Module) -> None:
    """Sum the gradients of all processes in one exchange; weights that are used by none keep none."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    used = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.uint8)
    distributed.all_reduce(used, distributed.ReduceOp.MAX)
    used_weights = [weight for weight, is_used in zip(weights, used.tolist(), strict=True) if is_used]
    if not used_weights:
        return
    gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in used_weights]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    sums = torch.split(flat, [weight.numel() for weight in used_weights])
    for weight, total in zip(used_weights, sums, strict=True):
        weight.grad = total.view_as(weight)


def separate_gradients(module: nn.Module) -> None:
    """Give each weight a gradient of its own, which clipping in place then scales once.

    After one backward pass autograd may leave the same memory as gradient of several weights that are added up, such as
    the biases of TransMIL's three convolutions.
    """
    places = set[int]()
    for weight in module.parameters():
        if weight.grad is not None:
            if weight.grad.data_ptr() in places:
                weight.grad = weight.grad.clone()
            places.add(weight.grad.data_ptr())
