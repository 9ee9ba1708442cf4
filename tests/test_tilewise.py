"""Functions applied in blocks of tiles equal the function of all tiles, for both implementations."""

from unittest import mock

import torch
from hypothesis import given
from torch import Tensor

from mil import bags as module
from tests.test_bags import computed, few, normal, packed, ragged, seeds, ways


@ways
@given(sizes=ragged, seed=seeds)
@few
def test_tilewise_equals_the_function_of_all_tiles(way: str, sizes: list[int], seed: int) -> None:
    bags, weight = packed(sizes, seed), normal(seed + 1, 3, 2).requires_grad_()
    features = bags.features.requires_grad_()
    with computed(way), mock.patch.multiple(module, BLOCK=8, UNIT=3):
        product, rows = bags.tilewise(lambda tiles: (tiles @ weight, tiles.sum(1)))
    torch.testing.assert_close(product, features @ weight, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(rows, features.sum(1), rtol=1e-12, atol=1e-12)
    gradients = torch.autograd.grad(product.square().sum(), (features, weight))
    expected = torch.autograd.grad((features @ weight).square().sum(), (features, weight))
    for gradient, expected_gradient in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-10)


def test_tilewise_calls_the_function_with_few_sizes() -> None:
    seen = []

    def watch(tiles: Tensor) -> tuple[Tensor]:
        seen.append(len(tiles))
        return (tiles,)

    for tiles in (40, module.UNIT + 1, 3 * module.UNIT - 5, module.BLOCK + 700):
        (same,) = packed([tiles]).tilewise(watch)
        assert len(same) == tiles
    assert seen == [40, 2 * module.UNIT, 3 * module.UNIT, module.BLOCK, 3 * module.UNIT]


def test_blocks_written_in_place_are_those_joined_at_the_end() -> None:
    bags = packed([module.BLOCK + 700, 5])
    joined = bags.tilewise(lambda tiles: (tiles.exp(), tiles.sum(1)))
    with torch.inference_mode():
        in_place = bags.tilewise(lambda tiles: (tiles.exp(), tiles.sum(1)))
    assert all(torch.equal(first, second) for first, second in zip(joined, in_place, strict=True))


def test_stored_tiles_are_converted_a_block_at_a_time() -> None:
    bags = packed([3 * module.BLOCK]).cast(torch.float16)
    seen: list[tuple[int, torch.dtype]] = []

    def watch(tiles: Tensor) -> tuple[Tensor]:
        seen.append((len(tiles), tiles.dtype))
        return (tiles.sum(1),)

    (sums,) = bags.cast_in_blocks(torch.float32).tilewise(watch)
    assert seen == [(module.BLOCK, torch.float32)] * 3
    assert torch.equal(sums, bags.cast(torch.float32).tilewise(watch)[0])
    assert bags.cast_in_blocks(torch.float32).cast(torch.float16).precision is None
