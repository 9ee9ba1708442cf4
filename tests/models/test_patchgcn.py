"""Patch-GCN against the authors' code, which torch_geometric's convolutions run."""

import pytest
import torch

from mil.bags import Bags
from mil.layers.neighbours import Nearest
from mil.models.patchgcn import GENConv, PatchGCN, Residual

from .reference import golden, take, take_gated, take_linear


def take_convolution(layer: GENConv, weights: dict[str, torch.Tensor], name: str) -> None:
    take(layer, sharpness=weights[f"{name}.aggr_module.t"])
    for ours, theirs in ((0, 0), (1, 1), (3, 4)):
        take_linear(layer.mix[ours], weights, f"{name}.mlp.{theirs}")


def test_logits_and_attention_are_those_of_the_authors_code() -> None:
    arrays, weights = golden("patchgcn")
    model = PatchGCN(6, 3, embed_dim=6).double().eval()
    take_linear(model.embed[0], weights, "fc.0")
    take_convolution(model.first, weights, "layers.0.conv")
    for number, layer in enumerate(model.layers, 1):
        assert isinstance(layer, Residual)
        take_convolution(layer.convolve, weights, f"layers.{number}.conv")
        take_linear(layer.norm, weights, f"layers.{number}.norm")
    take_linear(model.joined[0], weights, "path_phi.0")
    head = "path_attention_head.attention"
    take_gated(model.score, weights, f"{head}_a.0", f"{head}_b.0", f"{head}_c")
    take_linear(model.pooled[0], weights, "path_rho.0")
    take_linear(model.head, weights, "classifier")
    output = model(Bags(arrays["features"], tuple(arrays["sizes"].tolist()), arrays["coords"]))
    torch.testing.assert_close(output.logits, arrays["logits"], rtol=1e-6, atol=1e-7)  # theirs adds 1e-16 to sums
    torch.testing.assert_close(output.attention, arrays["attention"], rtol=1e-6, atol=1e-8)


def test_a_convolution_weighs_each_feature_of_the_neighbours_by_itself() -> None:
    torch.manual_seed(0)
    layer = GENConv(3).double()
    torch.nn.init.constant_(layer.sharpness, 2.5)
    tiles = torch.randn(4, 3, dtype=torch.float64)
    near = Nearest(
        torch.tensor([[1, 2], [0, 0], [2, 2], [3, 1]]),
        torch.tensor([[True, True], [True, False], [False, False], [False, True]]),
    )
    sums = []
    for tile, (index, valid) in enumerate(zip(near.index.tolist(), near.valid.tolist(), strict=True)):
        messages = [tiles[j].clamp_min(0) + 1e-7 for j, present in zip(index, valid, strict=True) if present]
        total = tiles[tile].clone()
        for feature in range(3 if messages else 0):
            weights = [torch.exp(2.5 * message[feature]) for message in messages]
            total[feature] += sum(w * m[feature] for w, m in zip(weights, messages, strict=True)) / sum(weights)
        sums.append(total)
    torch.testing.assert_close(layer(tiles, near), layer.mix(torch.stack(sums)))


def test_what_a_tile_reads_ends_three_neighbours_away() -> None:
    torch.manual_seed(0)
    model = PatchGCN(4, 1, embed_dim=4, neighbours=2).double().eval()
    places = torch.tensor([[256 * x, 0] for x in range(12)])
    features = torch.randn(12, 4, dtype=torch.float64)
    changed = features.clone()
    changed[0] += 1
    joined = []
    model.score.register_forward_pre_hook(lambda _, inputs: joined.append(inputs[0]))
    model(Bags(features, (12,), places))
    model(Bags(changed, (12,), places))
    changed = (joined[0] != joined[1]).any(1).tolist()
    assert changed == [True] * 4 + [False] * 8


@pytest.mark.parametrize("layers", [1, 4])
def test_all_depths_are_joined(layers: int) -> None:
    model = PatchGCN(4, 1, embed_dim=5, layers=layers)
    assert model(Bags(torch.randn(3, 4), (3,), torch.zeros(3, 2))).embedding.shape == (1, 5 * (layers + 1))
