"""Neighbour graphs against tables of all distances."""

import tracemalloc
from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mil.bags import Bags
from mil.layers import neighbours
from mil.layers.neighbours import Places, adjacent, nearest

quickly = settings(deadline=None, max_examples=12)


def placed(*bags: list[tuple[float, float]], slide: list[int] | None = None) -> Places:
    """Bags of tiles at these places."""
    tiles = sum(map(len, bags))
    return Places.of(
        Bags(
            torch.zeros(tiles, 1),
            tuple(map(len, bags)),
            torch.tensor([place for bag in bags for place in bag], dtype=torch.float64),
            None if slide is None else torch.tensor(slide),
        )
    )


def grid(columns: int, rows: int, step: float = 256) -> list[tuple[float, float]]:
    return [(step * x, step * y) for y in range(rows) for x in range(columns)]


def scattered(tiles: int, slides: int, extent: int, seed: int) -> Places:
    """Different places, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    spots = torch.randperm(extent**2, generator=generator)[:tiles]
    return Places(
        torch.stack([spots % extent, spots // extent], 1),
        torch.unique(torch.randint(slides, (tiles,), generator=generator), return_inverse=True)[1],
    )


def by_hand(places: Places, tile: int, k: int) -> list[int]:
    on_slide = (places.slide == places.slide[tile]).nonzero().flatten().tolist()
    away = (places.xy - places.xy[tile]).tolist()
    neighbours = [near for near in on_slide if near != tile]
    return sorted(neighbours, key=lambda near: (away[near][0] ** 2 + away[near][1] ** 2, *reversed(away[near])))[:k]


@quickly
@given(st.integers(1, 70), st.integers(1, 3), st.sampled_from([9, 60, 900]), st.integers(1, 9), st.integers(0, 99))
def test_the_nearest_are_those_of_the_table_of_all_distances(
    n: int, slides: int, extent: int, k: int, seed: int
) -> None:
    places = scattered(n, slides, extent, seed)
    near = nearest(places, k)
    assert near.index.shape == near.valid.shape == (n, k)
    for tile in range(n):
        expected = by_hand(places, tile, k)
        assert near.index[tile][near.valid[tile]].tolist() == expected
        assert (near.index[tile][~near.valid[tile]] == tile).all()


def test_a_slide_seen_again_is_not_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    places = scattered(80, 2, 40, 0)
    first, touching_first = nearest(places, 6), adjacent(places)
    monkeypatch.setattr(neighbours, "cKDTree", None)
    assert torch.equal(nearest(places, 6).index, first.index)
    assert torch.equal(adjacent(places), touching_first)


def test_the_least_recently_used_graphs_are_dropped_where_memory_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_cache", OrderedDict())
    monkeypatch.setattr(neighbours, "CACHE_BYTES", 3 * 20 * 4 * 8)
    for seed in range(5):
        nearest(scattered(20, 1, 30, seed), 4)
    assert len(neighbours._cache) == 3


def test_inside_a_grid_the_eight_nearest_are_the_eight_around() -> None:
    places = placed(grid(7, 6))
    near = nearest(places, 8)
    x, y = (places.xy // 256).T
    inside = (x > 0) & (x < 6) & (y > 0) & (y < 5)
    away = (places.xy[near.index[inside]] - places.xy[inside].unsqueeze(1)).abs().amax(2)
    assert (away == 256).all()


def test_of_neighbours_equally_far_the_upper_then_the_left_one_is_taken() -> None:
    places = placed([(0, 0), (10, 0), (-10, 0), (0, 10), (0, -10)])
    assert nearest(places, 4).index[0].tolist() == [4, 2, 1, 3]


def test_far_and_crowded_tiles_find_their_neighbours_too() -> None:
    crowd = [(float(x), float(y)) for x in range(12) for y in range(12)]
    places = placed([*crowd, (90_000, 70_000), (-40_000, 3)])
    near = nearest(places, 3)
    for tile in (0, 77, 144, 145):
        assert near.index[tile].tolist() == by_hand(places, tile, 3)


def test_many_tiles_at_one_place_are_neighbours_of_each_other() -> None:
    near = nearest(placed([(5, 5)] * 9), 3)
    assert near.valid.all()
    assert (near.index != torch.arange(9).unsqueeze(1)).all()


def touching(places: Places) -> set[tuple[int, int]]:
    pairs = [tuple(pair) for pair in adjacent(places).T.tolist()]
    assert len(pairs) == len(set(pairs))
    return {(first, second) for first, second in pairs}


@quickly
@given(st.integers(1, 60), st.integers(1, 3), st.integers(3, 12), st.sampled_from([1, 7, 512]), st.integers(0, 99))
def test_tiles_of_a_grid_touch_as_a_king_moves(n: int, slides: int, extent: int, step: int, seed: int) -> None:
    n = min(n, extent**2)
    drawn = scattered(n, slides, extent, seed)
    places = Places(drawn.xy * step - 3, drawn.slide)
    apart = (places.xy.unsqueeze(0) - places.xy.unsqueeze(1)).abs().amax(2)  # (n, n)
    near = 2 * apart < 3 * places.step[places.slide]
    near &= (places.slide.unsqueeze(0) == places.slide.unsqueeze(1)) & ~torch.eye(n, dtype=torch.bool)
    expected = {(first, second) for first, second in near.nonzero().tolist()}
    assert touching(places) == expected


def test_a_grid_rounded_to_whole_pixels_is_still_a_grid() -> None:
    exact, rounded = placed(grid(9, 8)), placed(grid(9, 8, step=255.7))
    assert touching(rounded) == touching(exact)


def test_pieces_of_tissue_with_grids_of_their_own_share_one_step() -> None:
    shifted = [(x + 5000 + 31, y + 77) for x, y in grid(5, 5)]
    places = placed(grid(6, 4) + shifted)
    assert places.step.tolist() == [256]
    assert touching(places) == touching(placed(grid(6, 4), grid(5, 5)))


def test_the_step_survives_a_draw_of_few_tiles() -> None:
    places = placed(grid(60, 60))
    drawn = torch.randperm(3600, generator=torch.Generator().manual_seed(0))[:400]
    assert Places(places.xy[drawn], places.slide[drawn]).step.tolist() == [256]


def test_scattered_tiles_have_a_step_that_leaves_them_few_neighbours() -> None:
    for seed in range(5):
        assert adjacent(scattered(500, 1, 900, seed)).shape[1] < 40 * 500


@pytest.mark.parametrize(
    ("bag", "step"), [([(7, 7)], 1), ([(0, 0), (512, 256)], 256), ([(3, 3), (3, 3)], 1), ([(0, 9), (40, 9)], 40)]
)
def test_the_step_of_a_few_tiles(bag: list[tuple[float, float]], step: int) -> None:
    assert placed(bag).step.tolist() == [step]


def test_slides_of_one_bag_are_never_joined() -> None:
    together = placed(grid(3, 3) * 2, slide=[0] * 9 + [1] * 9)
    apart = placed(grid(3, 3), grid(3, 3))
    assert torch.equal(adjacent(together), adjacent(apart))
    assert torch.equal(nearest(together, 4).index, nearest(apart, 4).index)
    assert torch.equal(together.step, apart.step)


def test_the_step_is_each_slides_own() -> None:
    places = placed(grid(3, 3, 100) + grid(3, 3, 7), grid(2, 2, 9), slide=[4] * 9 + [2] * 9 + [0] * 4)
    assert places.step[places.slide].tolist() == [100] * 9 + [7] * 9 + [9] * 4


@quickly
@given(st.integers(2, 60), st.integers(0, 99))
def test_the_order_of_tiles_does_not_matter(n: int, seed: int) -> None:
    places = scattered(n, 2, 9, seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    shuffled = Places(places.xy[order], places.slide[order])
    assert torch.equal(order[nearest(shuffled, 5).index], nearest(places, 5).index[order])
    back: list[int] = order.tolist()
    assert {(back[first], back[second]) for first, second in touching(shuffled)} == touching(places)


def test_bags_without_coordinates_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="the model reads where tiles lie, but the bags have no coordinates"):
        Places.of(Bags(torch.zeros(2, 1), (2,)))


def test_twenty_thousand_tiles_need_no_table_of_all_pairs() -> None:
    places = placed(grid(160, 125))
    tracemalloc.start()
    nearest(places, 8)
    assert adjacent(places).shape[1] == 8 * 20_000 - 6 * (160 + 125) + 4
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000**2, "bytes: a table of all pairs has 400 million entries"
