import logging
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mil.errors import FeatureError
from mil.features import formats
from mil.features.encoders import Encoder
from mil.features.formats import Reading
from mil.features.geometry import Geometry
from mil.features.packing import pack
from mil.features.store import FeatureStore

Write = Callable[..., Path]
UNI = Encoder("uni", 8, aliases=("uni_v1",))
VIRCHOW2 = Encoder("virchow2", 16)


def random_features(
    tiles: int = 5, width: int = 8, dtype: str = "f2"
) -> np.ndarray[tuple[int, int], np.dtype[np.generic]]:
    return np.random.default_rng(tiles).standard_normal((tiles, width)).astype(dtype)


def refusal(folder: Path, slide: str = "a", encoder: Encoder | None = None) -> str:
    with pytest.raises(FeatureError) as raised:
        FeatureStore(folder, encoder).read(slide)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# Finding slides in a folder


def test_slides_in_nested_folders_are_found_with_dotted_names(tmp_path: Path, trident: Write) -> None:
    names = ["z", "TCGA-A1.90E71B08-E1D9", "deep/er/b", "1E5", "001"]
    paths = {name.rpartition("/")[2]: trident(tmp_path / f"{name}.h5") for name in names}
    store = FeatureStore(tmp_path)
    assert store.slides == sorted(paths)
    assert len(store) == 5
    assert {slide: store.path(slide) for slide in store.slides} == paths
    assert "TCGA-A1.90E71B08-E1D9" in store
    assert "TCGA-A1" not in store


def test_only_features_of_a_trident_job_folder_are_slides(tmp_path: Path, trident: Write, patches: Write) -> None:
    job = tmp_path / "20x_256px_0px_overlap"
    expected = trident(job / "features_uni_v1" / "a.h5")
    patches(job / "patches" / "a_patches.h5")
    trident(job / "slide_features_titan" / "a.h5")
    trident(job / ".hidden" / "a.h5")
    (job / "features_uni_v1" / "._a.h5").write_text("resource fork of macOS")
    store = FeatureStore(tmp_path)
    assert store.slides == ["a"]
    assert store.path("a") == expected


def test_clam_patches_next_to_features_are_not_slides(tmp_path: Path, clam: Write, patches: Write) -> None:
    expected = clam(tmp_path / "features" / "h5_files" / "a.h5")
    patches(tmp_path / "patches" / "a.h5")
    assert FeatureStore(tmp_path).path("a") == expected
    assert FeatureStore(tmp_path).header("a").extent == 1024.0


def test_features_in_a_folder_called_patches_are_slides(tmp_path: Path, trident: Write) -> None:
    trident(tmp_path / "patches" / "a.h5")
    assert FeatureStore(tmp_path).slides == FeatureStore(tmp_path / "patches").slides == ["a"]


def test_slide_in_two_folders_error_names_both(tmp_path: Path, trident: Write) -> None:
    first, second = trident(tmp_path / "uni" / "a.h5"), trident(tmp_path / "virchow" / "a.h5")
    with pytest.raises(FeatureError, match="twice") as raised:
        FeatureStore(tmp_path)
    assert str(first) in str(raised.value)
    assert str(second) in str(raised.value)


def test_links_are_followed_and_linked_duplicates_merged(tmp_path: Path, trident: Write) -> None:
    trident(tmp_path / "store" / "a.h5")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "b.h5").symlink_to(tmp_path / "store" / "a.h5")
    (folder / "linked").symlink_to(tmp_path / "store")
    (folder / "again").symlink_to(tmp_path / "store")
    (folder / "round").symlink_to(folder)
    store = FeatureStore(folder)
    assert store.slides == ["a", "b"]
    assert torch.equal(store.read("a").features, store.read("b").features)


def test_folder_without_features_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="no feature files"):
        FeatureStore(tmp_path)
    with pytest.raises(FeatureError, match="is no folder"):
        FeatureStore(tmp_path / "absent")


def test_paths_may_contain_any_characters(tmp_path: Path, trident: Write) -> None:
    path = trident(tmp_path / "Föld er, 'a'=\"b\" [x]{y}" / "Präparat 1=2, 'π' #%.v1.h5")
    store = FeatureStore(path.parent)
    assert store.slides == ["Präparat 1=2, 'π' #%.v1"]
    assert store.read(store.slides[0]).features.shape == (5, 8)


def test_missing_slide_error_names_the_nearest_one(tmp_path: Path, trident: Write) -> None:
    trident(tmp_path / "TCGA-01.h5")
    assert "'TCGA-02' has no features" in refusal(tmp_path, "TCGA-02")
    assert "nearest name is 'TCGA-01'" in refusal(tmp_path, "TCGA-02")


# Invalid files


def test_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.h5").touch()
    assert "cannot be read as HDF5" in refusal(tmp_path)
    with h5py.File(tmp_path / "b.h5", "w"):
        pass
    assert "holds nothing" in refusal(tmp_path, "b")


def test_truncated_file_is_refused(tmp_path: Path, trident: Write) -> None:
    path = trident(tmp_path / "a.h5")
    path.write_bytes(path.read_bytes()[:-200])
    assert "truncated" in refusal(tmp_path)


def test_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_text("slide,feature\n1,2\n")
    assert "signature not found" in refusal(tmp_path)


def test_missing_features_error_lists_the_datasets(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["feats"], file["coordinates"] = random_features(), random_features(5, 2)
    assert "'coordinates', 'feats', expected 'features'" in refusal(tmp_path)


@pytest.mark.parametrize("shape", [(0,), (0, 8)])
def test_zero_tiles_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"], file["coords"] = np.empty(shape, "f4"), np.empty((0, 2), "i8")
    assert "zero tiles" in refusal(tmp_path)


def test_single_tile_is_read(tmp_path: Path, trident: Write) -> None:
    trident(tmp_path / "a.h5", random_features(1))
    assert FeatureStore(tmp_path).read("a").features.shape == (1, 8)


@pytest.mark.parametrize(
    ("shape", "reason"), [((2, 2, 2), "shape"), ((1, 5, 8), "batch axis"), ((2, 5, 8, 1), "shape"), ((5, 0), "one")]
)
def test_features_that_are_not_a_matrix_are_refused(tmp_path: Path, shape: tuple[int, ...], reason: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = np.ones(shape, "f4")
    assert reason in refusal(tmp_path)
    assert str(shape) in refusal(tmp_path)


def test_width_error_names_both_encoders(tmp_path: Path, trident: Write) -> None:
    trident(tmp_path / "a.h5", random_features(), encoder="uni")
    message = refusal(tmp_path, encoder=VIRCHOW2)
    assert message == "features of 'a' are 8 wide (from 'uni'), encoder 'virchow2' has 16"


@pytest.mark.parametrize("dtype", ["f2", "f4"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite_tiles_are_counted_in_the_error(tmp_path: Path, trident: Write, bad: float, dtype: str) -> None:
    features = random_features(70, dtype=dtype)
    features[[3, 60], [0, 7]] = bad
    features[60, 2] = -bad
    trident(tmp_path / "a.h5", features)
    assert "2 of 70 tiles have NaN or infinite values" in refusal(tmp_path)
    assert len(FeatureStore(tmp_path).read("a", check=False).features) == 70


def test_largest_float16_counts_as_finite(tmp_path: Path, trident: Write) -> None:
    trident(tmp_path / "a.h5", np.full((500, 8), 65504, "f2"))
    assert FeatureStore(tmp_path).read("a").features.float().sum() == 500 * 8 * 65504


def test_integers_are_refused_and_float64_gives_a_warning(
    tmp_path: Path, trident: Write, caplog: pytest.LogCaptureFixture
) -> None:
    trident(tmp_path / "a.h5", np.ones((5, 8), "i8"))
    assert "is int64, expected float16, float32 or bfloat16" in refusal(tmp_path)
    trident(tmp_path / "b.h5", random_features(dtype="f8"))
    trident(tmp_path / "c.h5", random_features())
    store = FeatureStore(tmp_path)
    assert store.read("b").features.dtype is torch.float32
    with caplog.at_level(logging.WARNING):
        store.resolve(["b", "c"]).require()
    assert caplog.messages == ["1 of 2 slides hold float64 features, read as float32"]


@pytest.mark.parametrize("coords", [np.ones((4, 2), "i8"), np.ones((5, 3), "i8"), np.ones(5, "i8")])
def test_coordinates_of_another_shape_are_refused(
    tmp_path: Path, trident: Write, coords: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
) -> None:
    trident(tmp_path / "a.h5", random_features(), coords)
    assert f"{coords.shape}, expected (5, 2)" in refusal(tmp_path)


# Reading


def test_no_file_stays_open(tmp_path: Path, trident: Write) -> None:
    for name in "abc":
        trident(tmp_path / f"{name}.h5")
    store = FeatureStore(tmp_path)
    for name in "abc":
        store.header(name)
        store.read(name)
    handles = h5py.h5f.get_obj_ids(types=h5py.h5f.OBJ_FILE)
    assert not [name for name in map(h5py.h5f.get_name, handles) if str(tmp_path).encode() in name]


def test_store_can_be_pickled_with_its_encoder(tmp_path: Path, trident: Write) -> None:
    trident(tmp_path / "a.h5")
    store = FeatureStore(tmp_path, encoders=[UNI])
    store.resolve(["a"]).require()
    copy = pickle.loads(pickle.dumps(store))
    assert copy.encoder == UNI
    assert torch.equal(copy.read("a").features, store.read("a").features)


def test_file_changed_during_use_is_refused(tmp_path: Path, trident: Write) -> None:
    trident(tmp_path / "a.h5")
    store = FeatureStore(tmp_path)
    store.header("a")
    trident(tmp_path / "a.h5", random_features(6))
    with pytest.raises(FeatureError, match="has changed"):
        store.read("a")


def test_deleted_file_error_names_it(tmp_path: Path, trident: Write) -> None:
    path = trident(tmp_path / "x" / "a.h5")
    store = FeatureStore(tmp_path)
    store.read("a")
    shutil.rmtree(path.parent)
    with pytest.raises(FeatureError, match=r"a\.h5 cannot be read"):
        store.read("a")


def test_headers_and_their_errors_are_read_once_and_cached(
    tmp_path: Path, trident: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        trident(tmp_path / f"{name}.h5")
    (tmp_path / "b.h5").write_text("no")
    store, counts = FeatureStore(tmp_path), list[tuple[int, int]]()
    headers = store.headers(["c", "b", "a"], progress=lambda *at: counts.append(at))
    assert list(headers) == ["c", "b", "a"]
    assert counts == [(1, 3), (2, 3), (3, 3)]
    assert isinstance(headers["b"], FeatureError)
    monkeypatch.setattr(formats, "examine", None)
    assert store.headers(["c", "a"]) == {slide: store.header(slide) for slide in "ca"} == {s: headers[s] for s in "ca"}
    with pytest.raises(FeatureError, match="'d' has no features"):
        store.headers(["d"])


def test_reading_options_are_passed_to_the_reader(tmp_path: Path, stamp: Write) -> None:
    stamp(tmp_path / "a.h5", random_features()[None], np.zeros((1, 5, 2)))
    assert "data.batch_axis=true" in refusal(tmp_path)
    store = FeatureStore(tmp_path, reading=Reading(batch_axis=True, slide_mpp=0.25))
    slide = pickle.loads(pickle.dumps(store)).read("a")
    assert slide.features.shape == (5, 8)
    assert slide.coords is not None
    assert slide.header.extent == 1024.0


def test_packed_file_is_a_store_like_its_source_folder(tmp_path: Path, trident: Write) -> None:
    for name, tiles in (("a", 6), ("b", 7)):
        trident(tmp_path / "in" / f"{name}.h5", random_features(tiles), encoder="uni_v1")
    source = FeatureStore(tmp_path / "in", encoders=[UNI])
    pack(source, tmp_path / "all.h5")
    store = FeatureStore(tmp_path / "all.h5", encoders=[UNI])
    assert store.slides == ["a", "b"]
    assert store.path("a") == tmp_path / "all.h5"
    assert store.headers(["b", "a"]) == source.headers(["b", "a"])
    assert (store.resolve(["a"]).require(), store.verified, store.geometry) == (
        UNI,
        True,
        Geometry(0.5, 256.0, True, True),
    )
    for slide in ("a", "b"):
        read, expected = pickle.loads(pickle.dumps(store)).read(slide), source.read(slide)
        assert torch.equal(read.features, expected.features)
        assert read.coords is not None
        assert expected.coords is not None
        assert torch.equal(read.coords, expected.coords)
    with pytest.raises(FeatureError, match="'c' has no features"):
        store.read("c")


def test_unpacked_file_is_not_a_store(tmp_path: Path, trident: Write) -> None:
    with pytest.raises(FeatureError, match="packed"):
        FeatureStore(trident(tmp_path / "a.h5"))


# Slides kept in memory


def test_kept_slides_are_read_once(tmp_path: Path, trident: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    trident(tmp_path / "a.h5", random_features(5))
    trident(tmp_path / "b.h5", random_features(3))
    store, fresh = FeatureStore(tmp_path), FeatureStore(tmp_path)
    assert not store.keeps
    assert store.keep(["a", "b"], 8 * (2 * 8 + 16))
    assert store.keeps
    opened: list[Path] = []
    read = formats.read
    monkeypatch.setattr(formats, "read", lambda path, *rest: (opened.append(path), read(path, *rest))[1])
    slides = [store.read("a"), store.read("b"), store.read("a")]
    assert [path.name for path in opened] == ["a.h5", "b.h5"]
    assert torch.equal(slides[0].features, fresh.read("a").features)
    assert slides[2].features is slides[0].features


@pytest.mark.parametrize(("dtype", "size"), [("f2", 2), ("f4", 4), ("f8", 4)])
def test_nothing_is_kept_if_memory_is_one_byte_short(tmp_path: Path, trident: Write, dtype: str, size: int) -> None:
    trident(tmp_path / "a.h5", random_features(5, dtype=dtype))
    store = FeatureStore(tmp_path)
    needed = 5 * (8 * size + 16)  # 16: two int64 coordinates
    held = store.read("a")
    assert held.coords is not None
    assert held.features.nbytes + held.coords.nbytes == needed
    assert not store.keep(["a"], needed - 1)
    assert not store.keeps
    assert store.read("a").features is not store.read("a").features
    assert store.keep(["a"], needed)


def test_pickled_store_leaves_kept_slides_behind(tmp_path: Path, trident: Write) -> None:
    trident(tmp_path / "a.h5", random_features(2000))
    store = FeatureStore(tmp_path)
    store.keep(["a"], 2**20)
    store.read("a")
    sent = pickle.dumps(store)
    assert len(sent) < 5000
    assert not pickle.loads(sent).keeps  # pickled two lines above
    assert store.keeps


def test_nonfinite_slide_is_never_kept(tmp_path: Path, trident: Write) -> None:
    spoilt = random_features(4)
    spoilt[1, 2] = np.nan
    trident(tmp_path / "a.h5", spoilt)
    store = FeatureStore(tmp_path)
    store.keep(["a"], 2**20)
    assert store.read("a", check=False).features.isnan().any()
    for _ in range(2):
        with pytest.raises(FeatureError, match="1 of 4 tiles have NaN"):
            store.read("a")


def test_other_content_with_the_size_and_time_of_before_is_seen(tmp_path: Path, trident: Write) -> None:
    path = trident(tmp_path / "a.h5", random_features(5))
    store = FeatureStore(tmp_path)
    store.fingerprints(["a"])
    before = store.read("a").features
    path.chmod(0o600)
    assert torch.equal(store.read("a").features, before), "other rights are no other content"
    status, content = path.stat(), path.read_bytes()
    position = content.index(random_features(5).tobytes())
    for place in ("in place", "by a renamed copy"):
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert torch.equal(store.read("a").features, before)
        changed = tmp_path / "a.h5" if place == "in place" else tmp_path / "copy"
        changed.write_bytes(content[:position] + content[position + 2 : position + 4] + content[position + 2 :])
        os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))
        changed.rename(path)
        with pytest.raises(FeatureError, match="other content, with the size and time of before"):
            store.read("a")
