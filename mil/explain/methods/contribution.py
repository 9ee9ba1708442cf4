"""What each tile adds to the bag's output, for models that are weighted means of their tiles."""

import numpy as np
import torch
from torch import Tensor

from mil.bags import Bags
from mil.errors import ConfigError
from mil.explain.explained_model import ExplainedModel
from mil.explain.methods import MethodOptions, Scored
from mil.explain.tile_scores import Method

METHOD = Method(
    name="contribution",
    title="contribution",
    signed=True,
    sentence="What this tile adds to the result: its weight times how far it differs from an average tile. "
    "The contributions of all tiles add up to the result.",
)
_NODES = 32


def score(model: ExplainedModel, bag: Bags, options: MethodOptions) -> Scored:
    """Return weight times (tile's logits less those of the reference tile), for each output.

    The sum over the tiles is the bag's output less that of the reference tile. Where an output is not a logit itself
    (one class against the others, a risk), its mean slope along the straight line from the reference's logits to the
    bag's turns contributions to logits into contributions to the output, and the sum stays exact.

    Raises:
        ConfigError: The model's logits are not a weighted mean of tiles.
    """
    terms = model.terms(bag)
    if terms is None:
        name = type(model.model).__name__
        raise ConfigError(f"--method contribution: {name} is no weighted mean of tiles, expected single or shapley")
    start = model.logits(model.reference_bag(bag))  # (1, c)
    heads = terms.weight.shape[1]
    by_head = model.terms(model.reference_bag(bag))
    reference = start.unsqueeze(1) / heads if by_head is None else by_head.logits  # (1, h, c)
    by_logit = torch.einsum("nh,nhc->nc", terms.weight, terms.logits - reference)  # (n, c)
    return Scored(scores=by_logit @ mean_slope(model, start, start + by_logit.sum(0, keepdim=True)))


def mean_slope(model: ExplainedModel, start: Tensor, end: Tensor) -> Tensor:
    """Return the mean derivative of the outputs by the logits on the line from `start` to `end` `(1, c)`, `(c, o)`.

    By Gauss and Legendre's quadrature; the mean slope times the difference of the logits is that of the outputs.
    """
    nodes, weights = (torch.from_numpy(values / 2) for values in np.polynomial.legendre.leggauss(_NODES))
    along = (start + (nodes.unsqueeze(1) + 0.5) * (end - start)).requires_grad_()  # (s, c)
    outputs = model.outputs_of(along)  # (s, o)
    slopes = [torch.autograd.grad(column.sum(), along, retain_graph=True)[0] for column in outputs.unbind(1)]
    return torch.stack([weights @ slope for slope in slopes], 1)
