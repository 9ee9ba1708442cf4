"""Patch-GCN against the authors' code, run with torch_geometric's convolutions."""

import pytest
import torch

from mil.bags import Bags
from mil.layers.neighbours import Nearest
from mil.models.patchgcn import GENConv, PatchGCN, Residual

from .reference import copy_gated, copy_linear, copy_parameters, golden


def copy_convolution(layer: GENConv, weights: dict[str, torch.Tensor], name: str) -> None:
    copy_parameters(layer, sharpness=weights[f"{name}.aggr_module.t"])
    for ours, theirs in ((0, 0), (1, 1), (3, 4)):
        copy_linear(layer.mix[ours], weights, f"{name}.mlp.{theirs}")


def test_logits_and_attention_match_the_authors_code() -> None:
    arrays, weights = golden("patchgcn")
    model = PatchGCN(6, 3, embed_dim=6).double().eval()
    copy_linear(model.embed[0], weights, "fc.0")
    copy_convolution(model.first, weights, "layers.0.conv")
    for number, layer in enumerate(model.layers, 1):
        assert isinstance(layer, Residual)
        copy_convolution(layer.convolve, weights, f"layers.{number}.conv")
        copy_linear(layer.norm, weights, f"layers.{number}.norm")
    copy_linear(model.joined[0], weights, "path_phi.0")
    head = "path_attention_head.attention"
    copy_gated(model.score, weights, f"{head}_a.0", f"{head}_b.0", f"{head}_c")
    copy_linear(model.pooled[0], weights, "path_rho.0")
    copy_linear(model.head, weights, "classifier")
    output = model(Bags(arrays["features"], tuple(arrays["sizes"].tolist()), arrays["coords"]))
    torch.testing.assert_close(
        output.logits, arrays["logits"], rtol=1e-6, atol=1e-7
    )  # the authors' code adds 1e-16 to sums
    torch.testing.assert_close(output.attention, arrays["attention"], rtol=1e-6, atol=1e-8)


def test_convolution_weights_each_feature_separately() -> None:
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


def test_receptive_field_is_three_neighbours() -> None:
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
def test_embedding_concatenates_all_layers(layers: int) -> None:
    model = PatchGCN(4, 1, embed_dim=5, layers=layers)
    assert model(Bags(torch.randn(3, 4), (3,), torch.zeros(3, 2))).embedding.shape == (1, 5 * (layers + 1))
