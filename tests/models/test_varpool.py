"""Variance pooling against a tile-by-tile computation, and bags without variance."""

import pytest
import torch
from torch import Tensor

from mil.bags import Bags
from mil.models.varpool import ACTS, VarPool

from .zoo import IN_DIM, simulated


def small_model(act: str, separate: bool = False) -> VarPool:
    torch.manual_seed(0)
    return VarPool(IN_DIM, 3, embed_dim=7, attention_dim=5, directions=4, act=act, separate=separate).double().eval()


def read(model: VarPool, bag: Tensor) -> tuple[Tensor, Tensor]:
    """Return the embedding of one bag, and its attention (one column, or one each for mean and variances)."""
    weights = model.state_dict()
    tiles = [torch.clamp(weights["embed.0.weight"] @ row + weights["embed.0.bias"], min=0) for row in bag]
    exponentials = torch.stack([model.score(tile[None])[0].exp() for tile in tiles])
    shares = exponentials / exponentials.sum(0)
    mean = sum((share[0] * tile for share, tile in zip(shares, tiles, strict=True)), torch.zeros(7))
    variances = []
    for direction in model.project.weight:
        along = [direction @ tile for tile in tiles]
        centre = sum(share[-1] * value for share, value in zip(shares, along, strict=True))
        variance = sum(share[-1] * (value - centre) ** 2 for share, value in zip(shares, along, strict=True))
        variances.append(torch.as_tensor(variance))
    spread = torch.stack(variances)
    return torch.cat([mean, (0.01 + spread).log() if model.act == "log" else spread.sqrt()]), shares


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("act", ACTS)
def test_logits_match_a_direct_computation(act: str, separate: bool) -> None:
    model, bags = small_model(act, separate), simulated((4, 9), dtype=torch.float64)
    output = model(bags)
    expected = [read(model, bag) for bag in bags.split()]
    torch.testing.assert_close(output.embedding, torch.stack([embedding for embedding, _ in expected]))
    torch.testing.assert_close(output.extra["heads"], torch.cat([shares for _, shares in expected]))
    torch.testing.assert_close(output.logits, output.embedding @ model.head.weight.T + model.head.bias)
    torch.testing.assert_close(output.attention, output.extra["heads"][:, 0])


@pytest.mark.parametrize("act", ACTS)
def test_gradients_are_finite_without_variance(act: str) -> None:
    model, tile = small_model(act), simulated((1,), dtype=torch.float64).features
    output = model(Bags(torch.cat([tile, tile.expand(3, -1)]), (1, 3)))
    torch.testing.assert_close(output.embedding[0], output.embedding[1], rtol=1e-9, atol=1e-6)
    torch.autograd.backward(output.logits.sum())
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


def test_variances_are_shift_invariant() -> None:
    from mil.models.varpool import _variance

    bags = simulated((5, 8), dtype=torch.float64)
    weight = bags.softmax(bags.features[:, :1])
    expected = _variance(bags, bags.features, weight)
    torch.testing.assert_close(_variance(bags, bags.features + 100, weight), expected, rtol=1e-8, atol=1e-9)


def test_unknown_function_of_the_variance_is_refused() -> None:
    with pytest.raises(ValueError, match="act is 'cube', expected one of log, sqrt"):
        small_model("cube")
