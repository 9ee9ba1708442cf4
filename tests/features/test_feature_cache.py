"""Copies of cohorts near the computer: made once, read in place of the files, and made anew where these change."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch

from mil.errors import ConfigError, FeatureError, ResourceError
from mil.features import feature_cache, packing
from mil.features.feature_cache import CacheOptions, FeatureCache
from mil.features.formats import Reading
from mil.features.packing import pack
from mil.features.store import FeatureStore
from tests.features.conftest import random_features, write_clam

SLIDES = ["a", "b", "c"]
MIB = 2**20 / 2**30


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return written(tmp_path / "slow storage")


def written(folder: Path, tiles: int = 4) -> Path:
    for number, slide in enumerate(SLIDES, 1):
        write_clam(folder / f"{slide}.h5", random_features(tiles * number, dtype="float32"))
    return folder


def cached(source: Path, tmp_path: Path, **options: object) -> tuple[FeatureStore, FeatureCache]:
    """Return a store of the source and its cache, as a new process has them."""
    store = FeatureStore(source)
    cache = FeatureCache(CacheOptions(tmp_path / "near", **options), store)  # type: ignore[arg-type]  # passed on
    cache.attach()
    return store, cache


def filled(source: Path, tmp_path: Path, **options: object) -> FeatureStore:
    store, cache = cached(source, tmp_path, **options)
    cache.fill(SLIDES)
    return store


def spoil(path: Path) -> None:
    """Replace the content of a file, but neither its size nor its time: whoever reads it notices."""
    state = path.stat()
    path.write_bytes(bytes(state.st_size))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def copies(tmp_path: Path) -> list[str]:
    return sorted(path.name.rpartition("-")[2] for path in (tmp_path / "near").glob("*.h5"))


def test_slides_are_read_from_the_copy_alone(source: Path, tmp_path: Path) -> None:
    plain = FeatureStore(source)
    expected, prints = {slide: plain.read(slide) for slide in SLIDES}, plain.fingerprints(SLIDES)
    store, cache = cached(source, tmp_path)
    needs = cache.needs(SLIDES)
    assert (needs.slides, needs.missing, needs.bytes) == (3, 3, (4 + 8 + 12) * (8 * 4 + 16))
    cache.fill(SLIDES)
    for slide in SLIDES:
        spoil(source / f"{slide}.h5")
    again, new = cached(source, tmp_path)
    assert new.needs(SLIDES).missing == 0
    for each in (store, again):
        assert each.fingerprints(SLIDES) == prints, "a run that goes on compares with the slides' own files"
        for slide, content in expected.items():
            read = each.read(slide)
            assert torch.equal(read.features, content.features)
            assert content.coords is not None
            assert torch.equal(each.coords(slide), content.coords)  # type: ignore[arg-type]  # not None
            assert torch.equal(each.pieces(slide).drawn(np.array([0, 3])), content.features[[0, 3]])
    assert copies(tmp_path) == ["1.h5"]
    assert again.rounding is None
    with pytest.raises(FeatureError):
        FeatureStore(source).read("a")


def test_only_a_changed_slide_is_read_again(source: Path, tmp_path: Path) -> None:
    filled(source, tmp_path)
    write_clam(source / "b.h5", random_features(9, dtype="float32"))
    spoil(source / "a.h5")
    store, cache = cached(source, tmp_path)
    assert (cache.needs(SLIDES).missing, store.header("b").tiles, store.header("a").tiles) == (1, 9, 4)
    cache.fill(SLIDES)
    assert copies(tmp_path) == ["2.h5"], "the copy before is removed"
    assert torch.equal(store.read("b").features, torch.from_numpy(random_features(9, dtype="float32")))
    assert len(store.read("a").features) == 4


def test_a_file_with_another_time_and_the_same_content_is_not_copied_again(source: Path, tmp_path: Path) -> None:
    filled(source, tmp_path)
    os.utime(source / "a.h5")
    store, cache = cached(source, tmp_path)
    assert cache.needs(SLIDES).missing == 0
    assert store.fingerprints(["a"])["a"].modified == (source / "a.h5").stat().st_mtime_ns
    spoil(source / "a.h5")
    assert cached(source, tmp_path)[1].needs(SLIDES).missing == 0, "the new time was noted"
    write_clam(source / "a.h5", 1 + random_features(4, dtype="float32").astype("float32"))
    assert cached(source, tmp_path)[1].needs(SLIDES).missing == 1


def test_cohorts_of_one_folder_share_a_copy(source: Path, tmp_path: Path) -> None:
    for wanted in (["a"], ["b", "c"]):
        cached(source, tmp_path)[1].fill(wanted)
    assert cached(source, tmp_path)[1].needs(SLIDES).missing == 0
    other = FeatureStore(source, reading=Reading("clam"))
    FeatureCache(CacheOptions(tmp_path / "near"), other).attach()
    assert not other.is_copied("a"), "read in another way"


def test_two_processes_that_fill_one_cache_copy_once(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mil")
    begun, goes_on, calls = threading.Event(), threading.Event(), list[Path]()

    def slow(store: FeatureStore, out: Path, *rest: object, **options: object) -> packing.Packing:
        calls.append(out)
        begun.set()
        assert goes_on.wait(20)
        return pack(store, out, *rest, **options)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(feature_cache, "pack", slow)
    stores = [cached(source, tmp_path) for _ in range(2)]
    threads = [threading.Thread(target=cache.fill, args=(SLIDES,)) for _, cache in stores]
    threads[0].start()
    assert begun.wait(20)
    looking, _ = cached(source, tmp_path)
    assert not looking.is_copied("a"), "who only looks does not wait"
    threads[1].start()
    while "waiting: another process copies to" not in caplog.text:
        pass
    goes_on.set()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert all(store.is_copied(slide) for store, _ in stores for slide in SLIDES)


def test_copies_that_were_not_used_for_longest_go_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mil")
    sources = [written(tmp_path / name, tiles=1000) for name in ("first", "second", "third", "fourth")]

    def copied() -> list[Path]:
        return sorted((tmp_path / "near").glob("*.h5"))

    gib = 0.75 * MIB  # each copy takes 0.27 MiB
    filled(sources[0], tmp_path, gib=gib)
    in_use = filled(sources[1], tmp_path, gib=gib)
    for name, when in (("first", 2000), ("second", 1000)):
        [record] = (tmp_path / "near").glob(f"{name}-*.json")
        os.utime(record, (when, when))
    cached(sources[0], tmp_path, gib=gib)  # is used again, after the second
    filled(sources[2], tmp_path, gib=gib)
    assert [path.name.partition("-")[0] for path in copied()] == ["second", "third"], "the second is in use"
    assert caplog.text.count("removed the copy") == 1
    assert in_use.read("a").features.shape == (1000, 8)
    with pytest.raises(ConfigError, match=r"data.cache_gib=\S+: the copy of 3 slides needs .* expected room for it"):
        filled(sources[3], tmp_path, gib=0.1 * MIB)
    assert len(copied()) == 2, "nothing is removed for a copy that cannot be"
    del in_use
    filled(sources[3], tmp_path, gib=gib)
    assert [path.name.partition("-")[0] for path in copied()] == ["fourth", "third"]


def test_a_disk_without_room_is_one_line_and_nothing_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(
        ResourceError, match=r"needs .* MiB, and .* are free on its disk: choose another folder"
    ) as full:
        filled(source, tmp_path)
    assert "\n" not in str(full.value)
    assert [path.suffix for path in (tmp_path / "near").iterdir()] == [".lock"]


def test_a_disk_that_becomes_full_is_one_line_and_the_copy_goes_on_later(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mil")

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packing, "_SYNC_BYTES", 1)
    with monkeypatch.context() as patch:
        patch.setattr(packing._Job, "_write_slide", failing_after(2, full))
        with pytest.raises(OSError, match=r"No space left on the disk, or in the quota, of the folder .*near"):
            filled(source, tmp_path)
    filled(source, tmp_path)
    assert "copied 3 slides, each read back and compared, 2 of them before the copying was interrupted" in caplog.text


def failing_after(slides: int, fail: Callable[[], None]) -> Callable[..., int]:
    write, count = packing._Job._write_slide, 0

    def written_or_failed(*args: object) -> int:
        nonlocal count
        count += 1
        if count > slides:
            fail()
        return write(*args)  # type: ignore[arg-type]  # passed on

    return written_or_failed


def test_the_work_of_a_stopped_process_on_files_that_changed_is_begun_anew(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(packing._Job, "_write_slide", failing_after(2, stop))
        with pytest.raises(KeyboardInterrupt):
            filled(source, tmp_path)
    write_clam(source / "a.h5", random_features(7, dtype="float32"))
    assert len(filled(source, tmp_path).read("a").features) == 7


def test_rounding_is_known_and_stays_so(source: Path, tmp_path: Path) -> None:
    store = filled(source, tmp_path, dtype="float16")
    exact = FeatureStore(source).read("c").features
    largest = float((exact.half().float() - exact).abs().max())
    assert store.read("c").features.dtype == torch.float16
    assert store.rounding is not None
    assert (store.rounding[0], store.rounding[1] >= largest > 0) == ("float16", True)
    write_clam(source / "a.h5", np.ones((2, 8), "float32"))
    assert filled(source, tmp_path, dtype="float16").rounding == store.rounding
    assert filled(source, tmp_path).rounding is None, "the copy of another type is another copy"
    write_clam(source / "a.h5", np.full((2, 8), 1e6, "float32"))
    with pytest.raises(FeatureError, match="beyond float16"):
        filled(source, tmp_path, dtype="float16")


def test_a_damaged_copy_is_noticed_and_made_again(source: Path, tmp_path: Path) -> None:
    filled(source, tmp_path)
    [copy] = (tmp_path / "near").glob("*.h5")
    with h5py.File(copy) as file:
        place = file["features"].id.get_offset()
    with copy.open("r+b") as raw:
        raw.seek(place)
        raw.write(b"\x01\x02")
    store, _ = cached(source, tmp_path)
    with pytest.raises(FeatureError, match="remove this file: the next run copies the cohort again"):
        store.read("a")
    copy.unlink()
    assert len(filled(source, tmp_path).read("a").features) == 4
    for record in (tmp_path / "near").glob("*.json"):
        record.write_text("{")
    assert cached(source, tmp_path)[1].needs(SLIDES).missing == 3


def test_slides_of_another_resolution_are_copied_again(source: Path, tmp_path: Path) -> None:
    filled(source, tmp_path)
    store, cache = cached(source, tmp_path)
    store.set_resolutions({"b": 0.25})
    assert [store.is_copied(slide) for slide in SLIDES] == [True, False, True]
    cache.fill(SLIDES)
    store, _ = cached(source, tmp_path)
    store.set_resolutions({"b": 0.25})
    assert all(map(store.is_copied, SLIDES))


def test_a_packed_file_is_copied_too(source: Path, tmp_path: Path) -> None:
    pack(FeatureStore(source), tmp_path / "cohort.h5")
    filled(tmp_path / "cohort.h5", tmp_path)
    store, cache = cached(tmp_path / "cohort.h5", tmp_path)
    assert cache.needs(SLIDES).missing == 0
    (tmp_path / "cohort.h5").unlink()
    write_clam(source / "b.h5", random_features(5, dtype="float32"))
    pack(FeatureStore(source), tmp_path / "cohort.h5")
    assert cached(tmp_path / "cohort.h5", tmp_path)[1].needs(SLIDES).missing == 1
    assert len(store.read("b").features) == 8, "who reads the copy goes on"
