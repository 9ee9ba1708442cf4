"""ILRA-MIL against the authors' code."""

import pytest
import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.layers.cross_attention import CrossAttention
from mil.models.ilra import ILRA, LatentBlock, Residual, TilesToLatents

from .reference import copy_linear, copy_parameters, golden


def copy_attention(layer: CrossAttention | TilesToLatents, weights: dict[str, Tensor], name: str) -> None:
    """Multiply their two linear layers in a row for keys and values into our single one."""
    query, key, value = weights[f"{name}.multihead_attn.in_proj_weight"].chunk(3)
    query_bias, _, value_bias = weights[f"{name}.multihead_attn.in_proj_bias"].chunk(3)
    copy_parameters(layer.query, weight=query, bias=query_bias)
    copy_parameters(layer.key, weight=key @ weights[f"{name}.fc_k.weight"])
    first = weights[f"{name}.fc_v.bias"]
    copy_parameters(layer.value, weight=value @ weights[f"{name}.fc_v.weight"], bias=value @ first + value_bias)
    copy_linear(layer.out, weights, f"{name}.multihead_attn.out_proj")


def copy_residual(layer: Residual, weights: dict[str, Tensor], name: str) -> None:
    copy_linear(layer.start, weights, f"{name}.fc_q")
    copy_linear(layer.feed, weights, f"{name}.fc_o")
    if layer.gate is not None:
        copy_linear(layer.gate, weights, f"{name}.gate.0")
    for norm, theirs in ((layer.before, "ln0"), (layer.after, "ln1")):
        if isinstance(norm, nn.LayerNorm):
            copy_linear(norm, weights, f"{name}.{theirs}")


@pytest.mark.parametrize("norm", [False, True])
def test_logits_and_attention_match_the_authors_code(norm: bool) -> None:
    arrays, weights = golden("ilra")
    model = ILRA(7, 3, blocks=2, rank=3, embed_dim=6, heads=2, norm=norm).double().eval()
    for number, block in enumerate(model.blocks):
        assert isinstance(block, LatentBlock)
        name = f"gab_blocks.{number}"
        copy_parameters(block, latent=weights[f"{name}.latent"][0])
        copy_attention(block.down, weights, f"{name}.project_forward")
        copy_residual(block.latents, weights, f"{name}.project_forward")
        copy_attention(block.up, weights, f"{name}.project_backward")
        copy_residual(block.tiles, weights, f"{name}.project_backward")
    copy_parameters(model.pool, query=weights["pooling.S"][0])
    copy_attention(model.pool.attend, weights, "pooling.mha")
    copy_residual(model.pool.residual, weights, "pooling.mha")
    copy_linear(model.head, weights, "classifier")
    output = model(Bags(arrays["features"], (23,)))
    key = "ln" if norm else "plain"
    torch.testing.assert_close(output.logits, arrays[f"{key}.logits"], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(output.attention, arrays[f"{key}.attention"][0, 0], rtol=1e-8, atol=1e-8)


def test_a_single_latent_is_refused() -> None:
    with pytest.raises(ValueError, match="rank is 1, expected two latents or more"):
        ILRA(5, 2, rank=1)
