"""Integrated gradients, along the straight line from the reference tile to each tile.

M. Sundararajan, A. Taly, Q. Yan: Axiomatic attribution for deep networks. ICML 2017.
"""

import numpy as np
import torch
from torch import Tensor

from mil.bags import Bags
from mil.explain.explained_model import ExplainedModel
from mil.explain.methods import MethodOptions, Scored
from mil.explain.tile_scores import Method
from mil.inference.forward import device

METHOD = Method(
    name="integrated_gradients",
    title="integrated gradients",
    signed=True,
    sentence="What this tile adds to the result while all tiles change step by step from an average tile to what they "
    "are. The scores of all tiles add up to the result.",
)
STEPS: tuple[int, ...] = (8, 32, 128)
"""Points on the line, more only where the sum of the scores misses the result."""
_MISSED = 0.01
"""Share of the result by which the sum may miss it before more points are taken."""


def score(model: ExplainedModel, bag: Bags, options: MethodOptions) -> Scored:
    """Return the gradient, mean over the line, times the way from the reference tile, summed over the features."""
    difference = (model(bag) - model(model.reference_bag(bag, len(bag.features))))[0]  # (o,)
    if model.model.reads_places():  # the line starts at the bag's own places
        difference = (model(bag) - model(_moved(model, bag, 0.0)))[0]
    scores = torch.zeros(len(bag.features), len(difference), dtype=torch.float64)
    for steps in STEPS:
        scores = _integrated(model, bag, steps)
        missed = (scores.sum(0) - difference).abs()
        if (missed <= _MISSED * difference.abs().clamp(min=1e-3)).all():
            return Scored(scores=scores)
    worst = int(missed.argmax())
    note = f"The scores of {model.outputs[worst].name} miss the result by {missed[worst]:.2g} after {steps} steps."
    return Scored(scores=scores, note=note)


def _moved(model: ExplainedModel, bag: Bags, share: float) -> Bags:
    """Return the bag with its tiles on the line: at the reference tile for 0, themselves for 1."""
    features = bag.features.float()
    return bag.with_features(model.reference.float() + share * (features - model.reference.float()))


def _integrated(model: ExplainedModel, bag: Bags, steps: int) -> Tensor:
    points, weights = np.polynomial.legendre.leggauss(steps)
    place, scores = device(), torch.zeros(len(bag.features), len(model.outputs), dtype=torch.float64)
    network = model.model.to(place)
    way = (bag.features.float() - model.reference.float()).to(place)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        moved = _moved(model, bag, float(point)).to(place)
        features = moved.features.detach().requires_grad_()
        with torch.enable_grad():
            logits: Tensor = network(moved.with_features(features)).logits
            outputs = model.outputs_of(logits.double().cpu())[0]
            for at, output in enumerate(outputs):
                (gradient,) = torch.autograd.grad(output, features, retain_graph=at + 1 < len(outputs))
                scores[:, at] += weight * (gradient * way).sum(1).double().cpu()
    return scores
