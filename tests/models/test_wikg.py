"""WiKG against the authors' code, and its knowledge-aware attention against a tile-by-tile computation."""

import pytest
import torch
from torch.nn.functional import leaky_relu

from mil.bags import Bags
from mil.models import wikg
from mil.models.wikg import WiKG, most_similar

from .reference import copy_linear, copy_parameters, golden
from .zoo import simulated


@pytest.mark.parametrize("readout", ["attention", "mean"])
def test_logits_and_attention_match_the_authors_code(readout: str) -> None:
    arrays, weights = golden("wikg")
    model = WiKG(6, 3, embed_dim=12, neighbours=4, knowledge="sums", readout=readout).double().eval()
    for layer, name in (
        (model.embed[0], "_fc1.0"),
        (model.to_head, "W_head"),
        (model.to_tail, "W_tail"),
        (model.of_sum[0], "linear1"),
        (model.of_product[0], "linear2"),
        (model.norm, "norm"),
        (model.head, "fc"),
    ):
        copy_linear(layer, weights, name)
    if model.score is not None:
        copy_linear(model.score[0], weights, "readout.gate_nn.0")
        copy_parameters(model.score[2], weight=weights["readout.gate_nn.2.weight"])
    output = model(Bags(arrays["features"], tuple(arrays["sizes"].tolist())))
    expected = arrays["logits" if readout == "attention" else "mean"]
    torch.testing.assert_close(output.logits, expected, rtol=1e-8, atol=1e-8)
    if readout == "attention":
        torch.testing.assert_close(output.attention, arrays["attention"], rtol=1e-8, atol=1e-10)
    else:
        assert output.attention is None


@pytest.mark.parametrize("tiles", [1, 4, 11])
def test_knowledge_aware_attention_matches_the_equations(tiles: int) -> None:
    torch.manual_seed(0)
    model = WiKG(12, 2, embed_dim=8, neighbours=5).double().eval()
    bag = simulated((tiles,), dtype=torch.float64)
    rows = leaky_relu(model.embed[0](bag.features))
    rows = (rows + rows.mean(0)) / 2
    heads, tails = model.to_head(rows), model.to_tail(rows)
    updated = []
    for head in heads:
        similar = torch.stack([head @ tail for tail in tails]) / 8**0.5
        near = similar.argsort(descending=True)[:5]
        share = similar[near].softmax(0)
        edges = [p * tails[j] + (1 - p) * head for p, j in zip(share, near, strict=True)]
        knowledge = torch.stack([tails[j] @ torch.tanh(head + edge) for j, edge in zip(near, edges, strict=True)])
        gathered = knowledge.softmax(0) @ tails[near]
        added, multiplied = model.of_sum[0](head + gathered), model.of_product[0](head * gathered)
        updated.append(leaky_relu(added) + leaky_relu(multiplied))
    anew = torch.stack(updated)
    assert model.score is not None
    attention = model.score(anew).squeeze(1).softmax(0)
    output = model(bag)
    torch.testing.assert_close(output.attention, attention)
    torch.testing.assert_close(output.logits[0], model.head(model.norm(attention @ anew)))


def test_processing_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, bags = WiKG(12, 2, embed_dim=8).double().eval(), simulated((40, 3), dtype=torch.float64)
    expected = model(bags).logits
    monkeypatch.setattr(wikg, "SCORES", 1)
    monkeypatch.setattr(wikg, "BLOCK", 7)
    torch.testing.assert_close(model(bags).logits, expected)


def test_most_similar_tiles_match_brute_force() -> None:
    torch.manual_seed(0)
    heads, tails = torch.randn(30, 4), torch.randn(30, 4)
    expected = (heads @ tails.T).argsort(1, descending=True)[:, :3]
    assert torch.equal(most_similar(heads, tails, 3), expected)


def test_unknown_knowledge_and_readout_are_refused() -> None:
    with pytest.raises(ValueError, match="knowledge is 'product', expected one of inner, sums"):
        WiKG(3, 1, knowledge="product")
    with pytest.raises(ValueError, match="readout is 'max', expected one of attention, mean"):
        WiKG(3, 1, readout="max")
