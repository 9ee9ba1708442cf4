"""Storage that fails for a while is read again; a fault of the file itself is not."""

import errno
import os
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from mil.errors import FeatureError
from mil.features import formats, retries
from mil.features.encoders import Encoder
from mil.features.formats import Slide
from mil.features.store import FeatureStore


class Storage:
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
    storage = Storage(2, error)
    monkeypatch.setattr(formats, "read", storage)
    assert store.read("S").features.shape == (3, 4)
    assert (storage.calls, waits) == (3, [0.5, 2.0])
    assert all("S.h5" in record.getMessage() for record in caplog.records)
    assert len(caplog.records) == 2


def test_storage_that_stays_away_is_an_error_that_names_the_file(
    store: FeatureStore, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(99, OSError(errno.EIO, os.strerror(errno.EIO)))
    monkeypatch.setattr(formats, "read", storage)
    with pytest.raises(FeatureError, match=r"S\.h5 cannot be read: Input/output error, 4 times in 7\.5 s"):
        store.read("S")
    assert waits == list(retries.WAITS)


def test_a_fault_of_the_file_is_not_repeated(
    store: FeatureStore, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(99, OSError(errno.EACCES, os.strerror(errno.EACCES)))
    monkeypatch.setattr(formats, "read", storage)
    with pytest.raises(FeatureError, match="cannot be read as HDF5"):
        store.read("S")
    assert (storage.calls, waits) == (1, [])
