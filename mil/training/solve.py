"""Weights of linear models, solved for with all training patients at once."""

import copy
import logging

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.endpoints.endpoint import Endpoint
from mil.errors import TrainingError
from mil.features.batches import BagDataset, Draw
from mil.models.mil_model import MILModel
from mil.training.baseline import PENALTIES

logger = logging.getLogger(__name__)
MOST_STEPS = 200


def solve(model: MILModel, endpoint: Endpoint, train: BagDataset, select: BagDataset) -> float:
    """Fit a model of mean vectors by L-BFGS under several ridge penalties and keep the best; return its penalty.

    Args:
        model: Fitted in place; its output depends on the mean of a bag's vectors only.
        endpoint: Its loss; the penalty is added to it.
        train: Bags that the weights are fitted to; their means standardise the inputs.
        select: Bags on which the loss decides between the penalties.

    Raises:
        TrainingError: No penalty gives finite weights.
    """
    means, chosen = means_of(train), means_of(select)
    model.double()
    model.fit_tiles(means.features)
    start, best, lowest, penalty = copy.deepcopy(model.state_dict()), None, float("inf"), 0.0
    for candidate in PENALTIES:
        model.load_state_dict(start)
        loss = _fitted(model, endpoint, (means, train.target), (chosen, select.target), candidate)
        if loss < lowest:
            best, lowest, penalty = copy.deepcopy(model.state_dict()), loss, candidate
    if best is None:
        raise TrainingError(f"the loss is not finite for any penalty of {PENALTIES[0]:g} to {PENALTIES[-1]:g}")
    model.load_state_dict(best)
    for name, buffer in model.named_buffers():
        if name.endswith("penalty"):
            buffer.fill_(penalty)
    model.float()
    logger.info("penalty %g of %d chosen on %d bags of model selection", penalty, len(PENALTIES), len(select))
    return penalty


def means_of(data: BagDataset) -> Bags:
    """Return bags of one row each, the mean of a bag's vectors in double precision, with its covariates."""
    batches = [data[[Draw(bag)]].bags for bag in range(len(data))]
    means = torch.cat([batch.features.double().mean(0, keepdim=True) for batch in batches])
    covariates = [batch.covariates for batch in batches if batch.covariates is not None]
    return Bags(means, (1,) * len(batches), covariates=torch.cat(covariates) if covariates else None)


def _fitted(
    model: MILModel, endpoint: Endpoint, train: tuple[Bags, Tensor], select: tuple[Bags, Tensor], penalty: float
) -> float:
    """Fit the weights under one penalty, from zero, and return the loss on the bags of model selection."""
    for weight in model.parameters():
        nn.init.zeros_(weight)
    weights = [weight for name, weight in model.named_parameters() if not name.endswith("bias")]
    solver = torch.optim.LBFGS(model.parameters(), max_iter=MOST_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = endpoint.loss(model(train[0]).logits, train[1])
        loss = loss + penalty * sum(weight.square().sum() for weight in weights)
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships this method without types
        return loss

    solver.step(closure)  # type: ignore[no-untyped-call]  # likewise
    with torch.no_grad():
        return float(endpoint.loss(model(select[0]).logits, select[1]))
