"""The decoder against torch.nn.TransformerDecoderLayer with the same weights."""

import pytest
import torch
from torch import nn

from mil.bags import Bags
from mil.layers.self_attention import SelfAttention
from mil.models.decoder import Decoder, DecoderLayer

from .reference import copy_parameters


def as_torch(layer: DecoderLayer, embed_dim: int, heads: int, hidden_dim: int) -> nn.TransformerDecoderLayer:
    """Return torch's decoder layer with these weights and normalisation first, as in Barspoon."""
    reference = nn.TransformerDecoderLayer(embed_dim, heads, hidden_dim, 0, batch_first=True, norm_first=True).double()
    assert layer.exchange is not None
    norm, exchange = layer.exchange
    assert isinstance(exchange, SelfAttention)
    zeros = torch.zeros(embed_dim)
    for mine, theirs in ((exchange, reference.self_attn), (layer.attend, reference.multihead_attn)):
        copy_parameters(
            theirs,
            in_proj_weight=torch.cat([mine.query.weight, mine.key.weight, mine.value.weight]),
            in_proj_bias=torch.cat([mine.query.bias, zeros, mine.value.bias]),
        )
        theirs.out_proj.load_state_dict(mine.out.state_dict())
    ours = (norm, layer.norm, layer.think[0], layer.think[1], layer.think[4])
    theirs_too = (reference.norm1, reference.norm2, reference.norm3, reference.linear1, reference.linear2)
    for layer_of_ours, their in zip(ours, theirs_too, strict=True):
        their.load_state_dict(layer_of_ours.state_dict())
    return reference.eval()


def test_logits_match_torch() -> None:
    torch.manual_seed(0)
    model = Decoder(5, 4, groups=(1, 3), layers=2, embed_dim=8, heads=2, hidden_dim=16).double().eval()
    for norm in (part for part in model.modules() if isinstance(part, nn.LayerNorm)):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    layers = [as_torch(layer, 8, 2, 16) for layer in model.layers if isinstance(layer, DecoderLayer)]
    bags = Bags(torch.randn(13, 5, dtype=torch.float64), (8, 1, 4))
    output = model(bags)
    for bag, rows in enumerate(bags.split()):
        tiles, queries = model.embed(rows)[None], model.queries[None]
        for layer in layers:
            queries = layer(queries, tiles)
        expected = torch.cat([model.heads[0](queries[0, 0]), model.heads[1](queries[0, 1])])
        torch.testing.assert_close(output.logits[bag], expected, rtol=1e-10, atol=1e-10)


def test_reported_attention_is_the_mean_over_queries() -> None:
    torch.manual_seed(0)
    model, bags = Decoder(5, 3, embed_dim=8, heads=2, hidden_dim=16).double().eval(), Bags(torch.randn(13, 5), (9, 4))
    output = model(bags.cast(torch.float64))
    each = output.extra["queries"]
    assert each.shape == (13, 3)
    torch.testing.assert_close(bags.sum(each), torch.ones(2, 3, dtype=torch.float64))
    torch.testing.assert_close(output.attention, each.mean(1))


def test_one_query_per_logit_by_default_and_none_exchange_if_single() -> None:
    assert Decoder(5, 4).queries.shape == (4, 512)
    assert Decoder(5, 4, groups=[4]).queries.shape == (1, 512)
    assert all(layer.exchange is None for layer in Decoder(5, 1).layers)


@pytest.mark.parametrize("groups", [[1, 2], [], [4, 0], [5, -1]])
def test_groups_that_do_not_sum_to_the_logits_are_refused(groups: list[int]) -> None:
    with pytest.raises(ValueError, match="expected whole numbers that sum to 4 logits"):
        Decoder(5, 4, groups=groups)
