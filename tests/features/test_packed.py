"""Reading packed files: their content, and which files are refused."""

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mil.errors import FeatureError
from mil.features.encoders import Encoder
from mil.features.packed import Packed
from mil.features.packing import pack
from mil.features.store import FeatureStore
from tests.features.conftest import random_features, write_multiplex, write_mussel, write_trident
from tests.features.mutation import mutated

TILES = {"a": 5, "b": 0, "c": 9, "d": 1}
Change = Callable[[h5py.File], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return four slides of float16: three of TRIDENT, one of them empty, and one of STAMP without coordinates."""
    folder = tmp_path_factory.mktemp("slides")
    for slide in ("a", "b", "c"):
        write_trident(folder / f"{slide}.h5", random_features(TILES[slide]), encoder="simulated")
    write_multiplex(folder / "d.h5", random_features(TILES["d"]))
    return folder


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    out = folder.parent / f"{folder.name}.h5"
    pack(FeatureStore(folder), out)
    return out


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a packed file of two bfloat16 slides."""
    folder = tmp_path_factory.mktemp("halves")
    for slide, tiles in (("a", 6), ("b", 3)):
        rows = torch.from_numpy(random_features(tiles, dtype="float32")).bfloat16()
        write_mussel(folder / f"{slide}.h5", rows.view(torch.int16).numpy().view("V2"), np.ones((tiles, 2), int))
    pack(FeatureStore(folder), folder.parent / "halves.h5")
    return folder.parent / "halves.h5"


def modified_copy(file: Path, copy: Path, change: Change) -> Path:
    copy.write_bytes(file.read_bytes())
    with h5py.File(copy, "r+") as content:
        change(content)
    return copy


def refusal(path: Path) -> str:
    """Return the one-line message with which a file is refused before a tile is read."""
    with pytest.raises(FeatureError) as raised:
        FeatureStore(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_packed_file_reads_like_its_source_folder(folder: Path, file: Path) -> None:
    loose, packed = FeatureStore(folder), FeatureStore(file)
    assert packed.slides == loose.slides == list(TILES)
    assert packed.headers(packed.slides) == loose.headers(loose.slides)
    for slide in ("a", "c", "d"):
        plain, read = loose.read(slide), packed.read(slide)
        assert torch.equal(plain.features, read.features)
        assert plain.features.dtype == read.features.dtype == torch.float16
        assert (plain.coords is None) == (read.coords is None) == (slide == "d")
        assert plain.coords is None or (read.coords is not None and torch.equal(plain.coords, read.coords))
    assert loose.resolve(loose.slides).require() == packed.resolve(packed.slides).require() == Encoder("simulated", 8)
    assert (loose.geometry, loose.verified) == (packed.geometry, packed.verified)


def test_empty_slide_gives_the_same_error_packed_or_not(folder: Path, file: Path) -> None:
    for where in (folder, file):
        with pytest.raises(FeatureError, match="has zero tiles, expected at least one"):
            FeatureStore(where).read("b")
    assert Packed(file).read("b").features.shape == (0, 8)


def test_missing_slide_error_names_it(file: Path) -> None:
    with pytest.raises(FeatureError, match="slide 'e' has no features"):
        FeatureStore(file).read("e")


def test_bfloat16_is_read_bit_for_bit(halves: Path) -> None:
    for slide, tiles in (("a", 6), ("b", 3)):
        rows = torch.from_numpy(random_features(tiles, dtype="float32")).bfloat16()
        assert torch.equal(Packed(halves).read(slide).features.view(torch.int16), rows.view(torch.int16))


def test_slide_digest_is_sha256_of_its_stored_rows(file: Path) -> None:
    with h5py.File(file) as content:
        features, coords, offsets = content["features"][()], content["coords"][()], content["offsets"][()]
    for slide, start, end in zip(TILES, offsets[:-1], offsets[1:], strict=True):
        places = b"" if slide == "d" else coords[start:end].tobytes()
        assert Packed(file).sha256(slide) == hashlib.sha256(features[start:end].tobytes() + places).hexdigest()
        Packed(file).verify(slide)
    assert (coords[offsets[3] :] == -1).all()


def bytes_read() -> int:
    """Return the number of bytes that this process has read from files so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="Linux counts the bytes that a process reads")
def test_opening_a_packed_file_reads_no_tiles(tmp_path: Path) -> None:
    write_trident(tmp_path / "slides" / "a.h5", random_features(2000, 1024))
    pack(FeatureStore(tmp_path / "slides"), tmp_path / "packed.h5")
    start = bytes_read()
    store = FeatureStore(tmp_path / "packed.h5")
    assert store.header("a").tiles == 2000
    opened = bytes_read()
    assert 0 < opened - start < 100_000
    store.read("a")
    assert bytes_read() - opened > 2 * 2000 * 1024


def test_packed_store_can_be_pickled(file: Path) -> None:
    store = FeatureStore(file)
    copy = pickle.loads(pickle.dumps(store))
    assert torch.equal(copy.read("a").features, store.read("a").features)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_flipped_bit_is_detected_in_its_slide_only(
    file: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    with h5py.File(file) as content:
        name = data.draw(st.sampled_from(["features", "coords"]))
        stored, offsets = content[name], content["offsets"][()]
        row = data.draw(st.integers(0, int(offsets[3 if name == "coords" else 4]) - 1))  # "d" has no coordinates
        width = stored.nbytes // len(stored)
        place = stored.id.get_offset() + row * width + data.draw(st.integers(0, width - 1))
    bits = bytearray(file.read_bytes())
    bits[place] ^= 1 << data.draw(st.integers(0, 7))
    copy = tmp_path_factory.mktemp("flipped") / "a.h5"
    copy.write_bytes(bits)
    owner = list(TILES)[int(np.searchsorted(offsets, row, side="right")) - 1]
    for slide in TILES:
        if slide != owner:
            Packed(copy).verify(slide)
    with pytest.raises(FeatureError, match=f"tiles of slide '{owner}' differ from their digest"):
        Packed(copy).verify(owner)


def test_packed_file_changed_during_use_is_refused(file: Path, tmp_path: Path) -> None:
    copy = modified_copy(file, tmp_path / "a.h5", lambda content: None)
    store = FeatureStore(copy)
    store.read("a")
    content = copy.read_bytes()
    copy.write_bytes(content[:-8] + bytes(8) * 2)
    with pytest.raises(FeatureError, match="has changed while it was in use"):
        store.read("a")
    copy.unlink()
    with pytest.raises(FeatureError, match=f"{copy}: .*No such file"):
        store.read("a")


def test_a_packed_file_that_was_replaced_with_its_size_and_time_is_compared_again(file: Path, tmp_path: Path) -> None:
    copy = modified_copy(file, tmp_path / "a.h5", lambda content: None)
    packed, status = Packed(copy), copy.stat()
    packed.read("a")
    with h5py.File(copy, "r+") as content:
        content["features"][0, 0] += 1
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(FeatureError, match="slide 'a' differ from their digest"):
        packed.read("a")


def test_file_that_is_not_packed_is_refused(folder: Path, tmp_path: Path) -> None:
    assert "no attribute 'mil_packed'" in refusal(folder / "a.h5")
    (tmp_path / "a.h5").write_text("slide,feature\n")
    assert "cannot be read as HDF5" in refusal(tmp_path / "a.h5")
    (tmp_path / "b.h5").touch()
    refusal(tmp_path / "b.h5")


def test_newer_file_version_is_refused(file: Path, tmp_path: Path) -> None:
    def newer(content: h5py.File) -> None:
        content.attrs["mil_packed"] = 2

    message = refusal(modified_copy(file, tmp_path / "a.h5", newer))
    assert "packed as version 2, expected 1: a newer mil reads it" in message


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused(file: Path, tmp_path: Path, share: float) -> None:
    content = file.read_bytes()
    (tmp_path / "a.h5").write_bytes(content[: int(share * len(content))])
    refusal(tmp_path / "a.h5")


def replaced(name: str, values: object) -> Change:
    def change(content: h5py.File) -> None:
        del content[name]
        if values is not None:
            content[name] = values

    return change


def chunked(content: h5py.File) -> None:
    rows = content["features"][()]
    del content["features"]
    content.create_dataset("features", data=rows, chunks=(1, rows.shape[1]))


def unallocated(content: h5py.File) -> None:
    """Declare tiles without storing any."""
    del content["features"]
    content.create_dataset("features", (15, 8), "f2")


BROKEN = [
    (replaced("features", None), "no dataset 'features'"),
    (replaced("headers", None), "no dataset 'headers'"),
    (replaced("features", np.ones((14, 8), "f2")), "offsets end at 15 of 14 tiles"),
    (replaced("features", np.ones((15, 8), "f8")), "does not lie end to end"),
    (replaced("features", np.ones((15, 8), ">f2")), "does not lie end to end"),
    (replaced("features", np.ones((15, 8), "f4")), "do not fit features (15, 8) of float32"),
    (replaced("features", np.ones((15, 7), "f2")), "do not fit features (15, 7)"),
    (replaced("coords", np.ones((15, 3), "i8")), "do not fit features"),
    (replaced("coords", np.ones(15, "i8")), "do not fit features"),
    (replaced("coords", np.ones((15, 2), "f8")), "does not lie end to end"),
    (replaced("offsets", np.array([0, 5, 5, 14])), "do not fit 4 slides"),
    (replaced("offsets", np.array([0, 5, 5, 14, 16])), "differ from the slides' own counts"),
    (replaced("offsets", np.array([0, 14, 5, 5, 15])), "differ from the slides' own counts"),
    (replaced("offsets", np.array([0.0, 5, 5, 14, 15])), "'offsets' is"),
    (replaced("slides", np.array([b"a", b"b", b"c", b"a"])), "do not fit 4 slides"),
    (replaced("slides", np.array([b"a", b"b", b"c"])), "tells of 4 slides, expected 3"),
    (replaced("slides", np.arange(4)), "'slides' is"),
    (replaced("sha256", np.zeros((4, 31), "u1")), "do not fit 4 slides"),
    (replaced("headers", np.frombuffer(b"[{", "u1")), "'headers' cannot be read"),
    (replaced("headers", np.frombuffer(b'[{"tiles": "many"}]', "u1")), "'headers' cannot be read"),
    (chunked, "does not lie end to end"),
    (unallocated, "does not lie end to end"),
]


@pytest.mark.parametrize(("change", "reason"), BROKEN)
def test_inconsistent_datasets_are_refused(file: Path, tmp_path: Path, change: Change, reason: str) -> None:
    assert reason in refusal(modified_copy(file, tmp_path / "a.h5", change))


def test_negative_tile_counts_are_refused(file: Path, tmp_path: Path) -> None:
    def change(content: h5py.File) -> None:
        headers = (
            content["headers"][()]
            .tobytes()
            .replace(b'"tiles": 0', b'"tiles": -4')
            .replace(b'"tiles": 9', b'"tiles": 13')
        )
        replaced("headers", np.frombuffer(headers, "u1"))(content)
        replaced("offsets", np.array([0, 5, 1, 14, 15]))(content)

    assert "slides' own counts" in refusal(modified_copy(file, tmp_path / "a.h5", change))


def test_external_links_are_refused(file: Path, tmp_path: Path) -> None:
    def change(content: h5py.File) -> None:
        del content["features"]
        content["features"] = h5py.ExternalLink(str(file), "/features")

    assert "ExternalLink" in refusal(modified_copy(file, tmp_path / "a.h5", change))


@pytest.fixture(scope="module")
def originals(file: Path, halves: Path) -> list[bytes]:
    return [file.read_bytes(), halves.read_bytes()]


def error_reading(path: Path) -> str:
    """Return the message with which reading every slide is refused, or an empty string if all are read."""
    try:
        packed = Packed(path)
        for slide in packed.slides:
            content = packed.read(slide)
            assert content.features.shape == (content.header.tiles, content.header.width)
            packed.verify(slide)
    except FeatureError as error:
        return str(error)
    return ""


def read_or_refused(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    message = error_reading(path)
    assert not message or str(path) in message
    assert "\n" not in message


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_file_is_read_or_refused_in_one_line(
    originals: list[bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    read_or_refused(data.draw(mutated(originals)), tmp_path_factory.getbasetemp() / "broken.h5")


@pytest.mark.slow
@settings(max_examples=4000, deadline=None)
@given(data=st.data())
def test_thousands_of_damaged_files_are_read_or_refused(
    originals: list[bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    read_or_refused(data.draw(mutated(originals)), tmp_path_factory.getbasetemp() / "broken.h5")
