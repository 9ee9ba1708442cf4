"""Attention on subspaces against the authors' code, and what is drawn when."""

import pytest
import torch

from mil.bags import Bags
from mil.models.subspaces import Subspaces

from .reference import copy_gated, copy_linear, golden
from .zoo import IN_DIM, simulated


@pytest.mark.parametrize("out_dim", [1, 3])
def test_logits_and_attention_match_the_authors_code(out_dim: int) -> None:
    arrays, weights = golden("subspaces")
    model = Subspaces(14, out_dim, keep=5, attention_dim=5).double().eval()
    copy_gated(model, weights, f"{out_dim}.V", f"{out_dim}.U", f"{out_dim}.w")
    copy_linear(model.head, weights, f"{out_dim}.cls")
    output = model(Bags(arrays["features"], (17,)))
    assert output.extra["heads"].shape == (17, 10)
    torch.testing.assert_close(output.logits, arrays[f"{out_dim}.logits"], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(output.attention, arrays[f"{out_dim}.attention"], rtol=1e-10, atol=1e-12)


def test_training_reads_one_random_subspace() -> None:
    model = Subspaces(IN_DIM, 1, keep=4, attention_dim=3, dropout=0).train()
    bags = simulated((6, 3))
    torch.manual_seed(0)
    part = torch.randperm(IN_DIM)[:4]
    torch.manual_seed(0)
    output = model(bags)
    masked = torch.zeros(IN_DIM).index_fill(0, part, 1)
    value, gate = model.branches(bags.features * masked).chunk(2, dim=1)
    expected = bags.softmax(model.score(value.tanh() * gate.sigmoid()))
    torch.testing.assert_close(output.extra["heads"], expected)
    assert not torch.equal(model(bags).logits, output.logits)


def test_subspaces_of_evaluation_cover_all_features_evenly() -> None:
    model = Subspaces(100, 1, keep=25, overlap=4).eval()
    counts = torch.cat(model._parts()).bincount(minlength=100)
    assert counts.min() >= 1
    assert counts.max() <= 5
    assert all(len(part) == 25 for part in model._parts())


def test_terms_sum_to_the_logits() -> None:
    model, bags = Subspaces(IN_DIM, 3, keep=5, attention_dim=4).double().eval(), simulated((6, 2), 0, torch.float64)
    terms = model.tile_terms(bags)
    logits = bags.sum((terms.weight.unsqueeze(2) * terms.logits).sum(1))
    torch.testing.assert_close(logits, model(bags).logits)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="keep is 0 and overlap 4, expected at least one"):
        Subspaces(IN_DIM, 1, keep=0)
