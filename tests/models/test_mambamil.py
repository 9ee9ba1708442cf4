"""SR-Mamba against its authors' code, and the scan against the recurrence."""

from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from mil.layers.selective_scan import selective_scan
from mil.models.mambamil import MambaMIL, ReorderedMamba

from .reference import copy_linear, copy_parameters, golden
from .zoo import IN_DIM, simulated


def copy_state_space(layer: nn.Module, weights: dict[str, Tensor], suffix: str) -> None:
    copy_linear(layer.get_submodule("convolve"), weights, f"conv1d{suffix}")
    copy_parameters(layer.get_submodule("select"), weight=weights[f"x_proj{suffix}.weight"])
    copy_linear(layer.get_submodule("step"), weights, f"dt_proj{suffix}")
    decay = weights["A_b_log" if suffix else "A_log"]
    copy_parameters(layer, log_decay=decay, skip=weights[f"D{suffix}"])


@pytest.mark.parametrize("tiles", [1, 7, 23])
def test_a_layer_matches_the_authors_code(tiles: int) -> None:
    arrays, weights = golden("mambamil")
    layer = ReorderedMamba(6, states=2, rate=5).double()
    layer.norm = nn.Identity()  # type: ignore[assignment]  # theirs is outside of the layer
    copy_parameters(layer.start, weight=weights["in_proj.weight"])
    copy_state_space(layer.in_order, weights, "")
    copy_state_space(layer.reordered, weights, "_b")
    copy_parameters(layer.out, weight=weights["out_proj.weight"])
    read = layer(arrays[f"{tiles}.tokens"])
    torch.testing.assert_close(read, arrays[f"{tiles}.read"], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("tokens", [1, 5, 37])
def test_the_scan_is_the_recurrence_whatever_the_segments(tokens: int) -> None:
    torch.manual_seed(0)
    rows = [torch.randn(tokens, width, dtype=torch.float64) for width in (3, 3, 2, 2)]
    values, step, take, read = rows[0], rows[1].exp(), rows[2], rows[3]
    decay = -torch.rand(3, 2, dtype=torch.float64)
    state, expected = torch.zeros(3, 2, dtype=torch.float64), []
    for at in range(tokens):
        state = (step[at, :, None] * decay).exp() * state + (step[at] * values[at])[:, None] * take[at]
        expected.append(state @ read[at])
    for segment in (4, 512):
        with mock.patch("mil.layers.selective_scan.SEGMENT", segment):
            scanned, last = selective_scan(torch.zeros_like(state), values, step, decay, take, read)
        torch.testing.assert_close(scanned, torch.stack(expected))
        torch.testing.assert_close(last, state)


def test_states_computed_again_give_the_gradient() -> None:
    torch.manual_seed(0)
    shapes = ((5, 2), (5, 2), (2, 2), (5, 2), (5, 2))
    inputs = [torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    with mock.patch("mil.layers.selective_scan.SEGMENT", 3):
        start = torch.zeros(2, 2, dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda v, s, d, t, r: selective_scan(start, v, s, -d, t, r)[0], inputs)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="rate is 0 and layers 2, expected at least one"):
        MambaMIL(IN_DIM, 1, rate=0)


def test_a_reordering_into_one_segment_is_the_order_itself() -> None:
    torch.manual_seed(0)
    model, bags = MambaMIL(IN_DIM, 1, 8, layers=1, rate=1).double().eval(), simulated((6,), 0, torch.float64)
    layer = model.layers[0]
    assert isinstance(layer, ReorderedMamba)
    tokens = model.embed(bags.features)
    both = layer.start(layer.norm(tokens)).chunk(2, dim=1)
    read, again = (space(*both, space.start())[0] for space in (layer.in_order, layer.reordered))
    expected = layer.out(read + again)
    torch.testing.assert_close(layer(tokens), expected)


@pytest.mark.parametrize("tokens", [1, 7, 23, 40])
def test_a_layer_read_in_pieces_is_that_of_all_tokens(tokens: int) -> None:
    torch.manual_seed(0)
    layer = ReorderedMamba(6, states=2, rate=5).double().eval()
    rows, out = torch.randn(tokens, 6, dtype=torch.float64), torch.zeros(tokens, 6, dtype=torch.float64)
    with torch.inference_mode(), mock.patch("mil.tile_rows.READ_ROWS", 3):
        layer.add_in_pieces(rows, out)
        torch.testing.assert_close(out, layer(rows), rtol=1e-10, atol=1e-12)
