"""TransMIL against the authors' code and torchmil, and PPEG against separate convolutions."""

import pytest
import torch
import torchmil.models
from torch import Tensor, nn

from mil import tile_rows
from mil.bags import Bags
from mil.layers.nystrom import NystromAttention
from mil.layers.positions import PPEG
from mil.models import transmil
from mil.models.transmil import TransMIL

from .reference import copy_linear, copy_parameters, golden
from .zoo import simulated


def copy_layer(layer: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    copy_parameters(
        layer.get_submodule("norm"), weight=weights[f"{name}.norm.weight"], bias=weights[f"{name}.norm.bias"]
    )
    attend = layer.get_submodule("attend")
    assert isinstance(attend, NystromAttention)
    copy_parameters(attend.qkv, weight=weights[f"{name}.attn.to_qkv.weight"])
    copy_parameters(attend.local, weight=weights[f"{name}.attn.res_conv.weight"])
    copy_linear(attend.out[0], weights, f"{name}.attn.to_out.0")


def attention_shares(row: Tensor, tiles: int) -> Tensor:
    """Return the class token's weights as shares, those of copied tiles added to the originals."""
    total = row[:tiles].clone()
    for copy in range(tiles, len(row)):
        total[copy - tiles] += row[copy]
    total = total.clamp_min(0)
    return total / total.sum()


def test_logits_and_attention_match_the_authors_code() -> None:
    arrays, weights = golden("transmil")
    model = TransMIL(6, 3, embed_dim=16, heads=8, landmarks=8).double().eval()
    copy_parameters(model, class_token=weights["cls_token"].flatten())
    copy_linear(model.embed[0], weights, "_fc1.0")
    copy_layer(model.first, weights, "layer1")
    copy_layer(model.second, weights, "layer2")
    for kernel, name in zip(model.positions.kernels, ("proj", "proj1", "proj2"), strict=True):
        copy_linear(kernel, weights, f"pos_layer.{name}")
    copy_linear(model.norm, weights, "norm")
    copy_linear(model.head, weights, "_fc2")
    sizes = tuple(arrays["sizes"].tolist())
    output = model(Bags(arrays["features"], sizes))
    torch.testing.assert_close(output.logits, arrays["logits"], rtol=1e-8, atol=1e-8)
    rows = torch.split(arrays["row"], [(int((n - 1) ** 0.5) + 1) ** 2 for n in sizes])
    expected = torch.cat([attention_shares(row, n) for row, n in zip(rows, sizes, strict=True)])
    torch.testing.assert_close(output.attention, expected, rtol=1e-7, atol=1e-9)


def torchmil_with_weights_of(model: TransMIL) -> nn.Module:
    """Return torchmil's model with our weights; it lacks our value convolution and output layer."""
    for layer in (model.first, model.second):
        attend = layer.attend
        nn.init.zeros_(attend.local.weight)
        copy_parameters(attend.out[0], weight=torch.eye(16), bias=torch.zeros(16))
    theirs = torchmil.models.TransMIL(
        (12,), att_dim=16, n_layers=2, n_heads=4, n_landmarks=8, feat_ext=model.embed.float()
    ).double()
    model.double()
    copy_parameters(theirs, cls_token=model.class_token.view(1, 1, -1))
    ours = dict(model.state_dict())
    for number, name in enumerate(("first", "second")):
        layer = theirs.layers[number]
        copy_parameters(layer.norm1, weight=ours[f"{name}.norm.weight"], bias=ours[f"{name}.norm.bias"])
        copy_parameters(layer.att_module.qkv_nn, weight=ours[f"{name}.attend.qkv.weight"])
    for number, name in enumerate(("proj", "proj1", "proj2")):
        copy_linear(theirs.pos_layer.get_submodule(name), ours, f"positions.kernels.{number}")
    copy_linear(theirs.norm, ours, "norm")
    copy_linear(theirs.classifier, ours, "head")
    theirs.eval()
    assert isinstance(theirs, nn.Module)
    return theirs


@pytest.mark.parametrize("tiles", [1, 5, 30, 64])
def test_logits_match_torchmil_without_its_missing_layers(tiles: int) -> None:
    torch.manual_seed(0)
    model = TransMIL(12, 1, embed_dim=16, heads=4, landmarks=8).double().eval()
    theirs, bags = torchmil_with_weights_of(model), simulated((tiles,), dtype=torch.float64)
    logit, row = theirs(bags.features.unsqueeze(0), return_att=True)
    output = model(bags)
    torch.testing.assert_close(output.logits[0], logit, rtol=1e-8, atol=1e-10)
    side = int((tiles - 1) ** 0.5) + 1
    if side**2 == tiles:  # torchmil drops the weights of copied tiles
        torch.testing.assert_close(output.attention, attention_shares(row[0], tiles), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("side", [1, 2, 5, 9])
def test_ppeg_equals_the_sum_of_three_convolutions_and_identity(side: int) -> None:
    torch.manual_seed(0)
    layer, tokens = PPEG(3).double(), torch.randn(side**2, 3, dtype=torch.float64)
    square = tokens.T.reshape(1, 3, side, side)
    expected = square + sum(kernel(square) for kernel in layer.kernels)
    torch.testing.assert_close(layer(tokens, side), expected.flatten(2)[0].T)


def test_padding_changes_the_logits_of_small_bags() -> None:
    torch.manual_seed(0)
    model, bags = TransMIL(12, 2, embed_dim=16, landmarks=8, padded=False).double().eval(), simulated((3, 20))
    torch.manual_seed(0)
    published = TransMIL(12, 2, embed_dim=16, landmarks=8).double().eval()
    bags = bags.cast(torch.float64)
    assert not torch.allclose(model(bags).logits, published(bags).logits, rtol=1e-3)


def test_attention_is_uniform_if_no_weight_is_positive() -> None:
    torch.manual_seed(0)
    model = TransMIL(12, 1, embed_dim=16, landmarks=4).eval()
    bags = simulated((5,))

    def negative(tokens: Tensor) -> tuple[Tensor, Tensor]:
        return tokens, -torch.ones(8, len(tokens))

    model.second.forward = negative  # type: ignore[method-assign]  # the approximation may give such weights
    torch.testing.assert_close(model(bags).attention, torch.full((5,), 0.2))


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("tiles", [1, 2, 16, 17, 150, 400])
def test_tokens_computed_piece_by_piece_give_the_output_of_all_at_once(
    padded: bool, tiles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(tiles)
    model = TransMIL(6, 2, embed_dim=16, heads=2, landmarks=8, padded=padded).eval()
    features = torch.randn(tiles, 6)
    with torch.inference_mode():
        expected = model(Bags(features, (tiles,)))
        monkeypatch.setattr(tile_rows, "READ_ROWS", 13)  # rows of the square end elsewhere
        monkeypatch.setattr(tile_rows, "HELD_BYTES", 0)
        monkeypatch.setattr(transmil, "ROWS_AT_ONCE", 50)
        pieces = tile_rows.TileRows(lambda start, stop: features[start:stop], features, tiles)
        output = model(Bags(pieces, (tiles,)))
    torch.testing.assert_close(output.logits, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.embedding, expected.embedding, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.attention, expected.attention, rtol=1e-5, atol=1e-5)
