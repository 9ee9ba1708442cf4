"""ABMIL against the paper's equations, written tile by tile in numpy, and against torchmil."""

import numpy as np
import pytest
import torch
import torchmil.models
from numpy.typing import NDArray

from mil.bags import Bags
from mil.models.abmil import ABMIL

from .reference import take, take_gated

Weights = dict[str, NDArray[np.float64]]


def affine(weights: Weights, name: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(weights[f"{name}.weight"] @ x + weights[f"{name}.bias"])


def score(weights: Weights, tile: NDArray[np.float64], head: int, gated: bool) -> float:
    """The exponent of equation (8), or of equation (9) where gated."""
    inner = affine(weights, "score.branches", tile)  # V's rows, then U's
    value, gate = np.split(inner, 2) if gated else (inner, None)
    inner = np.tanh(value) if gate is None else np.tanh(value) / (1 + np.exp(-gate))
    return float(weights["score.score.weight"][head] @ inner)


def read(weights: Weights, bag: NDArray[np.float64], heads: int, gated: bool) -> tuple[NDArray[np.float64], ...]:
    """Logits, and the attention of each tile under each head, of one bag."""
    tiles = [np.maximum(affine(weights, "embed.0", row), 0) for row in bag]
    attention, pooled = [], []
    for head in range(heads):
        exponentials = [np.exp(score(weights, tile, head, gated)) for tile in tiles]
        shares = [value / sum(exponentials) for value in exponentials]
        attention.append(shares)
        pooled.append(sum(share * tile for share, tile in zip(shares, tiles, strict=True)))  # equation (7)
    return affine(weights, "head", np.concatenate(pooled)), np.array(attention).T


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("heads", [1, 3])
def test_logits_and_attention_are_those_of_the_equations(gated: bool, heads: int) -> None:
    torch.manual_seed(0)
    model = ABMIL(6, 2, embed_dim=7, attention_dim=5, heads=heads, gated=gated).double().eval()
    bags = Bags(3 * torch.randn(13, 6, dtype=torch.float64), (4, 1, 8))
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    output = model(bags)
    expected = [read(weights, bag.features.numpy(), heads, gated) for bag in bags]
    np.testing.assert_allclose(output.logits.detach(), [logits for logits, _ in expected], rtol=1e-12, atol=1e-13)
    attention = np.concatenate([shares for _, shares in expected])
    np.testing.assert_allclose(output.extra["heads"].detach(), attention, rtol=1e-12, atol=1e-15)
    assert output.attention is not None
    np.testing.assert_allclose(output.attention.detach(), attention.mean(1), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("gated", [False, True])
def test_logits_and_attention_are_torchmils(gated: bool) -> None:
    torch.manual_seed(0)
    theirs = torchmil.models.ABMIL((8,), att_dim=5, gated=gated).double().eval()
    model = ABMIL(8, 1, embed_dim=8, attention_dim=5, gated=gated).double().eval()
    take(
        model.embed[0], weight=torch.eye(8), bias=torch.zeros(8)
    )  # features that are not negative go through as they are
    weights = theirs.pool.state_dict()
    if gated:
        take_gated(model.score, weights, "fc1.module", "fc_gated.module", "fc2")
    else:
        take(model.score.branches, weight=weights["fc1.module.weight"], bias=weights["fc1.module.bias"])
        take(model.score.score, weight=weights["fc2.weight"])
    take(model.head, **dict(theirs.classifier.module.named_parameters()))
    bags = Bags(torch.rand(13, 8, dtype=torch.float64), (13,))
    logits, scores = theirs(bags.features[None], return_att=True)
    output = model(bags)
    torch.testing.assert_close(output.logits[:, 0], logits, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(output.attention, scores[0].softmax(0), rtol=1e-10, atol=1e-12)


def test_only_the_gated_model_has_a_gate() -> None:
    rows = {gated: len(ABMIL(6, 2, attention_dim=5, gated=gated).score.branches.weight) for gated in (False, True)}
    assert rows == {False: 5, True: 10}


def test_one_mask_on_the_product_drops_what_a_mask_on_each_branch_would() -> None:
    keep = (1 - 0.25) ** 2
    assert ABMIL(6, 2, gated=True, dropout=0.25).score.dropout.rate == pytest.approx(1 - keep)
    assert ABMIL(6, 2, gated=False, dropout=0.25).score.dropout.rate == 0.25


def test_in_training_dropout_makes_two_passes_differ_and_a_seed_makes_them_equal() -> None:
    model, bags = ABMIL(6, 2).train(), Bags(torch.ones(9, 6), (9,))
    logits = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        logits.append(model(bags).logits)
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])
