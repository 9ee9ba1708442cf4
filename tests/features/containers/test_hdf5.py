"""HDF5 files: malicious ones and randomly damaged ones."""

import fcntl
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mil.errors import FeatureError
from mil.features.containers import hdf5
from mil.features.containers.matrices import RefusalError
from mil.features.formats import DETECTED, Header, Reading
from mil.features.store import FeatureStore
from tests.features.conftest import (
    grid,
    write_clam,
    write_multiplex,
    write_mussel,
    write_patches,
    write_stamp,
    write_trident,
)
from tests.features.mutation import mutated

Write = Callable[..., Path]
BATCH = 10  # damaged files that a process reads in sequence
SECRET = b"0123456789abcdef" * 64


def external_storage(path: Path, secret: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (16, 16), "f4", external=[(str(secret), 0, 1024)])


def external_link(path: Path, secret: Path) -> None:
    with h5py.File(secret.with_suffix(".hdf"), "w") as file:
        file["features"] = np.ones((4, 4), "f4")
    with h5py.File(path, "w") as file:
        file["features"] = h5py.ExternalLink(str(secret.with_suffix(".hdf")), "/features")


def soft_link(path: Path, secret: Path) -> None:
    external_link(path, secret)
    with h5py.File(path, "r+") as file:
        file.move("features", "elsewhere")
        file["features"] = h5py.SoftLink("/elsewhere")


def virtual(path: Path, secret: Path) -> None:
    external_link(path, secret)
    layout = h5py.VirtualLayout((4, 4), "f4")
    layout[:] = h5py.VirtualSource(str(secret.with_suffix(".hdf")), "features", (4, 4))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("features", layout)


def bomb(path: Path, secret: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (10**9, 1024), "f2", chunks=(64, 1024))


def large_bomb(path: Path, secret: Path) -> None:
    """Declare a dataset that the size of the file would allow, but store nothing of it."""
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (10**5, 1024), "f2", chunks=(64, 1024))
        file["ballast"] = np.zeros(10**6, "u1")


def chunk_bomb(path: Path, secret: Path) -> None:
    with h5py.File(path, "w") as file:
        options = {"chunks": (10**6, 1024), "maxshape": (None, 1024), "compression": "gzip"}
        file.create_dataset("features", (4, 1024), "f2", **options)


def group(path: Path, secret: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("features")["features"] = np.ones((4, 4), "f4")


def strange_filter(path: Path, secret: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=np.ones((4, 4), "f4"), chunks=(4, 4), scaleoffset=3)


def coordinates_elsewhere(path: Path, secret: Path) -> None:
    with h5py.File(path, "w") as file:
        file["features"] = np.ones((16, 16), "f4")
        file.create_dataset("coords", (16, 2), "i8", external=[(str(secret), 0, 256)])


ATTACKS = [
    (external_storage, "stored in another file"),
    (external_link, "ExternalLink"),
    (soft_link, "SoftLink"),
    (virtual, "virtual"),
    (bomb, "declares"),
    (large_bomb, "declares"),
    (chunk_bomb, "declares"),
    (group, "Group"),
    (strange_filter, "filter"),
    (coordinates_elsewhere, "stored in another file"),
]


@pytest.mark.parametrize(("attack", "reason"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
def test_malicious_file_is_refused(tmp_path: Path, attack: Callable[[Path, Path], None], reason: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    attack(tmp_path / "a.h5", secret)
    with pytest.raises(FeatureError, match=reason) as raised:
        FeatureStore(tmp_path).read("a")
    assert "\n" not in str(raised.value)
    assert str(tmp_path / "a.h5") in str(raised.value)


def test_dataset_name_with_a_slash_is_not_followed(tmp_path: Path) -> None:
    group(tmp_path / "a.h5", tmp_path)
    with hdf5.opened(tmp_path / "a.h5") as file:
        assert "features/features" in file
        assert not hdf5.has(file, "features/features")
        with pytest.raises(RefusalError, match="no dataset 'features/features'"):
            hdf5.dataset(file, "features/features")


def test_large_attribute_is_not_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        stored = file.create_dataset("features", data=np.ones((4, 4), "f4"))
        stored.attrs["encoder"] = np.zeros(100_000, "u1")
    with pytest.raises(FeatureError, match="attribute 'encoder'"):
        FeatureStore(tmp_path).read("a")


@pytest.mark.parametrize("value", ["uni", -5, float("nan"), np.empty(0)])
def test_invalid_attributes_are_ignored(tmp_path: Path, trident: Write, value: object) -> None:
    path = trident(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file["features"].attrs["encoder"] = 5
        file["coords"].attrs["patch_size_level0"] = value
    header = FeatureStore(tmp_path).header("a")
    assert header.encoder is None
    assert header.extent is None


@pytest.mark.parametrize(
    ("place", "change", "reason"),
    [
        (25, 0x01, r"reading it takes longer than 1 s"),
        (25, 0xA4, r"."),
        (30, 0xA4, r"."),
        (31, 0xA4, r"."),
    ],
)
def test_damaged_string_heap_is_refused_without_hanging(
    tmp_path: Path, trident: Write, place: int, change: int, reason: str
) -> None:
    path = trident(tmp_path / "a.h5")
    content = bytearray(path.read_bytes())
    content[content.index(b"GCOL") + place] ^= change  # within the first object's size
    path.write_bytes(content)
    trident(tmp_path / "b.h5")
    store = FeatureStore(tmp_path, header_seconds=1)
    with pytest.raises(FeatureError, match=rf"a\.h5 cannot be read.*: {reason}") as raised:
        store.read("a")
    assert "\n" not in str(raised.value)
    assert store.read("b").header.encoder == "uni"


def test_many_and_long_strings_are_read(tmp_path: Path, trident: Write) -> None:
    path = trident(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        for number in range(200):
            file["coords"].attrs[f"note {number}"] = "x" * (number % 50) * 20
        file["features"].attrs["encoder"] = "y" * 500
    assert FeatureStore(tmp_path).header("a").encoder == "y" * 500


def test_reading_needs_no_file_lock(tmp_path: Path, trident: Write) -> None:
    with trident(tmp_path / "a.h5").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert FeatureStore(tmp_path).read("a").features.shape == (5, 8)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Return a file of every layout, and one with a batch axis."""
    folder = tmp_path_factory.mktemp("originals")
    files = [write_trident(folder / "t.h5"), write_clam(folder / "c.h5"), write_mussel(folder / "m.h5")]
    files += [write_stamp(folder / f"{version}.h5", version=version) for version in ("1", "2.0", "2.1")]
    files += [write_multiplex(folder / "x.h5"), write_clam(folder / "b.h5", np.ones((1, 5, 8), "f4"), grid(5)[None])]
    return [file.read_bytes() for file in files]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broken")


def assert_read_or_refused_in_one_line(folder: Path, reading: Reading = DETECTED) -> None:
    store = FeatureStore(folder, reading=reading, header_seconds=1)
    for slide, header in store.headers(store.slides, workers=1).items():
        try:
            tiles = store.read(slide) if isinstance(header, Header) else None
        except FeatureError as error:
            header = error
        if isinstance(header, FeatureError):
            assert "\n" not in str(header)
        else:
            assert tiles is not None
            assert tiles.features.shape == (header.tiles, header.width)


def damage_and_read(originals: list[bytes], folder: Path, data: st.DataObject) -> None:
    for number in range(BATCH):
        (folder / f"{number}.h5").write_bytes(data.draw(mutated(originals)))
    for reading in (DETECTED, Reading(batch_axis=True, slide_mpp=0.25)):
        assert_read_or_refused_in_one_line(folder, reading)


@pytest.fixture(scope="module")
def little_memory() -> Iterator[None]:
    """Limit memory to one GiB above its use: HDF5 reserves up to 4 GiB for the claimed length of a damaged string."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory use from /proc")


@linux
@pytest.mark.usefixtures("little_memory")
@settings(max_examples=150 // BATCH, deadline=None)
@given(data=st.data())
def test_damaged_file_is_read_or_refused_in_one_line(originals: list[bytes], folder: Path, data: st.DataObject) -> None:
    damage_and_read(originals, folder, data)


@linux
@pytest.mark.slow
@pytest.mark.usefixtures("little_memory")
@settings(max_examples=4000 // BATCH, deadline=None)
@given(data=st.data())
def test_thousands_of_damaged_files_are_read_or_refused(
    originals: list[bytes], folder: Path, data: st.DataObject
) -> None:
    damage_and_read(originals, folder, data)


@linux
@pytest.mark.usefixtures("little_memory")
@settings(max_examples=50 // BATCH, deadline=None)
@given(data=st.data())
def test_damaged_patches_file_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("clam")
    for number in range(BATCH):
        patches = write_patches(folder / "patches" / f"{number}.h5")
        patches.write_bytes(data.draw(mutated([patches.read_bytes()])))
        write_clam(folder / "h5_files" / f"{number}.h5")
    assert_read_or_refused_in_one_line(folder / "h5_files")
