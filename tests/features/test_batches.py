"""Which bags a step sees depends only on seed and epoch; every bag comes once, with its own tiles."""

import io
import shutil
import tempfile
from multiprocessing import process
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mil import tile_rows
from mil.errors import FeatureError, ResourceError
from mil.features import batches, formats, pieces
from mil.features import packed as packed_files
from mil.features.batches import BagDataset, Draw, TrainOrder, WholeOrder, loader, reading
from mil.features.packing import pack
from mil.features.store import FeatureStore
from mil.tile_rows import TileRows, blocks
from tests.features.conftest import Write, grid, random_features

SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=30)
TILES = (7, 3, 12, 5, 9)


@pytest.fixture
def store(tmp_path: Path, trident: Write) -> FeatureStore:
    """Return slides s0 to s4 whose first three features are the tile's x, its y and the number of its slide."""
    for number, tiles in enumerate(TILES):
        corners = grid(tiles, step=1)
        features = np.concatenate([corners, np.full((tiles, 1), number)], axis=1)
        trident(tmp_path / f"s{number}.h5", features.astype("float32"), corners)
    return FeatureStore(tmp_path)


def dataset(store: FeatureStore, max_tiles: int | None = None, seed: int = 0) -> BagDataset:
    """Return three bags: s0 with s1, s2 alone, s3 with s4."""
    return BagDataset(store, [("s0", "s1"), ("s2",), ("s3", "s4")], torch.arange(3.0), max_tiles, seed)


def bags_per_batch(order: TrainOrder) -> list[list[int]]:
    return [[draw.bag for draw in batch] for batch in order]


@settings(deadline=None, max_examples=30)
@given(SIZES, st.integers(1, 6), st.integers(0, 5), st.integers(0, 5))
def test_every_bag_comes_once_per_epoch_in_a_reproducible_order(
    sizes: list[int], bags: int, seed: int, epoch: int
) -> None:
    order = TrainOrder(sizes, bags, seed=seed, epoch=epoch)
    batches = bags_per_batch(order)
    assert sorted(bag for batch in batches for bag in batch) == list(range(len(sizes)))
    assert max(map(len, batches)) <= bags
    assert len(order) == len(batches) == -(-len(sizes) // bags)
    again = TrainOrder(sizes, bags, seed=seed)
    list(again)  # earlier iterations have no effect
    again.set_epoch(epoch)
    assert bags_per_batch(again) == batches


def test_another_epoch_or_seed_gives_another_order() -> None:
    sizes = [1] * 40
    first = bags_per_batch(TrainOrder(sizes, 4))
    assert bags_per_batch(TrainOrder(sizes, 4, epoch=1)) != first
    assert bags_per_batch(TrainOrder(sizes, 4, seed=1)) != first


@settings(deadline=None, max_examples=30)
@given(SIZES, st.integers(1, 60), st.integers(0, 3))
def test_only_a_single_large_bag_may_exceed_the_tile_budget(sizes: list[int], budget: int, epoch: int) -> None:
    batches = bags_per_batch(TrainOrder(sizes, 8, budget, epoch=epoch))
    assert sorted(bag for batch in batches for bag in batch) == list(range(len(sizes)))
    for batch in batches:
        assert len(batch) == 1 or sum(sizes[bag] for bag in batch) <= budget


def test_weights_draw_the_classes_evenly() -> None:
    label = np.array([1] * 10 + [0] * 90)
    weight = 1 / np.bincount(label)[label]
    drawn = [
        label[bag]
        for epoch in range(50)
        for batch in bags_per_batch(TrainOrder([1] * 100, 4, weight=weight, epoch=epoch))
        for bag in batch
    ]
    assert len(drawn) == 5000
    assert abs(np.mean(drawn) - 0.5) < 4 * 0.5 / np.sqrt(5000), "four standard errors"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(2, 9), st.integers(0, 5))
def test_events_are_spread_evenly_and_no_batch_has_one_bag(happened: list[bool], bags: int, epoch: int) -> None:
    events, sizes = np.array(happened), [1] * len(happened)
    batches = bags_per_batch(TrainOrder(sizes, bags, epoch=epoch, events=events))
    assert sorted(bag for batch in batches for bag in batch) == list(range(len(sizes)))
    assert max(map(len, batches)) <= max(bags, 3), "a final batch of one bag is merged into another"
    assert len(batches) <= -(-len(sizes) // bags)
    assert len(sizes) == 1 or min(map(len, batches)) > 1
    counted = [int(events[batch].sum()) for batch in batches]
    assert max(counted) - min(counted) <= 1
    assert min(counted) >= 1 or events.sum() < len(batches)
    assert bags_per_batch(TrainOrder(sizes, bags, epoch=epoch, events=events)) == batches


def test_order_of_events_differs_between_epochs_and_seeds() -> None:
    events = np.arange(40) % 4 == 0
    first = bags_per_batch(TrainOrder([1] * 40, 8, events=events))
    assert bags_per_batch(TrainOrder([1] * 40, 8, events=events, epoch=1)) != first
    assert bags_per_batch(TrainOrder([1] * 40, 8, events=events, seed=1)) != first


@settings(deadline=None, max_examples=30)
@given(SIZES, st.integers(1, 60), st.integers(0, 3))
def test_tile_budget_holds_with_spread_events(sizes: list[int], budget: int, epoch: int) -> None:
    batches = bags_per_batch(TrainOrder(sizes, 8, budget, epoch=epoch, events=np.arange(len(sizes)) % 3 == 0))
    assert sorted(bag for batch in batches for bag in batch) == list(range(len(sizes)))
    for batch in batches:
        assert len(batch) == 1 or sum(sizes[bag] for bag in batch) <= budget


@settings(deadline=None, max_examples=30)
@given(SIZES, st.integers(1, 6), st.integers(1, 3), st.one_of(st.none(), st.integers(1, 60)))
def test_each_pass_over_the_cohort_has_the_same_batches(
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


def test_bag_concatenates_the_tiles_of_its_slides(store: FeatureStore) -> None:
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
def test_tiles_keep_the_index_of_their_slide(store: FeatureStore, max_tiles: int | None) -> None:
    bags = dataset(store, max_tiles)[[Draw(bag, epoch=3) for bag in range(3)]].bags
    slide_number = bags.features[:, 2].long()
    first_slide_of_bag = torch.tensor([0, 2, 3])
    assert bags.slide is not None
    assert torch.equal(bags.slide, slide_number - bags.spread(first_slide_of_bag))
    assert set(bags.slide[bags.bag == 0].tolist()) == set(bags.slide[bags.bag == 2].tolist()) == {0, 1}


def test_sampled_tiles_depend_on_the_epoch_and_seed(store: FeatureStore) -> None:
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


def test_a_folder_for_temporary_files_whose_name_is_too_long_for_sockets_is_refused(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that cannot send what they read would be waited for without an end."""
    base = Path(tempfile.mkdtemp(dir="/tmp"))
    longest = base / ("x" * (batches.LONGEST_FOLDER - len(str(base)) - 1))
    too_long = longest.with_name(longest.name + "x")
    for folder in (longest, too_long):
        folder.mkdir()
    try:
        monkeypatch.setattr(tempfile, "tempdir", str(longest))
        monkeypatch.delitem(process.current_process()._config, "tempdir", raising=False)  # type: ignore[attr-defined]
        assert len(list(loader(dataset(store), workers=1))) == len(dataset(store))
        monkeypatch.setattr(tempfile, "tempdir", str(too_long))
        with pytest.raises(ResourceError, match=r"has a name of 76 bytes, expected at most 75"):
            loader(dataset(store), workers=1)
        loader(dataset(store))
    finally:
        shutil.rmtree(base)


def test_evaluation_reads_all_tiles_of_every_bag_in_order(store: FeatureStore) -> None:
    batches = list(loader(dataset(store, max_tiles=2)))
    assert [int(batch.place) for batch in batches] == [0, 1, 2]
    assert [batch.bags.sizes for batch in batches] == [(10,), (12,), (14,)]


def test_worker_processes_yield_the_same_batches(store: FeatureStore) -> None:
    def batches_with(workers: int) -> list[tuple[list[int], list[list[float]]]]:
        order = TrainOrder([6, 6, 6], 2, seed=5, epoch=2)
        batches = loader(dataset(store, 6), order, workers)
        return [(batch.place.tolist(), batch.bags.features.tolist()) for batch in batches]

    assert batches_with(2) == batches_with(0)


def test_writing_to_a_batch_does_not_change_cached_slides(store: FeatureStore) -> None:
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


@pytest.fixture
def packed_file(store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the slides of `store` in one file."""
    out = tmp_path_factory.mktemp("packed") / "cohort.h5"
    pack(store, out)
    return out


@pytest.mark.parametrize("packed", [False, True])
def test_drawn_tiles_are_those_of_the_whole_bag(store: FeatureStore, packed_file: Path, packed: bool) -> None:
    source = FeatureStore(packed_file) if packed else store
    draws = [Draw(bag, epoch=3) for bag in range(3)]
    bags = dataset(source, 6)[draws].bags
    kept = FeatureStore(packed_file)
    assert kept.keep(kept.slides, 2**20), "then slides are read whole"
    expected = dataset(kept, 6)[draws].bags
    assert torch.equal(bags.features, expected.features)
    assert bags.coords is not None
    assert expected.coords is not None
    assert torch.equal(bags.coords, expected.coords)
    assert bags.slide is not None
    assert expected.slide is not None
    assert torch.equal(bags.slide, expected.slide)


def test_only_the_drawn_tiles_of_a_packed_file_are_read(tmp_path: Path, trident: Write) -> None:
    trident(tmp_path / "slides" / "s.h5", random_features(400, 2048, "float32"))
    pack(FeatureStore(tmp_path / "slides"), tmp_path / "cohort.h5")
    bags = BagDataset(FeatureStore(tmp_path / "cohort.h5"), [("s",)], torch.zeros(1), max_tiles=20)
    bags.read_headers()
    read: list[tuple[int, int]] = []

    def watched(file: io.BufferedReader, place: int, start: int, shape: tuple[int, int], kind: str) -> object:
        read.append(shape)
        return rows(file, place, start, shape, kind)

    rows = packed_files._rows
    with mock.patch.object(packed_files, "_rows", watched):
        drawn = bags[[Draw(0, epoch=0)]].bags
    assert drawn.sizes == (20,)
    assert sum(tiles for tiles, width in read if width == 2048) == 20, "of 400"


def test_tiles_are_taken_at_equal_steps_of_the_whole_bag(store: FeatureStore) -> None:
    bags = BagDataset(store, [("s0", "s1"), ("s2",)], torch.zeros(2), at_most=4)
    first, second = bags[[Draw(0)]].bags, bags[[Draw(1)]].bags
    expected = BagDataset(store, [("s0", "s1"), ("s2",)], torch.zeros(2))[[Draw(0), Draw(1)]].bags
    assert torch.equal(first.features, expected[0].features[[0, 3, 6, 9]])
    assert torch.equal(second.features, expected[1].features[[0, 4, 7, 11]])
    assert bags.sizes == [4, 4]
    assert BagDataset(store, [("s1",)], torch.zeros(1), at_most=4).sizes == [3]


@pytest.mark.parametrize("packed", [False, True])
def test_a_large_bag_is_read_in_pieces_with_the_same_tiles(
    store: FeatureStore, packed_file: Path, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = FeatureStore(packed_file) if packed else store
    bags = dataset(source)
    assert not bags.is_large(0)
    monkeypatch.setattr(batches, "LARGE_BYTES", 4 * 3 * 10)
    assert [bags.is_large(bag) for bag in range(3)] == [False, True, True]
    monkeypatch.setattr(pieces, "PIECE_BYTES", 4 * 3 * 4)
    monkeypatch.setattr(tile_rows, "READ_ROWS", 2)
    for bag in range(3):
        whole, read = bags[[Draw(bag)]], bags.read_in_pieces(bag)
        assert isinstance(read.bags.features, TileRows)
        assert torch.equal(torch.cat(list(blocks(read.bags.features, 3))), whole.bags.features)
        for name in ("coords", "slide"):
            rows, expected = getattr(read.bags, name), getattr(whole.bags, name)
            assert (rows is None) == (expected is None)
            assert rows is None or torch.equal(rows, expected)
        assert (read.target, read.place) == (whole.target, whole.place)


def test_pieces_are_checked_as_whole_slides_are(tmp_path: Path, trident: Write) -> None:
    features = random_features(40, 8, "float32")
    features[33, 2] = np.nan
    trident(tmp_path / "s.h5", features)
    store = FeatureStore(tmp_path)
    with pytest.raises(FeatureError, match="1 of 40 tiles have NaN"):
        list(blocks(BagDataset(store, [("s",)], torch.zeros(1)).read_in_pieces(0).bags.features))
    rows = store.pieces("s").rows()
    trident(tmp_path / "s.h5", random_features(40, 8, "float32"))
    with pytest.raises(FeatureError, match="has changed while it was in use"):
        list(blocks(rows))


def test_a_packed_slide_is_compared_with_its_digest_before_it_is_read_in_pieces(packed_file: Path) -> None:
    with h5py.File(packed_file, "r+") as file:
        file["features"][-1, 0] = 7  # of slide s4
    bags = dataset(FeatureStore(packed_file))
    bags.read_in_pieces(1)
    with pytest.raises(FeatureError, match="'s4' differ from their digest"):
        bags.read_in_pieces(2)


@pytest.mark.parametrize("is_drawn", [False, True])
def test_a_torch_file_is_compared_with_its_checksums_before_parts_of_it_are_read(
    is_drawn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("good", "bad"):
        torch.save(torch.full((40, 5), 1.5), tmp_path / f"{name}.pt")
    raw = (tmp_path / "bad.pt").read_bytes()
    last = raw.rindex(np.float32(1.5).tobytes())
    (tmp_path / "bad.pt").write_bytes(raw[:last] + np.float32(-1.5).tobytes() + raw[last + 4 :])
    compared = list[Path]()
    compare = formats.compare

    def comparing(path: Path) -> None:
        compared.append(path)
        compare(path)

    monkeypatch.setattr(formats, "compare", comparing)
    bags = BagDataset(FeatureStore(tmp_path), [("good",), ("bad",)], torch.zeros(2), max_tiles=3)

    def read(bag: int) -> Tensor:
        if is_drawn:
            return bags[[Draw(bag, epoch=0)]].bags.features
        return torch.cat(list(blocks(bags.read_in_pieces(bag).bags.features)))

    assert (read(0) == 1.5).all()
    read(0)
    assert compared == [tmp_path / "good.pt"], "once"
    with pytest.raises(FeatureError, match=r"bad\.pt: record .* differs from its checksum"):
        read(1)


def test_a_reading_process_that_was_killed_is_named_as_such() -> None:
    with (
        pytest.raises(
            ResourceError, match=r"was killed \(Killed\), as systems do where memory runs out; data\.workers=0"
        ),
        reading(),
    ):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    with pytest.raises(ResourceError, match=r"a process that reads features ahead was killed, as systems"), reading():
        raise ConnectionResetError(104, "Connection reset by peer")
    with pytest.raises(RuntimeError, match="shapes"), reading():
        raise RuntimeError("shapes differ")
