"""ABMILX against its authors' code."""

import pytest
import torch

from mil.bags import Bags
from mil.models.abmilx import ABMILX

from .reference import copy_linear, copy_parameters, golden
from .zoo import IN_DIM


def test_logits_and_attention_match_the_authors_code() -> None:
    arrays, weights = golden("abmilx")
    model = ABMILX(6, 3, embed_dim=8, heads=2).double().eval()
    copy_linear(model.embed[0], weights, "feature.0")
    copy_parameters(model.score[0], weight=weights["attention.fc1.weight"])
    copy_parameters(model.score[2], weight=weights["attention.fc2.weight"])
    copy_linear(model.norm, weights, "attn_plus_fn.norm_x")
    copy_parameters(model.query_key, weight=weights["attn_plus_fn.qk.weight"])
    copy_parameters(model.value, weight=weights["attn_plus_fn.v.weight"])
    copy_linear(model.mix, weights, "proj")
    copy_linear(model.head, weights, "classifier")
    output = model(Bags(arrays["features"], (15,)))
    torch.testing.assert_close(output.logits, arrays["logits"], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(output.extra["heads"], arrays["attention"], rtol=1e-9, atol=1e-11)


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="width 9 in 2 heads, expected a multiple of them"):
        ABMILX(IN_DIM, 1, embed_dim=9, heads=2)
