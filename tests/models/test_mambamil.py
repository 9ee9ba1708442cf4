"""SR-Mamba against its authors' code, and the scan against the recurrence."""

from collections.abc import Sequence
from functools import partial
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
    read = layer(arrays[f"{tiles}.tokens"], [tiles])
    torch.testing.assert_close(read, arrays[f"{tiles}.read"], rtol=1e-9, atol=1e-11)


def scan_inputs(lengths: Sequence[int]) -> list[Tensor]:
    """States before the sequences, tokens, steps, decays, and what is taken and read."""
    torch.manual_seed(0)
    count = sum(lengths)
    shapes = ((len(lengths), 2, 3), (count, 3), (count, 3), (2, 3), (count, 2), (count, 2))
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    inputs[2], inputs[3] = inputs[2].exp(), -inputs[3].exp()
    return [each.requires_grad_() for each in inputs]


SEQUENCES = pytest.mark.parametrize("lengths", [(1,), (37,), (3, 7, 1, 7, 2)])


@SEQUENCES
@pytest.mark.parametrize("segment", [1, 4, 512])
def test_the_scan_is_the_recurrence_whatever_the_segments(lengths: Sequence[int], segment: int) -> None:
    start, *rows = scan_inputs(lengths)
    decay = rows.pop(2)
    with mock.patch("mil.layers.selective_scan.SEGMENT", segment):
        scanned, last = selective_scan(start, rows[0], rows[1], decay, rows[2], rows[3], lengths)
    outputs, ends = [], []
    parts = zip(*(torch.split(each, list(lengths)) for each in rows), strict=True)
    for state, (values, steps, takes, reads) in zip(start, parts, strict=True):
        for value, step, take, read in zip(values, steps, takes, reads, strict=True):
            state = (step * decay).exp() * state + take[:, None] * step * value
            outputs.append(read @ state)
        ends.append(state)
    torch.testing.assert_close(scanned, torch.stack(outputs))
    torch.testing.assert_close(last, torch.stack(ends))


@SEQUENCES
@pytest.mark.parametrize("segment", [1, 3, 512])
def test_the_scans_gradient_is_that_of_differences(lengths: Sequence[int], segment: int) -> None:
    with mock.patch("mil.layers.selective_scan.SEGMENT", segment):
        assert torch.autograd.gradcheck(partial(selective_scan, lengths=lengths), scan_inputs(lengths))


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
    read, again = (space(*both, space.start(), bags.sizes)[0] for space in (layer.in_order, layer.reordered))
    expected = layer.out(read + again)
    torch.testing.assert_close(layer(tokens, bags.sizes), expected)


@pytest.mark.parametrize("tokens", [1, 7, 23, 40])
def test_a_layer_read_in_pieces_is_that_of_all_tokens(tokens: int) -> None:
    torch.manual_seed(0)
    layer = ReorderedMamba(6, states=2, rate=5).double().eval()
    rows, out = torch.randn(tokens, 6, dtype=torch.float64), torch.zeros(tokens, 6, dtype=torch.float64)
    with torch.inference_mode(), mock.patch("mil.tile_rows.READ_ROWS", 3):
        layer.add_in_pieces(rows, out)
        torch.testing.assert_close(out, layer(rows, [tokens]), rtol=1e-10, atol=1e-12)
