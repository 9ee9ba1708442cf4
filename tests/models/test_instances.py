"""Aggregations of tile scores against the authors' code."""

import pytest
import torch

from mil.bags import Bags
from mil.models.instances import AGGREGATIONS, InstanceMIL

from .reference import copy_linear, copy_parameters, golden
from .zoo import IN_DIM, simulated

CASES = [(by, 1) for by in ("mean", "max", "mix", "auto", "lnp")] + [
    (by, 3) for by in ("mean", "auto", "lnp", "attention")
]


@pytest.mark.parametrize(("by", "out_dim"), CASES)
def test_logits_match_the_authors_code(by: str, out_dim: int) -> None:
    arrays, weights = golden("instances")
    model = InstanceMIL(6, out_dim, by).double().eval()
    copy_linear(model.score, weights, f"{by}.{out_dim}.classifier")
    if model.alpha is not None:
        copy_parameters(model, alpha=weights[f"{by}.{out_dim}.{'p' if by == 'lnp' else 'alpha'}"])
    if model.attend is not None:
        copy_parameters(model.attend, weight=weights[f"{by}.{out_dim}.attention.weight"])
    logits = model(Bags(arrays["features"], (19,))).logits[0]
    torch.testing.assert_close(logits, arrays[f"{by}.{out_dim}"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("by", AGGREGATIONS)
def test_attention_and_terms_exist_where_logits_are_weighted_means(by: str) -> None:
    model, bags = InstanceMIL(IN_DIM, 3, by).double().eval(), simulated((6, 1, 4), 0, torch.float64)
    output, terms = model(bags), model.tile_terms(bags)
    assert (output.attention is None) == (by not in ("auto", "attention"))
    assert (terms is None) == (by in ("max", "mix", "lnp"))
    if terms is not None:
        logits = bags.sum((terms.weight.unsqueeze(2) * terms.logits).sum(1))
        torch.testing.assert_close(logits, output.logits)


@pytest.mark.parametrize("by", AGGREGATIONS)
def test_every_weight_learns(by: str) -> None:
    model, bags = InstanceMIL(IN_DIM, 2, by), simulated((6, 1, 4))
    torch.autograd.backward(model(bags).logits.square().sum())
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in model.parameters())


def test_unknown_aggregation_is_refused() -> None:
    with pytest.raises(
        ValueError, match="aggregation by 'median', expected one of mean, max, mix, auto, lnp, attention"
    ):
        InstanceMIL(IN_DIM, 1, "median")
