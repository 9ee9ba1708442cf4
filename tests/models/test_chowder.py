"""Chowder against a direct computation and the authors' code, also for bags with fewer tiles than extremes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mil.bags import Bags
from mil.models.chowder import Chowder

from .reference import copy_linear, copy_parameters, golden
from .zoo import IN_DIM, simulated


def small_model(out_dim: int, top: int = 4, bottom: int = 3) -> Chowder:
    torch.manual_seed(0)
    return Chowder(IN_DIM, out_dim, top=top, bottom=bottom, hidden_dims=(7, 5)).double().eval()


def affine(layer: nn.Module, values: Tensor) -> Tensor:
    return layer.get_parameter("weight") @ values


def read(model: Chowder, bag: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of one bag, and the extreme scores of each logit."""
    logits, all_extremes = [], []
    for weight, bias, last in zip(model.score.weight, model.score.bias, model.bias, strict=True):
        ranked = sorted(((weight @ tile + bias) for tile in bag), reverse=True)
        highest = [ranked[min(place, len(ranked) - 1)] for place in range(model.top)]
        lowest = [ranked[::-1][min(place, len(ranked) - 1)] for place in range(model.bottom)]
        extremes = torch.stack(highest + lowest)
        first = 1 / (1 + torch.exp(-(affine(model.mlp[0], extremes) + model.mlp[0].get_parameter("bias"))))
        second = 1 / (1 + torch.exp(-(affine(model.mlp[3], first) + model.mlp[3].get_parameter("bias"))))
        logits.append(affine(model.mlp[6], second)[0] + last)
        all_extremes.append(extremes)
    return torch.stack(logits), torch.cat(all_extremes)


@settings(deadline=None, max_examples=20)
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4), out_dim=st.integers(1, 3))
def test_logits_match_a_direct_computation(sizes: list[int], out_dim: int) -> None:
    model, bags = small_model(out_dim), simulated(sizes, dtype=torch.float64)
    output = model(bags)
    for bag, tiles in enumerate(bags.split()):
        logits, extremes = read(model, tiles)
        torch.testing.assert_close(output.logits[bag], logits)
        torch.testing.assert_close(output.embedding[bag], extremes)


@pytest.mark.parametrize("out_dim", [1, 3])
def test_logits_and_extremes_match_the_authors_code(out_dim: int) -> None:
    arrays, weights = golden("chowder")
    model = Chowder(6, out_dim, top=4, bottom=3, hidden_dims=(7, 5)).double().eval()
    copy_linear(model.score, weights, f"{out_dim}.score_model.hidden_layers.0")
    copy_linear(model.mlp[0], weights, f"{out_dim}.mlp.0.0")
    copy_linear(model.mlp[3], weights, f"{out_dim}.mlp.1.0")
    copy_parameters(model.mlp[6], weight=weights[f"{out_dim}.mlp.2.weight"])
    copy_parameters(model, bias=weights[f"{out_dim}.mlp.2.bias"].expand(out_dim))
    output = model(Bags.pack(list(arrays["features"])))
    torch.testing.assert_close(output.logits, arrays[f"{out_dim}.logits"], rtol=1e-10, atol=1e-12)
    extremes = output.embedding.unflatten(1, (out_dim, -1)).transpose(1, 2)
    torch.testing.assert_close(extremes, arrays[f"{out_dim}.extremes"], rtol=1e-10, atol=1e-12)


def test_tiles_between_the_extremes_have_no_effect() -> None:
    model, bags = small_model(1), simulated((12,), dtype=torch.float64)
    middle = model(bags).extra["scores"].squeeze(1).argsort()[5]
    remaining = torch.arange(12) != middle
    torch.testing.assert_close(model(Bags(bags.features[remaining], (11,))).logits, model(bags).logits)


def test_top_or_bottom_scores_can_be_left_out() -> None:
    assert small_model(1, bottom=0)(simulated((9,), dtype=torch.float64)).embedding.shape == (1, 4)
    with pytest.raises(ValueError, match="top is 0 and bottom 0, expected at least one"):
        small_model(1, top=0, bottom=0)
