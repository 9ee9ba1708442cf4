"""Features of two encoders of the same tiles: joined by position, unmatched tiles counted, other tiles refused."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mil.errors import ConfigError, EncoderError, FeatureError
from mil.features.batches import BagDataset, Draw
from mil.features.encoders import Encoder, joined
from mil.features.feature_cache import CacheOptions, attach_copies, fill_copies, needs_of_copies
from mil.features.feature_folders import feature_folders, features_text, joined_text
from mil.features.geometry import Expected
from mil.features.joined_store import JoinedStore, open_store
from mil.features.packing import pack
from mil.features.store import FeatureStore
from mil.features.tile_matching import match_tiles
from tests.features.conftest import grid, random_features, write_clam, write_trident
from tests.features.test_feature_cache import spoil

UNI, CONCH = Encoder("uni", 8, aliases=("uni_v1",)), Encoder("conch", 4, tile_px=256, pretrained_on=("GTEx",))
KNOWN = [UNI, CONCH]
Make = Callable[..., JoinedStore]
A, B = random_features(30, 8), random_features(30, 4)
ORDER = np.random.default_rng(1).permutation(30)


@pytest.fixture
def two(tmp_path: Path) -> Make:
    """Return a function that writes slide `a` for both encoders, the second's tiles in another order."""

    def make(encoder: Encoder | None = None, extent: int = 512, moved: int = 0, keep: int = 30) -> JoinedStore:
        places = grid(30)
        write_trident(tmp_path / "uni" / "a.h5", A, places)
        rows = ORDER[keep > ORDER]
        write_trident(tmp_path / "conch" / "a.h5", B[rows], places[rows] + moved, "conch", extent)
        store = open_store(Path(f"uni={tmp_path}/uni,conch={tmp_path}/conch"), encoder, KNOWN)
        assert isinstance(store, JoinedStore)
        return store

    return make


def expected() -> torch.Tensor:
    return torch.from_numpy(np.hstack([A, B]))


def test_tiles_are_joined_by_position_whatever_their_order(two: Make) -> None:
    store = two(moved=3)  # rounding of another producer
    assert store.resolve(["a"]).findings == ()
    assert store.encoder == joined(KNOWN)
    assert (store.encoder.name, store.encoder.dim, store.encoder.widths) == ("uni+conch", 12, (8, 4))
    assert store.encoder.pretrained_on == ("GTEx",)
    assert store.verified
    slide = store.read("a")
    assert torch.equal(slide.features, expected())
    assert slide.coords is not None
    assert torch.equal(slide.coords, torch.from_numpy(grid(30)))
    assert store.header("a").blocks == (("uni", 8), ("conch", 4))


def test_pieces_drawn_tiles_and_processes_see_the_same_rows(two: Make) -> None:
    store = two(keep=20)
    store.headers(["a"])
    store = pickle.loads(pickle.dumps(store))
    kept = store.read("a").features
    assert torch.equal(kept, expected()[:20])
    assert torch.equal(torch.cat([store.pieces("a").rows()[3:9], store.pieces("a").rows()[9:]]), kept[3:])
    drawn = BagDataset(store, [("a",)], torch.zeros(1), max_tiles=7)[[Draw(0, epoch=1)]].bags
    assert drawn.coords is not None
    rows = [int(np.flatnonzero((grid(30) == place.numpy()).all(1))[0]) for place in drawn.coords]
    assert torch.equal(drawn.features, kept[rows])


def test_unmatched_tiles_are_left_out_counted_and_reported(two: Make) -> None:
    store = two(keep=20)
    (finding,) = store.resolve(["a"]).findings
    assert finding.line == ("tiles that not all encoders have are left out: 10 of 30 of uni, on 1 of 1 slides: 'a'")
    assert store.header("a").tiles == 20


def test_tiles_at_other_places_or_of_other_sizes_are_refused(two: Make) -> None:
    with pytest.raises(FeatureError, match=r"of 30 of uni and 30 of conch no tiles lie at the same place within 10.2"):
        two(moved=40).header("a")
    with pytest.raises(EncoderError, match="tiles of uni are 512 level-0 pixels wide, those of conch 256; expected"):
        two(extent=256).header("a")


def test_another_producer_and_a_wrong_name(two: Make, tmp_path: Path) -> None:
    two()
    write_clam(tmp_path / "clam" / "a.h5", B[ORDER].astype("f4"), grid(30)[ORDER])
    store = open_store(Path(f"uni={tmp_path}/uni,conch={tmp_path}/clam"), None, KNOWN)
    store.resolve(["a"]).require()
    assert not store.verified
    assert torch.allclose(store.read("a").features, expected().float())
    swapped = open_store(Path(f"conch={tmp_path}/uni,uni={tmp_path}/conch"), None, KNOWN)
    with pytest.raises(EncoderError, match=r"come from 'uni' .* expected encoder 'conch'"):
        swapped.resolve(["a"]).require()


def test_a_slide_of_one_encoder_alone_names_the_other(two: Make, tmp_path: Path) -> None:
    two()
    write_trident(tmp_path / "uni" / "b.h5")
    store = open_store(Path(f"uni={tmp_path}/uni,conch={tmp_path}/conch"), None, KNOWN)
    assert store.slides == ["a"]
    assert store.lacking("b") == ["conch"]
    with pytest.raises(FeatureError, match="slide 'b' has features of uni, none of 'conch'"):
        store.path("b")


def test_packed_features_are_those_of_the_folders(two: Make, tmp_path: Path) -> None:
    store = two(keep=20)
    pack(store, tmp_path / "all.h5")
    packed = open_store(tmp_path / "all.h5", None, KNOWN)
    assert packed.resolve(["a"]).require() == joined(KNOWN)
    assert torch.equal(packed.read("a").features, store.read("a").features)
    with pytest.raises(FeatureError, match="lies in the folder that is packed"):
        pack(store, tmp_path / "conch" / "all.h5")


def test_copies_of_each_encoder_are_read_in_place_of_the_files(two: Make, tmp_path: Path) -> None:
    store, options = two(keep=20), CacheOptions(tmp_path / "near", "bfloat16")
    plain, prints = store.read("a"), store.fingerprints(["a"])
    needs = needs_of_copies(options, store, ["a"])
    assert (needs.slides, needs.missing, needs.bytes) == (1, 1, 30 * (8 * 2 + 16) + 20 * (4 * 2 + 16))
    fill_copies(options, store, ["a"])
    for encoder in ("uni", "conch"):
        spoil(tmp_path / encoder / "a.h5")
    again = open_store(Path(f"uni={tmp_path}/uni,conch={tmp_path}/conch"), None, KNOWN)
    attach_copies(options, again)
    assert needs_of_copies(options, again, ["a"]).missing == 0
    for each in (store, again):
        slide = each.read("a")
        assert slide.features.dtype == torch.bfloat16
        assert torch.equal(slide.features, plain.features.bfloat16())
        assert slide.coords is not None
        assert plain.coords is not None
        assert torch.equal(slide.coords, plain.coords)
        assert each.fingerprints(["a"]) == prints
        assert each.rounding is not None
    alone = FeatureStore(tmp_path / "uni")
    attach_copies(options, alone)
    assert alone.is_copied("a"), "a run of one encoder shares its copy"


def test_copies_do_not_lie_among_the_features_of_any_encoder(two: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.cache=.*near: lies in .*conch, which is read, expected another"):
        fill_copies(CacheOptions(tmp_path / "conch" / "near"), two(), ["a"])
    assert not (tmp_path / "conch" / "near").exists()


def test_the_same_files_for_another_checkpoint(two: Make) -> None:
    store, tiles = two(), Expected(0.5, 256, "the checkpoint of a tool")
    for_it = store.expecting(joined(KNOWN), tiles)
    for_it.resolve(["a"]).require()
    assert (for_it.encoder, store.encoder) == (joined(KNOWN), None)
    assert torch.equal(for_it.read("a").features, expected())
    with pytest.raises(EncoderError, match="features of 'uni', 'conch', expected those of 'conch', 'uni'"):
        store.expecting(joined([CONCH, UNI]), tiles)


def test_a_checkpoint_takes_its_encoders_in_its_order(two: Make, tmp_path: Path) -> None:
    two()
    folders = f"uni={tmp_path}/uni,conch={tmp_path}/conch"
    store = open_store(Path(folders), joined([CONCH, UNI]))
    assert torch.equal(
        store.read("a").features, torch.from_numpy(np.hstack([B, A])[ORDER])
    )  # the first encoder's order
    assert open_store(Path(folders), CONCH).read("a").features.shape == (30, 4)
    with pytest.raises(EncoderError, match="features of 'uni', 'conch', expected those of 'uni', 'phikon'"):
        open_store(Path(folders), joined([UNI, Encoder("phikon", 4)]))
    with pytest.raises(EncoderError, match="features are of 'uni', 'conch', expected encoder 'phikon'"):
        open_store(Path(folders), Encoder("phikon", 4))
    with pytest.raises(EncoderError, match="the features of each: uni=DIR,conch=DIR"):
        FeatureStore(tmp_path / "uni", joined(KNOWN)).resolve(["a"]).require()


def test_fingerprints_change_with_the_files_of_any_encoder(two: Make, tmp_path: Path) -> None:
    before = two().fingerprints(["a"])["a"]
    assert before.has_same_content(two().fingerprints(["a"])["a"])
    write_trident(tmp_path / "conch" / "a.h5", B + 1, grid(30), "conch")
    store = open_store(Path(f"uni={tmp_path}/uni,conch={tmp_path}/conch"), None, KNOWN)
    assert not before.has_same_content(store.fingerprints(["a"])["a"])


def test_matching_keeps_pairs_that_are_nearest_to_each_other() -> None:
    ours, theirs = np.array([[0, 0], [10, 0], [500, 0]]), np.array([[501, 1], [9, 0], [4, 0], [900, 0]])
    match = match_tiles([ours, theirs], within=5)
    assert match.tiles == 3
    assert match.rows[0] is None
    assert match.rows[1] is not None
    assert match.rows[1].tolist() == [2, 1, 0]
    assert match.unmatched == (0, 1)
    assert match_tiles([ours, theirs], within=2).unmatched == (1, 2)
    assert match_tiles([ours, ours.copy()], within=2).rows == (None, None)


def test_folders_are_named_by_their_encoders(tmp_path: Path) -> None:
    assert feature_folders(Path("uni=a,b/c, conch v1=d")) == {"uni": Path("a,b/c"), "conch v1": Path("d")}
    (tmp_path / "x=y").mkdir()
    assert feature_folders(tmp_path / "x=y") == {}
    assert feature_folders(Path("features")) == {}
    assert features_text({"uni": Path("a"), "conch": "b"}) == "uni=a,conch=b"
    with pytest.raises(ConfigError, match="named twice"):
        feature_folders(Path("uni=a,uni=b"))
    with pytest.raises(ConfigError, match=r"data.features=\[a,b\], expected one folder, or several with the name"):
        joined_text(["a", "b"])
