"""Additive MIL against a tile-by-tile computation, and properties of its contributions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mil.bags import Bags
from mil.models.additive import AdditiveMIL

from .zoo import IN_DIM, simulated


def small_model(out_dim: int, gated: bool = False, tile_bias: bool = False) -> AdditiveMIL:
    torch.manual_seed(0)
    model = AdditiveMIL(IN_DIM, out_dim, 7, 5, 6, gated=gated, tile_bias=tile_bias).double().eval()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def contributions(model: AdditiveMIL, bag: Tensor) -> Tensor:
    """Return the contribution of each tile of one bag to each logit."""
    weights = model.state_dict()
    tiles = [torch.clamp(weights["embed.0.weight"] @ row + weights["embed.0.bias"], min=0) for row in bag]
    exponentials = [model.score(tile[None])[0, 0].exp() for tile in tiles]
    added = []
    for tile, share in zip(tiles, (exponential / sum(exponentials) for exponential in exponentials), strict=True):
        hidden = weights["psi.0.weight"] @ (share * tile) + weights.get("psi.0.bias", 0)
        value = weights["psi.2.weight"] @ torch.clamp(hidden, min=0)
        added.append(value + (weights["psi.2.bias"] if model.bias is None else share * model.bias))
    return torch.stack(added)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("tile_bias", [False, True], ids=["paper", "supplementary code"])
def test_logits_are_sums_of_psi_of_weighted_tiles(gated: bool, tile_bias: bool) -> None:
    model, bags = small_model(3, gated, tile_bias), simulated((4, 1, 9), dtype=torch.float64)
    output = model(bags)
    expected = [contributions(model, bag) for bag in bags.split()]
    torch.testing.assert_close(output.extra["contributions"], torch.cat(expected))
    torch.testing.assert_close(output.logits, torch.stack([added.sum(0) for added in expected]))


@settings(deadline=None, max_examples=15)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4), out_dim=st.integers(1, 3), seed=st.integers(0, 99))
def test_contributions_sum_to_the_logits(sizes: list[int], out_dim: int, seed: int) -> None:
    model, bags = small_model(out_dim).float(), simulated(sizes, seed)
    output = model(bags)
    totals = torch.stack([rows.double().sum(0) for rows in bags.split(output.extra["contributions"])])
    torch.testing.assert_close(output.logits.double(), totals, rtol=0, atol=1e-5)


def test_contributions_may_be_positive_or_negative() -> None:
    contributions = small_model(2)(simulated((300,), dtype=torch.float64)).extra["contributions"]
    assert (contributions > 0).any(0).all()
    assert (contributions < 0).any(0).all()


def test_logits_depend_on_tile_count_only_with_biases() -> None:
    """Repeating a tile changes nothing without a bias; with a bias every copy adds it."""
    tile = simulated((1,), dtype=torch.float64).features
    for tile_bias in (False, True):
        model = small_model(1, tile_bias=tile_bias)
        few, many = (model(Bags(tile.expand(count, -1), (count,))).logits for count in (10, 1000))
        assert torch.allclose(few, many, rtol=1e-9) != tile_bias
