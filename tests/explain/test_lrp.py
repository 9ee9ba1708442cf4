"""Layer-wise relevance propagation: the published rules layer by layer, conservation, and what has no rule."""

import pytest
import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.errors import ConfigError
from mil.explain.explained_model import ExplainedModel
from mil.explain.methods import MethodOptions, lrp
from mil.models.abmil import ABMIL
from mil.models.fusion import Fused
from tests.explain.subjects import LINEAR, bag_of, subject
from tests.models.endpoints import ENDPOINTS
from tests.models.zoo import IN_DIM

OPTIONS = MethodOptions()
EPSILON = 1e-7
"""Of the rules below; the authors have 1e-5."""


def without_biases(model: ExplainedModel) -> ExplainedModel:
    """Return the model with all its biases set to zero."""
    with torch.no_grad():
        for name, weights in model.model.named_parameters():
            if name.endswith("bias"):
                weights.zero_()
    return model


def stable(values: Tensor) -> Tensor:
    """Return values moved away from zero by epsilon."""
    return values + torch.where(values >= 0, EPSILON, -EPSILON)


def by_rules(network: ABMIL, bag: Bags) -> tuple[Tensor, Tensor]:
    """Return the relevance of tiles and of biases by the rules of Hense et al. 2024, one layer after the other.

    Linear layers have the epsilon rule with the bias in the denominator; pooling has the AH rule, attention constant.
    """
    network = network.double()
    tiles = bag.features.double()
    first, head = network.embed[0], network.head
    assert isinstance(first, nn.Linear)
    with torch.no_grad():
        before = first(tiles)  # (n, e)
        hidden = before.relu()
        attention = network.score(hidden).softmax(0)  # (n, 1)
        pooled = (attention * hidden).sum(0)  # (e,)
        logit = head(pooled)[0]
        from_head = pooled * head.weight[0] / stable(logit) * logit  # (e,)
        from_pool = attention * hidden / stable(pooled) * from_head  # (n, e)
        messages = from_pool / stable(before)
        relevance = (tiles * (messages @ first.weight)).sum(1)
        biases = (messages * first.bias).sum() + head.bias[0] / stable(logit) * logit
    return relevance, biases


@pytest.mark.parametrize("gated", [False, True])
def test_relevance_is_that_of_the_published_rules_layer_by_layer(gated: bool) -> None:
    torch.manual_seed(1)
    network = ABMIL(IN_DIM, 1, 32, 16, gated=gated).eval()
    bag, model = bag_of(40), ExplainedModel(network, None, torch.zeros(IN_DIM))
    scores, constant = lrp.by_logit(model, bag)
    logit = model(bag)
    expected, biases = by_rules(network, bag)
    torch.testing.assert_close(scores[:, 0], expected, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(constant[0, 0], biases, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(expected.sum() + biases, logit[0, 0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("endpoint", ["binary", "multiclass", "cox", "competing_risks"])
@pytest.mark.parametrize("name", LINEAR)
def test_without_biases_the_relevance_of_tiles_is_the_result(name: str, endpoint: str) -> None:
    """Biases are where relevance could hide: without them nothing but tiles can hold it."""
    model, bag = without_biases(subject(name, ENDPOINTS[endpoint][0])), bag_of(30)
    logits = model.logits(bag)
    result = model.outputs_of(logits) - model.outputs_of(torch.zeros_like(logits))
    scores = lrp.score(model, bag, OPTIONS).scores
    torch.testing.assert_close(scores.sum(0, keepdim=True), result, atol=1e-5, rtol=1e-4)


def test_what_constants_account_for_is_stated_with_covariates_among_them() -> None:
    inner = without_biases(subject("abmil"))
    fused = Fused(inner.model, 2, 1).eval()
    with torch.no_grad():
        fused.shift.weight.fill_(1.5)
    bag = bag_of(10)
    bag = Bags(bag.features, bag.sizes, bag.coords, covariates=torch.tensor([[1.0, 1.0]]))
    scored = lrp.score(ExplainedModel(fused, None, inner.reference), bag, OPTIONS)
    assert scored.note == "Constants of the model, and no tile, account for 3 of logit 1."
    torch.testing.assert_close(scored.scores, lrp.score(inner, bag, OPTIONS).scores)


def test_models_that_read_tiles_together_and_layers_without_a_rule_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"lrp: Transformer is no weighted mean of tiles, expected integrated"):
        lrp.score(subject("transformer"), bag_of(5), OPTIONS)
    network = ABMIL(IN_DIM, 1, 8, 4).eval()
    network.embed[1] = nn.GELU()
    with pytest.raises(ConfigError, match="lrp: ABMIL has a layer without a rule, GELU"):
        lrp.score(ExplainedModel(network, None, torch.zeros(IN_DIM)), bag_of(5), OPTIONS)
