"""Interrupted packing resumes where it stopped, but only on the same files with the same options."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mil import files
from mil.errors import FeatureError
from mil.features import packed, packing
from mil.features.formats import Reading, Slide
from mil.features.packed import Packed
from mil.features.packing import pack
from mil.features.store import FeatureStore
from mil.simulation.simulated_cohort import write
from tests.features.conftest import random_features, write_clam
from tests.features.packings import COHORT, SLIDES, refusal, write_six_slides

KILLED = """
import os, random, signal, sys
from pathlib import Path
from mil.features import packed
from mil.features import packing
from mil.features.store import FeatureStore

packing._SYNC_BYTES = 1000
source, folder = Path(sys.argv[1]), Path(sys.argv[2])
lines = 0

def pack(out, moment=None):
    def follow(frame, event, argument):
        global lines
        if frame.f_code.co_filename != packing.__file__:
            return None
        if event == "line":
            lines += 1
            if lines == moment:
                os.kill(os.getpid(), signal.SIGKILL)
        return follow
    sys.settrace(follow)
    done = packing.pack(FeatureStore(source), out)
    sys.settrace(None)
    return done

def killed(out, moment):
    child = os.fork()
    if not child:
        pack(out, moment)
        os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL

pack(folder / "whole.h5")
reference, line_count, rng = (folder / "whole.h5").read_bytes(), lines, random.Random(1)
for number in range(8):
    lines, out = 0, folder / f"{number}.h5"
    early_or_late = 1 + number * line_count // 8 + rng.randrange(line_count // 8)
    ends = [killed(out, moment) for moment in (early_or_late, 1 + rng.randrange(line_count // 10))]
    finished = out.exists()
    resumed = 0 if finished else pack(out).resumed
    print(int(ends[0]), resumed, int(out.read_bytes() == reference))
"""


class StopError(Exception):
    """Raised to stop a packing from outside."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_six_slides(tmp_path / "in")


def interrupted_packing(source: Path, out: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stop a packing after `after` written slides and return the partial folder that it leaves."""

    def progress(step: str, done: int, total: int) -> None:
        if (step, done) == ("packing", after + 1):
            raise StopError

    with monkeypatch.context() as patch:
        patch.setattr(packing, "_SYNC_BYTES", 1)
        with pytest.raises(StopError):
            pack(FeatureStore(source), out, progress=progress)
    assert not out.exists()
    return out.with_name(f"{out.name}.partial")


def test_packing_resumes_to_the_same_bytes_after_kill(tmp_path: Path, folder: Path) -> None:
    """Each of eight packings is killed twice at random lines, first in each eighth of all, then soon."""
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", KILLED, str(folder), str(tmp_path / "out")]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    results = [tuple(map(int, line.split())) for line in run.stdout.splitlines()]
    assert len(results) == 8
    assert all(killed and same for killed, _, same in results)
    assert len({resumed for _, resumed, _ in results}) > 2, "some are killed early, some late"


def test_written_slides_are_not_read_again(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted_packing(folder, tmp_path / "a.h5", 4, monkeypatch)
    read: list[str] = []
    store = FeatureStore(folder)
    original = store.read

    def recorded(slide: str) -> Slide:
        read.append(slide)
        return original(slide)

    monkeypatch.setattr(store, "read", recorded)
    assert pack(store, tmp_path / "a.h5").resumed == 4
    assert read == ["e", "f"]


@pytest.mark.parametrize("torn", ['["d", "0123', '["d", "' + 64 * "0" + '", 0.0]', "\x00\x00\x00"])
def test_incomplete_last_journal_line_is_ignored(
    tmp_path: Path, folder: Path, torn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(FeatureStore(folder), tmp_path / "whole.h5")
    journal = interrupted_packing(folder, tmp_path / "a.h5", 3, monkeypatch) / "journal.jsonl"
    with journal.open("a") as file:
        file.write(torn)
    assert pack(FeatureStore(folder), tmp_path / "a.h5").resumed == 3
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def touched(folder: Path) -> None:
    status = (folder / "b.h5").stat()
    os.utime(folder / "b.h5", ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def rewritten(folder: Path) -> None:
    write_clam(folder / "b.h5", random_features(5, dtype="float32"))


def removed(folder: Path) -> None:
    (folder / "b.h5").unlink()


@pytest.mark.parametrize("change", [touched, rewritten, removed])
def test_changed_source_is_refused_naming_the_slide(
    tmp_path: Path, folder: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = interrupted_packing(folder, tmp_path / "a.h5", 4, monkeypatch)
    change(folder)
    assert f"{partial} was begun on other files or with other options for 1 slides ('b')" in refusal(
        folder, tmp_path / "a.h5"
    )
    assert not (tmp_path / "a.h5").exists()


def test_resuming_with_other_options_is_refused(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted_packing(folder, tmp_path / "a.h5", 4, monkeypatch)
    message = refusal(folder, tmp_path / "a.h5", "float16")
    assert "begun as version 1 with dtype float32, expected 1 with float16: remove it to begin anew" in message
    write(replace(COHORT, layout="stamp"), tmp_path / "cohort")
    interrupted_packing(tmp_path / "cohort" / "features", tmp_path / "b.h5", 2, monkeypatch)
    with pytest.raises(FeatureError, match="with other options for"):
        pack(FeatureStore(tmp_path / "cohort" / "features", reading=Reading(slide_mpp=0.25)), tmp_path / "b.h5")


@pytest.mark.parametrize("begun", ["", "text", "[]", json.dumps({"version": 1, "dtype": "float32", "slides": 5})])
def test_foreign_journal_is_refused(tmp_path: Path, folder: Path, begun: str) -> None:
    files.write(tmp_path / "a.h5.partial" / "journal.jsonl", f"{begun}\n")
    assert "begun by something else: remove it" in refusal(folder, tmp_path / "a.h5")


def test_source_changed_during_packing_is_refused(tmp_path: Path, folder: Path) -> None:
    def progress(step: str, done: int, total: int) -> None:
        if (step, done) == ("packing", 3):
            write_clam(folder / "e.h5", 2 * random_features(16, dtype="float32").astype("f4"))

    with pytest.raises(FeatureError, match=r"e\.h5 has changed while it was in use"):
        pack(FeatureStore(folder), tmp_path / "a.h5", progress=progress)


def test_failed_verification_writes_no_file_and_starts_over(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_bytes(features: torch.Tensor) -> bytes:
        content = packed.as_bytes(features)
        return bytes([content[0] ^ 1]) + content[1:] if len(features) == 8 else content

    with monkeypatch.context() as patch:
        patch.setattr(packing, "as_bytes", as_bytes)  # changes the bytes written, not those digested
        assert "tiles of slide 'c' differ from their digest" in refusal(folder, tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()
    assert pack(FeatureStore(folder), tmp_path / "a.h5").resumed == 0
    assert Packed(tmp_path / "a.h5").slides == SLIDES
