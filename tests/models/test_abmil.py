"""ABMIL against the paper's equations, computed tile by tile in numpy, and against torchmil."""

import numpy as np
import pytest
import torch
import torchmil.models
from numpy.typing import NDArray

from mil.bags import Bags
from mil.models.abmil import ABMIL

from .reference import copy_gated, copy_parameters

Weights = dict[str, NDArray[np.float64]]


def affine(weights: Weights, name: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(weights[f"{name}.weight"] @ x + weights[f"{name}.bias"])


def score(weights: Weights, tile: NDArray[np.float64], head: int, gated: bool) -> float:
    """Return the exponent of equation (8), or of equation (9) if gated."""
    inner = affine(weights, "score.branches", tile)  # rows of V, then of U
    value, gate = np.split(inner, 2) if gated else (inner, None)
    inner = np.tanh(value) if gate is None else np.tanh(value) / (1 + np.exp(-gate))
    return float(weights["score.score.weight"][head] @ inner)


def read(weights: Weights, bag: NDArray[np.float64], heads: int, gated: bool) -> tuple[NDArray[np.float64], ...]:
    """Return the logits of one bag, and the attention of each tile under each head."""
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
def test_logits_and_attention_match_the_equations(gated: bool, heads: int) -> None:
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
def test_logits_and_attention_match_torchmil(gated: bool) -> None:
    torch.manual_seed(0)
    theirs = torchmil.models.ABMIL((8,), att_dim=5, gated=gated).double().eval()
    model = ABMIL(8, 1, embed_dim=8, attention_dim=5, gated=gated).double().eval()
    # the identity, as the features are not negative
    copy_parameters(model.embed[0], weight=torch.eye(8), bias=torch.zeros(8))
    weights = theirs.pool.state_dict()
    if gated:
        copy_gated(model.score, weights, "fc1.module", "fc_gated.module", "fc2")
    else:
        copy_parameters(model.score.branches, weight=weights["fc1.module.weight"], bias=weights["fc1.module.bias"])
        copy_parameters(model.score.score, weight=weights["fc2.weight"])
    copy_parameters(model.head, **dict(theirs.classifier.module.named_parameters()))
    bags = Bags(torch.rand(13, 8, dtype=torch.float64), (13,))
    logits, scores = theirs(bags.features[None], return_att=True)
    output = model(bags)
    torch.testing.assert_close(output.logits[:, 0], logits, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(output.attention, scores[0].softmax(0), rtol=1e-10, atol=1e-12)


def test_only_the_gated_model_has_a_gate() -> None:
    rows = {gated: len(ABMIL(6, 2, attention_dim=5, gated=gated).score.branches.weight) for gated in (False, True)}
    assert rows == {False: 5, True: 10}


def test_gated_dropout_rate_equals_one_mask_per_branch() -> None:
    keep = (1 - 0.25) ** 2
    assert ABMIL(6, 2, gated=True, dropout=0.25).score.dropout.rate == pytest.approx(1 - keep)
    assert ABMIL(6, 2, gated=False, dropout=0.25).score.dropout.rate == 0.25


def test_dropout_depends_on_the_seed_in_training() -> None:
    model, bags = ABMIL(6, 2).train(), Bags(torch.ones(9, 6), (9,))
    logits = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        logits.append(model(bags).logits)
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])
