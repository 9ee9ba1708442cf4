"""Files that are written completely or not at all."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mil import files
from mil.errors import ConfigError, FeatureError
from mil.features.containers import hdf5
from mil.yaml_files import read_yaml


def test_write_creates_the_folder_and_no_other_file(tmp_path: Path) -> None:
    files.write(tmp_path / "a" / "b.txt", "grün")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "grün".encode()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[object] = []
    replace = Path.replace

    def synced(handle: int) -> None:
        state = os.fstat(handle)
        steps.append("folder" if stat.S_ISDIR(state.st_mode) else state.st_size)

    def named(path: Path, target: Path) -> Path:
        steps.append("name")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", named)
    files.write(tmp_path / "report.json", "12345")
    assert steps == [5, "name", "folder"]


def test_failed_write_leaves_the_old_file_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    files.write(path, "old")

    def fail_with_full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail_with_full_disk)
    with pytest.raises(OSError, match="No space"):
        files.write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nonfinite_json_is_refused_and_the_old_file_kept(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    files.write_json(path, {"value": 0.1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"value": float("nan")})
    assert files.read_json(path) == {"value": 0.1}


WRITER = """
import itertools, sys
from pathlib import Path
from mil import files
for count in itertools.count():
    files.write(Path(sys.argv[1]), bytes([count % 256]) * 300_000)
"""


def test_killed_write_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    for wait in (0.0, 0.003, 0.007, 0.011, 0.016):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], cwd=Path(__file__).parents[1])
        before = path.stat().st_mtime_ns if path.exists() else 0
        while process.poll() is None and (not path.exists() or path.stat().st_mtime_ns == before):
            time.sleep(0.001)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        content = path.read_bytes()
        assert content == content[:1] * 300_000


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_a_lock_that_is_no_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".lock") if kind == "pipe" else (tmp_path / ".lock").mkdir()
    message = rf"\.lock: .* it is a {kind}, expected a file to lock"
    with pytest.raises(ConfigError, match=message), files.locked(tmp_path):
        pass


def test_folder_is_locked_by_one_process_at_a_time(tmp_path: Path) -> None:
    with files.locked(tmp_path) as first, files.locked(tmp_path) as second:
        assert (first, second) == (True, False)
    with files.locked(tmp_path) as again:
        assert again


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
        max_leaves=12,
    )
)
@settings(deadline=None, max_examples=100)
def test_json_round_trip(content: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.json"
        files.write_json(path, content)
        assert files.read_json(path) == content


def test_list_of_numbers_takes_one_line(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    files.write_json(path, {"curve": [0.1, 0.2, 0.3], "names": ["a  b", "[\n]"], "rows": [{"n": 1}]})
    text = path.read_text()
    assert '"curve": [0.1, 0.2, 0.3],\n' in text
    assert '"n": 1\n' in text


def test_pipes_are_refused_at_once_and_temporary_files_are_cleaned(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.h5")
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(FeatureError, match="it is a pipe, expected a file"), hdf5.opened(tmp_path / "a.h5"):
        pass
    with pytest.raises(ConfigError, match="it is a pipe, expected a yaml file"):
        read_yaml(tmp_path / "a.yaml")


def test_what_killed_writes_leave_is_cleaned_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".predictions.csv.abcd1234").write_text("as version 0.1 called them")
    unrelated = {".predictions.csv", ".env.template", ".env.defaults", ".eslintrc.settings"}
    for name in unrelated:
        (tmp_path / name).write_text("somebody's")
    leftovers = []

    def killed(self: Path, target: Path) -> None:
        leftovers.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
    for name in ("predictions.csv", "x" * 240):  # names may be as long as the file system lets them
        with pytest.raises(KeyboardInterrupt):
            files.write(tmp_path / name, "scores")
    monkeypatch.undo()
    assert [path.is_file() for path in leftovers] == [True, True]
    files.clean(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == unrelated
