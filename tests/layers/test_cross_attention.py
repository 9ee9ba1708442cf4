"""Cross-attention from queries to tiles and self-attention between rows, against torch.nn.MultiheadAttention."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mil.bags import Bags
from mil.layers.cross_attention import CrossAttention
from mil.layers.self_attention import SelfAttention


def as_torch(layer: CrossAttention | SelfAttention, width: int, tile_dim: int) -> nn.MultiheadAttention:
    """Return torch's module with the weights of this layer."""
    reference = nn.MultiheadAttention(width, layer.heads, kdim=tile_dim, vdim=tile_dim, batch_first=True).double()
    state = reference.state_dict()
    weights = [layer.query.weight, layer.key.weight, layer.value.weight]
    if "in_proj_weight" in state:
        state["in_proj_weight"] = torch.cat(weights)
    else:
        state |= dict(zip(("q_proj_weight", "k_proj_weight", "v_proj_weight"), weights, strict=True))
    state["in_proj_bias"] = torch.cat([layer.query.bias, torch.zeros(width), layer.value.bias])
    state |= {f"out_proj.{name}": value for name, value in layer.out.state_dict().items()}
    reference.load_state_dict(state)
    return reference.eval()


@settings(deadline=None, max_examples=20)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4), count=st.integers(1, 3), heads=st.sampled_from([1, 2])
)
def test_cross_attention_matches_torch(sizes: list[int], count: int, heads: int) -> None:
    torch.manual_seed(0)
    layer = CrossAttention(8, 5, 8, heads).double()
    reference = as_torch(layer, 8, 5)
    queries = torch.randn(len(sizes), count, 8, dtype=torch.float64)
    bags = Bags(torch.randn(sum(sizes), 5, dtype=torch.float64), tuple(sizes))
    read, attention = layer(queries, bags)
    for bag, (rows, shares) in enumerate(zip(bags.split(), bags.split(attention), strict=True)):
        expected, weights = reference(queries[bag : bag + 1], rows[None], rows[None], average_attn_weights=False)
        torch.testing.assert_close(read[bag], expected[0])
        torch.testing.assert_close(shares, weights[0].permute(2, 0, 1))


def test_self_attention_matches_torch() -> None:
    torch.manual_seed(0)
    layer, rows = SelfAttention(8, 2).double(), torch.randn(3, 7, 8, dtype=torch.float64)
    expected, _ = as_torch(layer, 8, 8)(rows, rows, rows)
    torch.testing.assert_close(layer(rows), expected)


@pytest.mark.parametrize("layer", [lambda: CrossAttention(8, 5, 8, 3), lambda: SelfAttention(8, 3)])
def test_width_not_divisible_by_heads_is_refused(layer: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="width 8 in 3 heads, expected a multiple of them"):
        layer()
