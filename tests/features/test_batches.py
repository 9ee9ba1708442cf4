"""Which bags a step sees depends on seed and epoch alone; every bag comes once, with its own tiles."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mil.features.batches import BagDataset, Draw, TrainOrder, WholeOrder, loader
from mil.features.store import FeatureStore
from tests.features.conftest import Write, grid

SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=30)
TILES = (7, 3, 12, 5, 9)


@pytest.fixture
def store(tmp_path: Path, trident: Write) -> FeatureStore:
    """Slides s0 to s4; a tile's first feature is its x, its second its y, its third its slide."""
    for number, tiles in enumerate(TILES):
        corners = grid(tiles, step=1)
        features = np.concatenate([corners, np.full((tiles, 1), number)], axis=1)
        trident(tmp_path / f"s{number}.h5", features.astype("float32"), corners)
    return FeatureStore(tmp_path)


def dataset(store: FeatureStore, max_tiles: int | None = None, seed: int = 0) -> BagDataset:
    """Three bags: s0 with s1, s2 alone, s3 with s4."""
    return BagDataset(store, [("s0", "s1"), ("s2",), ("s3", "s4")], torch.arange(3.0), max_tiles, seed)


def order_of(order: TrainOrder) -> list[list[int]]:
    return [[draw.bag for draw in batch] for batch in order]


@settings(deadline=None, max_examples=30)
@given(SIZES, st.integers(1, 6), st.integers(0, 5), st.integers(0, 5))
def test_every_bag_comes_once_an_epoch_in_an_order_of_seed_and_epoch(
    sizes: list[int], bags: int, seed: int, epoch: int
) -> None:
    order = TrainOrder(sizes, bags, seed=seed, epoch=epoch)
    batches = order_of(order)
    assert sorted(bag for batch in batches for bag in batch) == list(range(len(sizes)))
    assert max(map(len, batches)) <= bags
    assert len(order) == len(batches) == -(-len(sizes) // bags)
    again = TrainOrder(sizes, bags, seed=seed)
    list(again)  # what was read before does not matter
    again.set_epoch(epoch)
    assert order_of(again) == batches


def test_another_epoch_and_another_seed_have_another_order() -> None:
    sizes = [1] * 40
    first = order_of(TrainOrder(sizes, 4))
    assert order_of(TrainOrder(sizes, 4, epoch=1)) != first
    assert order_of(TrainOrder(sizes, 4, seed=1)) != first


@settings(deadline=None, max_examples=30)
@given(SIZES, st.integers(1, 60), st.integers(0, 3))
def test_the_tile_budget_is_kept_but_for_a_bag_alone(sizes: list[int], budget: int, epoch: int) -> None:
    batches = order_of(TrainOrder(sizes, 8, budget, epoch=epoch))
    assert sorted(bag for batch in batches for bag in batch) == list(range(len(sizes)))
    for batch in batches:
        assert len(batch) == 1 or sum(sizes[bag] for bag in batch) <= budget


def test_weights_draw_the_classes_evenly() -> None:
    label = np.array([1] * 10 + [0] * 90)
    weight = 1 / np.bincount(label)[label]
    drawn = [
        label[bag]
        for epoch in range(50)
        for batch in order_of(TrainOrder([1] * 100, 4, weight=weight, epoch=epoch))
        for bag in batch
    ]
    assert len(drawn) == 5000
    assert abs(np.mean(drawn) - 0.5) < 4 * 0.5 / np.sqrt(5000), "four standard errors"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(2, 9), st.integers(0, 5))
def test_events_are_dealt_out_evenly_and_no_bag_is_alone(happened: list[bool], bags: int, epoch: int) -> None:
    events, sizes = np.array(happened), [1] * len(happened)
    batches = order_of(TrainOrder(sizes, bags, epoch=epoch, events=events))
    assert sorted(bag for batch in batches for bag in batch) == list(range(len(sizes)))
    assert max(map(len, batches)) <= max(bags, 3), "a last one of one bag is joined to another"
    assert len(batches) <= -(-len(sizes) // bags)
    assert len(sizes) == 1 or min(map(len, batches)) > 1
    counted = [int(events[batch].sum()) for batch in batches]
    assert max(counted) - min(counted) <= 1
    assert min(counted) >= 1 or events.sum() < len(batches)
    assert order_of(TrainOrder(sizes, bags, epoch=epoch, events=events)) == batches


def test_events_come_in_another_order_each_epoch_and_seed() -> None:
    events = np.arange(40) % 4 == 0
    first = order_of(TrainOrder([1] * 40, 8, events=events))
    assert order_of(TrainOrder([1] * 40, 8, events=events, epoch=1)) != first
    assert order_of(TrainOrder([1] * 40, 8, events=events, seed=1)) != first


@settings(deadline=None, max_examples=30)
@given(SIZES, st.integers(1, 60), st.integers(0, 3))
def test_events_do_not_break_the_tile_budget(sizes: list[int], budget: int, epoch: int) -> None:
    batches = order_of(TrainOrder(sizes, 8, budget, epoch=epoch, events=np.arange(len(sizes)) % 3 == 0))
    assert sorted(bag for batch in batches for bag in batch) == list(range(len(sizes)))
    for batch in batches:
        assert len(batch) == 1 or sum(sizes[bag] for bag in batch) <= budget


@settings(deadline=None, max_examples=30)
@given(SIZES, st.integers(1, 6), st.integers(1, 3), st.one_of(st.none(), st.integers(1, 60)))
def test_a_pass_over_the_whole_cohort_has_the_same_batches_each_time(
    sizes: list[int], bags: int, passes: int, budget: int | None
) -> None:
    order = WholeOrder(sizes, bags, budget, passes)
    batches = list(order)
    assert len(order) == len(batches)
    once = batches[: len(batches) // passes]
    assert batches == once * passes
    assert [draw.bag for batch in once for draw in batch] == list(range(len(sizes)))
    order.set_epoch(3)
    assert [[(draw.bag, draw.epoch) for draw in batch] for batch in order] == [
        [(draw.bag, 3) for draw in batch] for batch in batches
    ]


def test_covariates_follow_their_bags(store: FeatureStore) -> None:
    covariates = torch.arange(6.0).view(3, 2)
    slides = [("s0", "s1"), ("s2",), ("s3", "s4")]
    data = BagDataset(store, slides, torch.arange(3.0), covariates=covariates)
    held = data[[Draw(2), Draw(0)]].bags.covariates
    assert held is not None
    assert held.tolist() == [[4, 5], [0, 1]]
    assert dataset(store)[[Draw(0)]].bags.covariates is None


def test_a_bag_holds_the_tiles_of_its_slides_one_after_the_other(store: FeatureStore) -> None:
    data = dataset(store)
    assert data.sizes == [10, 12, 14]
    batch = data[[Draw(0), Draw(2)]]
    assert batch.bags.sizes == (10, 14)
    assert batch.bags.features[:, 2].tolist() == [0] * 7 + [1] * 3 + [3] * 5 + [4] * 9
    assert batch.place.tolist() == batch.target.tolist() == [0, 2]


@pytest.mark.parametrize("max_tiles", [None, 6])
def test_coordinates_follow_their_tiles(store: FeatureStore, max_tiles: int | None) -> None:
    bags = dataset(store, max_tiles)[[Draw(bag, epoch=3) for bag in range(3)]].bags
    assert bags.coords is not None
    assert torch.equal(bags.features[:, :2].long(), bags.coords)
    assert bags.sizes == ((6, 6, 6) if max_tiles else (10, 12, 14))


@pytest.mark.parametrize("max_tiles", [None, 6])
def test_each_tile_keeps_the_index_of_its_slide_in_batches_and_when_tiles_are_drawn(
    store: FeatureStore, max_tiles: int | None
) -> None:
    bags = dataset(store, max_tiles)[[Draw(bag, epoch=3) for bag in range(3)]].bags
    slide_number = bags.features[:, 2].long()
    first_slide_of_bag = torch.tensor([0, 2, 3])
    assert bags.slide is not None
    assert torch.equal(bags.slide, slide_number - bags.spread(first_slide_of_bag))
    assert set(bags.slide[bags.bag == 0].tolist()) == set(bags.slide[bags.bag == 2].tolist()) == {0, 1}


def test_tiles_are_drawn_anew_each_epoch_and_the_same_again_for_the_same_epoch(store: FeatureStore) -> None:
    data = dataset(store, 6)

    def tiles(epoch: int | None, data: BagDataset = data) -> list[list[float]]:
        rows: list[list[float]] = data[[Draw(0, epoch)]].bags.features.tolist()
        return rows

    assert tiles(0) == tiles(0)
    assert len({str(tiles(epoch)) for epoch in range(8)}) > 4
    assert {tuple(tile) for epoch in range(20) for tile in tiles(epoch)} == {tuple(tile) for tile in tiles(None)}
    assert len(tiles(0)) == 6
    assert len({tuple(tile) for tile in tiles(0)}) == 6, "drawn without replacement"
    assert tiles(0, dataset(store, 6, seed=1)) != tiles(0)


def test_evaluation_sees_every_bag_whole_and_in_order(store: FeatureStore) -> None:
    batches = list(loader(dataset(store, max_tiles=2)))
    assert [int(batch.place) for batch in batches] == [0, 1, 2]
    assert [batch.bags.sizes for batch in batches] == [(10,), (12,), (14,)]


def test_worker_processes_give_the_same_batches(store: FeatureStore) -> None:
    def found(workers: int) -> list[tuple[list[int], list[list[float]]]]:
        order = TrainOrder([6, 6, 6], 2, seed=5, epoch=2)
        batches = loader(dataset(store, 6), order, workers)
        return [(batch.place.tolist(), batch.bags.features.tolist()) for batch in batches]

    assert found(2) == found(0)


def test_a_batch_that_is_written_to_leaves_what_the_store_keeps(store: FeatureStore) -> None:
    bags = dataset(store)
    before = [batch.bags.features.clone() for batch in loader(bags)]
    store.keep(store.slides, 2**20)
    for dtype in (torch.float32, torch.bfloat16):
        for batch in loader(bags.cast(dtype)):
            batch.bags.features.zero_()
            assert batch.bags.coords is not None
            batch.bags.coords.zero_()
    for batch, original in zip(loader(bags), before, strict=True):
        assert torch.equal(batch.bags.features, original)
        assert batch.bags.coords is not None
        assert batch.bags.coords.any()
