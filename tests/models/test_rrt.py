"""RRT-MIL against the authors' code, and the variant without padding."""

import pytest
import torch
from torch import Tensor

from mil.bags import Bags
from mil.layers import squares
from mil.layers.squares import CrossRegionAttention, RegionAttention, Squares
from mil.models.rrt import RRT

from .reference import copy_linear, copy_parameters, golden
from .zoo import simulated


def copy_attention(layer: torch.nn.Module, weights: dict[str, Tensor], name: str) -> None:
    """Copy an attention layer; a bias of the keys has no effect."""
    for part in ("weight", "bias"):
        for to, value in zip(("query", "key", "value"), weights[f"{name}.qkv.{part}"].chunk(3), strict=True):
            if (to, part) != ("key", "bias"):
                copy_parameters(layer.get_submodule(to), **{part: value})


def small_model(shortcut: bool = False, padded: bool = True) -> RRT:
    torch.manual_seed(0)
    return RRT(
        6, 3, 8, attention_dim=5, heads=2, regions=8, epeg=5, representatives=3, shortcut=shortcut, padded=padded
    ).double()


@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("scores", [squares.SCORES, 1])
def test_logits_and_attention_match_the_authors_code(
    shortcut: bool, scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(squares, "SCORES", scores)
    arrays, weights = golden("rrt")
    model = small_model(shortcut).eval()
    copy_linear(model.embed[0], weights, "patch_to_emb.0")
    copy_attention(model.within, weights, "online_encoder.layers.0.attn.attn")
    copy_parameters(model.within.positions, weight=weights["online_encoder.layers.0.attn.attn.pe.weight"])
    copy_linear(model.within.out[0], weights, "online_encoder.layers.0.attn.attn.proj")
    copy_parameters(model.across.score, weight=weights["online_encoder.cr_msa.attn.phi"].T)
    copy_attention(model.across.attend, weights, "online_encoder.cr_msa.attn.attn")
    copy_linear(model.across.attend.out, weights, "online_encoder.cr_msa.attn.attn.proj")
    copy_linear(model.norm_within, weights, "online_encoder.layers.0.norm")
    copy_linear(model.norm_across, weights, "online_encoder.cr_msa.norm")
    copy_linear(model.norm, weights, "online_encoder.norm")
    for number in (0, 2):
        copy_parameters(model.score[number], weight=weights[f"pool_fn.attention.attention.{number}.weight"])
    copy_linear(model.head, weights, "predictor")
    output = model(Bags(arrays["features"], tuple(arrays["sizes"].tolist())))
    expected = arrays["shortcut" if shortcut else "logits"]
    torch.testing.assert_close(output.logits, expected, rtol=1e-8, atol=1e-8)
    if not shortcut:
        torch.testing.assert_close(output.attention, arrays["attention"], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("tiles", [1, 3, 16, 50, 64, 65, 150])
@pytest.mark.parametrize("padded", [False, True])
def test_every_tile_is_placed_once_and_can_be_restored(tiles: int, padded: bool) -> None:
    laid, rows = Squares.of(tiles, 4, padded, torch.device("cpu")), torch.randn(tiles, 3)
    assert torch.equal(laid.give(laid.take(rows), tiles), rows)
    assert sorted(laid.index[laid.index < tiles].tolist()) == list(range(tiles))
    assert laid.valid.all() if padded else torch.equal(laid.valid, laid.index < tiles)


def test_regions_are_square_blocks() -> None:
    laid = Squares.of(16, 2, True, torch.device("cpu"))
    assert laid.index.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def attention_by_head(layer: RegionAttention, rows: Tensor) -> Tensor:
    """Return the attention of one region of tiles, head by head."""
    read = []
    projections = (part(rows).chunk(layer.heads, 1) for part in (layer.query, layer.key, layer.value))
    for head, (query, key, value) in enumerate(zip(*projections, strict=True)):
        scores = query @ key.T / query.shape[1] ** 0.5
        kernel = layer.positions.weight[head].flatten()
        reach = len(kernel) // 2
        wide = torch.nn.functional.pad(scores, (0, 0, reach, reach))
        near = torch.stack([(kernel.unsqueeze(1) * wide[i : i + len(kernel)]).sum(0) for i in range(len(rows))])
        read.append((scores + near).softmax(1) @ value)
    out: Tensor = layer.out(torch.cat(read, 1))
    return out


def test_unpadded_regions_attend_to_their_own_tiles_only() -> None:
    torch.manual_seed(0)
    layer = RegionAttention(8, 2, 5, 0).double()
    rows = torch.randn(11, 8, dtype=torch.float64)  # 2 x 2 regions of 2 x 2 places: 0 1 4 5, 2 3 6 7, 8 9, 10
    read = layer(rows, Squares.of(11, 2, False, rows.device))
    for region in ([0, 1, 4, 5], [2, 3, 6, 7], [8, 9], [10]):
        torch.testing.assert_close(read[region], attention_by_head(layer, rows[region]))


def test_unpadded_regions_are_summarised_by_their_own_tiles_only() -> None:
    torch.manual_seed(0)
    layer = CrossRegionAttention(8, 2, 3, 0).double()
    rows = torch.randn(11, 8, dtype=torch.float64)
    regions = ([0, 1, 4, 5], [2, 3, 6, 7], [8, 9], [10])
    scores = [layer.score(rows[region]) for region in regions]  # (p, k)
    sums = torch.stack([weight.softmax(0).T @ rows[region] for weight, region in zip(scores, regions, strict=True)], 1)
    read = layer.attend(sums)  # (k, r, e)
    output = layer(rows, Squares.of(11, 2, False, rows.device))
    for number, region in enumerate(regions):
        low, high = scores[number].amin(0), scores[number].amax(0)
        shares = scores[number].softmax(1) * (scores[number] - low) / (high - low + 1e-8)
        torch.testing.assert_close(output[region], shares @ read[:, number])


def test_padding_does_not_matter_for_full_squares() -> None:
    bags = simulated((64, 256), width=6, dtype=torch.float64)
    torch.testing.assert_close(small_model(padded=False).eval()(bags).logits, small_model().eval()(bags).logits)


def test_gradient_reaches_every_parameter() -> None:
    model = small_model().train()
    model(simulated((70, 100), width=6, dtype=torch.float64)).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-12, name


def test_unpadded_gradients_are_finite() -> None:
    model = small_model(padded=False).train()
    model(simulated((1, 5, 70), width=6, dtype=torch.float64)).logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
