"""Neighbour graphs against brute force over all distances."""

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


def places_of(*bags: list[tuple[float, float]], slide: list[int] | None = None) -> Places:
    """Return bags of tiles at these places."""
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


def scattered_places(tiles: int, slides: int, extent: int, seed: int) -> Places:
    """Return distinct places drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    spots = torch.randperm(extent**2, generator=generator)[:tiles]
    return Places(
        torch.stack([spots % extent, spots // extent], 1),
        torch.unique(torch.randint(slides, (tiles,), generator=generator), return_inverse=True)[1],
    )


def nearest_by_sorting(places: Places, tile: int, k: int) -> list[int]:
    on_slide = (places.slide == places.slide[tile]).nonzero().flatten().tolist()
    away = (places.xy - places.xy[tile]).tolist()
    neighbours = [near for near in on_slide if near != tile]
    return sorted(neighbours, key=lambda near: (away[near][0] ** 2 + away[near][1] ** 2, *reversed(away[near])))[:k]


@quickly
@given(st.integers(1, 70), st.integers(1, 3), st.sampled_from([9, 60, 900]), st.integers(1, 9), st.integers(0, 99))
def test_nearest_tiles_match_brute_force(n: int, slides: int, extent: int, k: int, seed: int) -> None:
    places = scattered_places(n, slides, extent, seed)
    near = nearest(places, k)
    assert near.index.shape == near.valid.shape == (n, k)
    for tile in range(n):
        expected = nearest_by_sorting(places, tile, k)
        assert near.index[tile][near.valid[tile]].tolist() == expected
        assert (near.index[tile][~near.valid[tile]] == tile).all()


def test_graphs_of_a_slide_are_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    places = scattered_places(80, 2, 40, 0)
    first, first_adjacent = nearest(places, 6), adjacent(places)
    monkeypatch.setattr(neighbours, "cKDTree", None)
    assert torch.equal(nearest(places, 6).index, first.index)
    assert torch.equal(adjacent(places), first_adjacent)


def test_cache_drops_the_least_recently_used_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_cache", OrderedDict())
    monkeypatch.setattr(neighbours, "CACHE_BYTES", 3 * 20 * 4 * 8)
    for seed in range(5):
        nearest(scattered_places(20, 1, 30, seed), 4)
    assert len(neighbours._cache) == 3


def test_eight_nearest_in_a_grid_are_the_surrounding_tiles() -> None:
    places = places_of(grid(7, 6))
    near = nearest(places, 8)
    x, y = (places.xy // 256).T
    inside = (x > 0) & (x < 6) & (y > 0) & (y < 5)
    away = (places.xy[near.index[inside]] - places.xy[inside].unsqueeze(1)).abs().amax(2)
    assert (away == 256).all()


def test_ties_in_distance_prefer_the_upper_then_the_left_tile() -> None:
    places = places_of([(0, 0), (10, 0), (-10, 0), (0, 10), (0, -10)])
    assert nearest(places, 4).index[0].tolist() == [4, 2, 1, 3]


def test_nearest_tiles_of_remote_and_crowded_tiles() -> None:
    crowd = [(float(x), float(y)) for x in range(12) for y in range(12)]
    places = places_of([*crowd, (90_000, 70_000), (-40_000, 3)])
    near = nearest(places, 3)
    for tile in (0, 77, 144, 145):
        assert near.index[tile].tolist() == nearest_by_sorting(places, tile, 3)


def test_tiles_at_the_same_place_are_neighbours() -> None:
    near = nearest(places_of([(5, 5)] * 9), 3)
    assert near.valid.all()
    assert (near.index != torch.arange(9).unsqueeze(1)).all()


def adjacent_pairs(places: Places) -> set[tuple[int, int]]:
    pairs = [tuple(pair) for pair in adjacent(places).T.tolist()]
    assert len(pairs) == len(set(pairs))
    return {(first, second) for first, second in pairs}


@quickly
@given(st.integers(1, 60), st.integers(1, 3), st.integers(3, 12), st.sampled_from([1, 7, 512]), st.integers(0, 99))
def test_adjacent_tiles_are_those_one_king_move_away(n: int, slides: int, extent: int, step: int, seed: int) -> None:
    n = min(n, extent**2)
    drawn = scattered_places(n, slides, extent, seed)
    places = Places(drawn.xy * step - 3, drawn.slide)
    apart = (places.xy.unsqueeze(0) - places.xy.unsqueeze(1)).abs().amax(2)  # (n, n)
    near = 2 * apart < 3 * places.step[places.slide]
    near &= (places.slide.unsqueeze(0) == places.slide.unsqueeze(1)) & ~torch.eye(n, dtype=torch.bool)
    expected = {(first, second) for first, second in near.nonzero().tolist()}
    assert adjacent_pairs(places) == expected


def test_adjacency_tolerates_rounding_to_pixels() -> None:
    exact, rounded = places_of(grid(9, 8)), places_of(grid(9, 8, step=255.7))
    assert adjacent_pairs(rounded) == adjacent_pairs(exact)


def test_separate_grids_on_a_slide_share_one_step() -> None:
    shifted = [(x + 5000 + 31, y + 77) for x, y in grid(5, 5)]
    places = places_of(grid(6, 4) + shifted)
    assert places.step.tolist() == [256]
    assert adjacent_pairs(places) == adjacent_pairs(places_of(grid(6, 4), grid(5, 5)))


def test_step_is_estimated_from_a_sample_of_tiles() -> None:
    places = places_of(grid(60, 60))
    drawn = torch.randperm(3600, generator=torch.Generator().manual_seed(0))[:400]
    assert Places(places.xy[drawn], places.slide[drawn]).step.tolist() == [256]


def test_scattered_tiles_have_few_adjacent_tiles() -> None:
    for seed in range(5):
        assert adjacent(scattered_places(500, 1, 900, seed)).shape[1] < 40 * 500


@pytest.mark.parametrize(
    ("bag", "step"), [([(7, 7)], 1), ([(0, 0), (512, 256)], 256), ([(3, 3), (3, 3)], 1), ([(0, 9), (40, 9)], 40)]
)
def test_step_of_one_or_two_tiles(bag: list[tuple[float, float]], step: int) -> None:
    assert places_of(bag).step.tolist() == [step]


def test_slides_of_one_bag_are_not_connected() -> None:
    together = places_of(grid(3, 3) * 2, slide=[0] * 9 + [1] * 9)
    apart = places_of(grid(3, 3), grid(3, 3))
    assert torch.equal(adjacent(together), adjacent(apart))
    assert torch.equal(nearest(together, 4).index, nearest(apart, 4).index)
    assert torch.equal(together.step, apart.step)


def test_each_slide_has_its_own_step() -> None:
    places = places_of(grid(3, 3, 100) + grid(3, 3, 7), grid(2, 2, 9), slide=[4] * 9 + [2] * 9 + [0] * 4)
    assert places.step[places.slide].tolist() == [100] * 9 + [7] * 9 + [9] * 4


@quickly
@given(st.integers(2, 60), st.integers(0, 99))
def test_order_of_tiles_does_not_matter(n: int, seed: int) -> None:
    places = scattered_places(n, 2, 9, seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    shuffled = Places(places.xy[order], places.slide[order])
    assert torch.equal(order[nearest(shuffled, 5).index], nearest(places, 5).index[order])
    back: list[int] = order.tolist()
    assert {(back[first], back[second]) for first, second in adjacent_pairs(shuffled)} == adjacent_pairs(places)


def test_bags_without_coordinates_are_refused() -> None:
    with pytest.raises(ValueError, match="the model reads where tiles lie, but the bags have no coordinates"):
        Places.of(Bags(torch.zeros(2, 1), (2,)))


def test_memory_is_not_quadratic_in_the_tiles() -> None:
    places = places_of(grid(160, 125))
    tracemalloc.start()
    nearest(places, 8)
    assert adjacent(places).shape[1] == 8 * 20_000 - 6 * (160 + 125) + 4
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000**2, "bytes: a table of all pairs has 400 million entries"
