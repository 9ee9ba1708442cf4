"""Storage that fails for a while is read again; a fault of the file itself is not."""

import contextlib
import errno
import gzip
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import openpyxl
import pytest

from mil import storage
from mil.cli.main import _leave
from mil.errors import CohortError, ConfigError, FeatureError, MilError, PredictionsError, ReportError, SplitError
from mil.explain.scans import Scans
from mil.features import formats
from mil.features.containers import hdf5
from mil.features.encoders import Encoder
from mil.features.formats import Slide
from mil.features.packed import Packed
from mil.features.packing import pack
from mil.features.slide_files import listing
from mil.features.store import FeatureStore
from mil.files import read_json, sha256
from mil.report.prediction_files import read as read_predictions
from mil.report.report_files import read_report
from mil.study import split_file_findings
from mil.tables import read_table
from mil.yaml_files import read_yaml


class Disk:
    """Fails a number of times before it reads."""

    def __init__(self, failures: int, error: OSError) -> None:
        self.failures, self.error, self.calls, self.read = failures, error, 0, formats.read

    def __call__(self, path: Path, *rest: object) -> Slide:
        self.calls += 1
        if self.calls <= self.failures:
            raise FeatureError(f"{path} cannot be read as HDF5") from self.error
        return self.read(path, *rest)  # type: ignore[arg-type]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    with h5py.File(tmp_path / "S.h5", "w") as file:
        file["features"] = np.ones((3, 4), "f2")
    store = FeatureStore(tmp_path, Encoder("any", 4))
    store.header("S")
    return store


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, os.strerror(errno.EIO)),
        OSError(errno.ESTALE, os.strerror(errno.ESTALE)),
        TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)),
        OSError("Can't synchronously read data (file read failed: errno = 5, error message = 'Input/output error')"),
    ],
)
def test_a_passing_failure_is_waited_for(
    error: OSError,
    store: FeatureStore,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = Disk(2, error)
    monkeypatch.setattr(formats, "read", disk)
    assert store.read("S").features.shape == (3, 4)
    assert (disk.calls, waits) == (3, [0.5, 2.0])
    assert all("S.h5" in record.getMessage() for record in caplog.records)
    assert len(caplog.records) == 2


def test_storage_that_stays_away_is_an_error_that_names_the_file(
    store: FeatureStore, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(99, OSError(errno.EIO, os.strerror(errno.EIO)))
    monkeypatch.setattr(formats, "read", disk)
    with pytest.raises(FeatureError, match=r"S\.h5 cannot be read: Input/output error, 4 times in 7\.5 s"):
        store.read("S")
    assert waits == list(storage.WAITS)


def test_a_fault_of_the_file_is_not_repeated(
    store: FeatureStore, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(99, OSError(errno.EACCES, os.strerror(errno.EACCES)))
    monkeypatch.setattr(formats, "read", disk)
    with pytest.raises(FeatureError, match="cannot be read as HDF5"):
        store.read("S")
    assert (disk.calls, waits) == (1, [])


Read = Callable[[Path], object]
FILES: dict[str, tuple[Read, type[MilError]]] = {
    "cohort.csv": (read_table, CohortError),
    "cohort.csv.gz": (read_table, CohortError),
    "cohort.xlsx": (read_table, CohortError),
    "labels.yaml": (read_yaml, ConfigError),
    "predictions.csv": (read_predictions, PredictionsError),
    "report.json": (read_report, ReportError),
    "options.json": (read_json, ConfigError),
    "weights.safetensors": (sha256, ConfigError),
    "packed.h5": (lambda path: Packed(path).slides, FeatureError),
}
"""How each kind of file is read, and the error where that fails."""
FOLDERS: dict[str, tuple[Read, type[MilError]]] = {
    "features": (listing, FeatureError),
    "scans": (Scans, ConfigError),
    "splits": (split_file_findings.read, SplitError),
}
"""How each kind of folder is listed."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a valid file or folder of each kind."""
    root = tmp_path_factory.mktemp("places")
    for name in ("features", "scans", "splits"):
        (root / name).mkdir()
    with h5py.File(root / "features" / "S.h5", "w") as file:
        file["features"] = np.ones((3, 4), "f2")
    pack(FeatureStore(root / "features", Encoder("any", 4)), root / "packed.h5", ["S"])
    book = openpyxl.Workbook()
    for row in (["patient", "label"], ["a", "x"]):
        book.active.append(row)  # type: ignore[union-attr]
    book.save(root / "cohort.xlsx")
    (root / "cohort.csv.gz").write_bytes(gzip.compress(b"patient,label\na,x\n"))
    for name in ("cohort.csv", "predictions.csv"):
        (root / name).write_text("patient,label\na,x\n")
    (root / "splits" / "splits_0.csv").write_text("train,test\na,b\n")
    (root / "scans" / "S.svs").write_text("")
    stored = next((Path(__file__).parent / "report" / "schema_3").glob("*.json"))
    (root / "report.json").write_bytes(stored.read_bytes())
    for name, text in (("labels.yaml", "a: 1"), ("options.json", "{}"), ("weights.safetensors", "x")):
        (root / name).write_text(text)
    return root


def fail_to_open(path: Path, times: int, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Have the storage fail the first times that a file is opened, and return the list of the attempts."""
    attempts = list[Path]()
    opened, opened_hdf5, unpacked = Path.open, hdf5.File, gzip.open

    def attempt(at: Path) -> None:
        if at == path:
            attempts.append(at)
            if len(attempts) <= times:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(at))

    def opening(self: Path, *rest: Any, **options: Any) -> Any:
        attempt(self)
        return opened(self, *rest, **options)

    def opening_hdf5(source: Path) -> Any:
        attempt(source)
        return opened_hdf5(source)

    def unpacking(source: Path) -> Any:
        attempt(source)
        return unpacked(source)

    monkeypatch.setattr(Path, "open", opening)
    monkeypatch.setattr(hdf5, "File", opening_hdf5)
    monkeypatch.setattr(gzip, "open", unpacking)
    return attempts


def fail_to_list(folder: Path, times: int, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Have the storage fail the first times that a folder is listed, and return the list of the attempts."""
    attempts = list[Path]()
    scandir, listdir = os.scandir, os.listdir

    def attempt(at: Any) -> None:
        if Path(at) == folder:
            attempts.append(Path(at))
            if len(attempts) <= times:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(at))

    def scanning(at: Any) -> Any:
        attempt(at)
        return scandir(at)

    def naming(at: Any) -> Any:
        attempt(at)
        return listdir(at)

    monkeypatch.setattr(os, "scandir", scanning)
    monkeypatch.setattr(os, "listdir", naming)
    return attempts


@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_every_file_and_folder_is_read_again_where_the_storage_fails(
    name: str, places: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read, error = (FILES | FOLDERS)[name]
    read(places / name)
    fail = fail_to_open if name in FILES else fail_to_list
    with monkeypatch.context() as patch:
        fail(places / name, 2, patch)
        read(places / name)
    assert waits == [0.5, 2.0]
    assert all(name in record.getMessage() for record in caplog.records)
    with monkeypatch.context() as patch:
        attempts = fail(places / name, 99, patch)
        with pytest.raises(error, match=rf"{name} cannot be read: .*, 4 times in 7\.5 s"):
            read(places / name)
    assert len(attempts) == 4


def test_a_nested_folder_that_cannot_be_listed_is_not_left_out_in_silence(
    places: Path,
    tmp_path: Path,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("a", "b"):
        shutil.copytree(places / "features", tmp_path / name)
    (tmp_path / "b" / "S.h5").rename(tmp_path / "b" / "T.h5")
    with monkeypatch.context() as patch:
        fail_to_list(tmp_path / "b", 1, patch)
        assert list(listing(tmp_path)) == ["S", "T"]
    assert waits == [0.5]

    def refusing(at: Any) -> Any:
        if Path(at) == tmp_path / "b":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(at))
        return scandir(at)

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", refusing)
    assert list(listing(tmp_path)) == ["S"]
    assert f"{tmp_path}/b: this folder may not be listed" in caplog.text


@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_storage_that_does_not_answer_is_given_up_after_the_time_limit(
    name: str, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in ("weights.safetensors", "packed.h5"):
        pytest.skip("of any size: no time limit for the whole file")
    read, error = (FILES | FOLDERS)[name]
    answered = threading.Event()

    def stalled(*_: Any, **__: Any) -> Any:
        answered.wait(20)
        raise OSError(errno.EIO, "late")

    monkeypatch.setattr(storage, "SECONDS", 0.1)
    for module, function in ((Path, "open"), (gzip, "open"), (os, "scandir"), (os, "listdir")):
        monkeypatch.setattr(module, function, stalled)
    with pytest.raises(error, match=rf"{name} cannot be read: (reading|listing) it takes longer than 0\.1 s"):
        read(places / name)
    answered.set()


@pytest.mark.parametrize("reading", ["read", "pieces", "coords", "verify"])
def test_features_that_do_not_come_are_given_up_after_the_time_limit(
    reading: str, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, functions = threading.Event(), {"pieces": "read_rows", "coords": "read_coords", "verify": "compare"}

    def stalled(*_: Any, **__: Any) -> Any:
        late.wait(20)
        raise OSError(errno.EIO, "late")

    monkeypatch.setattr(storage, "SECONDS", 0.1)
    monkeypatch.setattr(formats, functions.get(reading, reading), stalled)
    with pytest.raises(FeatureError, match=r"S\.h5 cannot be read: the storage has not answered for 0\.1"):
        store.pieces("S").rows()[:1].numpy() if reading == "pieces" else getattr(store, reading)("S")
    assert storage.has_stuck()
    late.set()
    monkeypatch.undo()
    assert len(store.read("S").features) == 3, "the next read is another one's"
    for _ in range(100):
        if not storage.has_stuck():
            break
        time.sleep(0.05)
    assert not storage.has_stuck()


def test_an_answer_that_nobody_waits_for_is_not_that_of_the_next_read() -> None:
    def stopped() -> int:
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(0.2)
        return 1

    def raised(*_: object) -> None:
        raise InterruptedError("by a signal")

    earlier = signal.signal(signal.SIGUSR2, raised)
    try:
        with pytest.raises(InterruptedError):
            storage.answered(stopped, Path("a"))
    finally:
        signal.signal(signal.SIGUSR2, earlier)
    assert [storage.answered(lambda: 2, Path("a")) for _ in range(3)] == [2, 2, 2]
    assert not storage.has_stuck()


def test_a_process_with_a_read_that_never_ends_is_left_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = list[int]()

    def leave(code: int) -> None:
        codes.append(code)
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", leave)
    for is_stuck, expected in ((True, [2]), (False, [])):
        monkeypatch.setattr(storage, "has_stuck", lambda is_stuck=is_stuck: is_stuck)
        codes.clear()
        with pytest.raises(SystemExit) as end:
            _leave(2)
        assert (end.value.code, codes) == (2, expected)


def test_a_forked_process_reads_with_a_thread_of_its_own() -> None:
    assert storage.answered(lambda: 1, Path("a")) == 1
    process = get_context("fork").Process(target=_read_in_child)
    process.start()
    process.join(20)
    assert process.exitcode == 0


def _read_in_child() -> None:
    raise SystemExit(0 if storage.answered(lambda: 3, Path("a")) == 3 else 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it may land in a callback first
def test_a_table_that_takes_too_long_to_parse_is_given_up_and_parsing_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cohort.csv"
    path.write_text("patient,slide,label\n" + "a,b,c\n" * 300_000)
    monkeypatch.setattr(storage, "SECONDS", 0.1)
    with pytest.raises(
        CohortError, match=r"cohort\.csv cannot be read: parsing it as a table takes longer than 0\.1 s"
    ):
        read_table(path)
    parsers = [thread for thread in threading.enumerate() if str(path) in thread.name]  # none where it ended at once
    for parser in parsers:
        parser.join(5)
        assert not parser.is_alive()


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:  # such names are short
        server.bind(path.name)


def link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("make", "kind"), [(make_pipe, "a pipe"), (make_socket, "a socket"), (link_to_device, "a device")]
)
def test_pipes_sockets_and_devices_are_refused_at_once(
    name: str, make: Callable[[Path], None], kind: str, tmp_path: Path
) -> None:
    read, error = FILES[name]
    make(tmp_path / name)
    with pytest.raises(error, match=rf"{name}:? .*it is {kind}, expected "):
        read(tmp_path / name)
