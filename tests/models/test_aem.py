"""AEM: the forward pass of ABMIL, and an entropy term in the loss."""

import math

import pytest
import torch

from mil.bags import Bags
from mil.endpoints.classification import Binary, Multiclass
from mil.models.aem import AEM

from .reference import copy_gated, copy_linear, golden


def test_loss_is_the_endpoint_loss_minus_the_mean_entropy() -> None:
    torch.manual_seed(0)
    model = AEM(5, 1, weight=0.3, embed_dim=6, attention_dim=4, heads=2).double().eval()
    bags, target = Bags(torch.randn(13, 5, dtype=torch.float64), (8, 1, 4)), torch.tensor([1.0, 0, 1])
    output = model(bags)
    heads = [rows.T.tolist() for rows in bags.split(output.extra["heads"])]
    entropies = [sum(-share * math.log(share) for head in bag for share in head) / 2 for bag in heads]
    assert output.extra["entropy"].tolist() == pytest.approx(entropies)
    assert entropies[1] == 0
    expected = Binary().loss(output.logits, target).item() - 0.3 * sum(entropies) / 3
    assert model.loss(output, target, Binary()).item() == pytest.approx(expected)


def test_outputs_and_losses_match_the_authors_code() -> None:
    arrays, weights = golden("abmil_aem")
    model = AEM(7, 3, weight=0.1, embed_dim=6, attention_dim=5).double().eval()
    copy_linear(model.abmil.embed[0], weights, "dimreduction.fc1")
    copy_linear(model.abmil.head, weights, "classifier.fc")
    copy_gated(
        model.abmil.score, weights, "attention.attention_V.0", "attention.attention_U.0", "attention.attention_weights"
    )
    output = model(Bags(arrays["features"], (23,)))
    torch.testing.assert_close(output.logits, arrays["logits"], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(output.attention, arrays["attention"][0], rtol=1e-10, atol=1e-10)
    loss = arrays["loss.slide_loss"].item() + 0.1 * arrays["loss.div_loss"].item()
    assert model.loss(output, arrays["label"][None], Multiclass()).item() == pytest.approx(loss, rel=1e-10)


def test_entropy_of_saturated_attention_has_a_finite_gradient() -> None:
    torch.manual_seed(0)
    model, bags = AEM(5, 1, embed_dim=6, attention_dim=4, dropout=0), Bags(10 * torch.randn(9, 5), (9,))
    with torch.no_grad():
        model.abmil.score.score.weight.mul_(1e4)
    output = model(bags)
    assert (output.extra["heads"] == 0).any()
    torch.autograd.backward(model.loss(output, torch.ones(1), Binary()))
    assert all(value.grad is not None and value.grad.isfinite().all() for value in model.parameters())


def test_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="weight of the entropy is -1, expected zero or more"):
        AEM(5, 1, weight=-1)
