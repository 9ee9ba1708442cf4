"""Layer-wise relevance propagation for models that are weighted means of tiles, with the attention held fixed.

J. Hense, M. J. Idaji, O. Eberle, T. Schnake, J. Dippel, L. Ciernik, O. Buchstab, A. Mock, F. Klauschen, K.-R. Müller:
xMIL: insightful explanations for multiple instance learning in histopathology. NeurIPS 2024. The attention's weights
are constants (the AH rule of A. Ali, T. Schnake, O. Eberle, G. Montavon, K.-R. Müller, L. Wolf: XAI for transformers.
ICML 2022), linear layers follow the epsilon rule, ReLU passes relevance on. With epsilon towards zero this is gradient
times input in each layer, and of layers that are piecewise linear also over all of them (M. Ancona, E. Ceolini,
C. Öztireli, M. Gross: Towards better understanding of gradient-based attribution methods. ICLR 2018, proposition 1):
one backward pass, without a division that an epsilon would have to keep finite.

Departure: outputs that are no logits themselves (one class against the others, a risk) begin with the mean slope on the
line from logits of zero to those of the bag, so that relevance adds up to the output less that of zero logits.
"""

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.errors import ConfigError
from mil.explain.explained_model import ExplainedModel
from mil.explain.methods import MethodOptions, Scored
from mil.explain.methods.contribution import mean_slope
from mil.explain.tile_scores import Method
from mil.inference.forward import device
from mil.layers.dropout import Dropout

METHOD = Method(
    name="lrp",
    title="relevance",
    signed=True,
    sentence="How much of the result is handed back to this tile, layer by layer, with the attention held fixed. "
    "The rest of the result belongs to constants of the model, not to tiles.",
)
PIECEWISE_LINEAR = (nn.Linear, nn.ReLU, Dropout, nn.Dropout, nn.Identity)
"""Layers without layers in them that the rules hold for, in evaluation."""
ATTENTION = "score"
"""Name of the submodule whose result is held fixed: what is in it needs no rule."""


def score(model: ExplainedModel, bag: Bags, options: MethodOptions) -> Scored:
    """Return each tile's relevance for each output; with that of biases it sums to output less that of zero logits.

    Raises:
        ConfigError: The model is no weighted mean of tiles, or its tiles pass layers that have no rule here.
    """
    relevance, constant = by_logit(model, bag)
    logits = relevance.sum(0, keepdim=True) + constant  # (1, c)
    slope = mean_slope(model, torch.zeros_like(logits), logits)  # (c, o)
    rest = zip((constant @ slope)[0].tolist(), model.outputs, strict=True)
    shares = ", ".join(f"{value:.2g} of {output.name}" for value, output in rest)
    return Scored(scores=relevance @ slope, note=f"Constants of the model, and no tile, account for {shares}.")


def by_logit(model: ExplainedModel, bag: Bags) -> tuple[Tensor, Tensor]:
    """Return the relevance of tiles for logits `(n, c)`, and that of biases and covariates `(1, c)`.

    Raises:
        ConfigError: see `score`.
    """
    place = device()
    network = model.model.to(place)
    moved = bag.cast(torch.float32).to(place)
    features = moved.features.detach().requires_grad_()
    with torch.enable_grad():
        terms = network.tile_terms(moved.with_features(features))
        if terms is None or (layer := _without_rule(network)):
            reason = "is no weighted mean of tiles" if terms is None else f"has a layer without a rule, {layer}"
            name = type(model.model).__name__
            raise ConfigError(f"--method lrp: {name} {reason}, expected integrated_gradients or single")
        weight = terms.weight.detach()  # (n, h), constants
        weighted = torch.einsum("nh,nhc->nc", weight, terms.logits)
        gradients = [torch.autograd.grad(column.sum(), features, retain_graph=True)[0] for column in weighted.unbind(1)]
    inputs = features.detach()
    relevance = torch.stack([(gradient * inputs).sum(1) for gradient in gradients], 1).double().cpu()  # (n, c)
    return relevance, weighted.detach().double().cpu().sum(0, keepdim=True) - relevance.sum(0, keepdim=True)


def _without_rule(network: nn.Module) -> str:
    """Return the kind of a layer that the rules do not hold for; empty where there is none."""
    for name, layer in network.named_modules():
        if not list(layer.children()) and ATTENTION not in name.split(".") and not isinstance(layer, PIECEWISE_LINEAR):
            return type(layer).__name__
    return ""
