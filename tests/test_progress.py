"""Long work reports how far it has come: on a terminal as one line with rate and time left, in a pipe not at all."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mil import progress
from mil.cli import progress_bar
from mil.cli.progress_bar import Bar, line
from tests.conftest import SMALL, TINY, Mil

SIMULATION = [word for word in TINY if word.startswith("simulation.")]


def test_items_are_counted_for_who_listens_and_for_nobody_else() -> None:
    reported: list[tuple[str, int, int]] = []
    assert list(progress.counted("ab", "reading", 2)) == ["a", "b"]
    with progress.listening(lambda *step: reported.append(step)):
        assert list(progress.counted("ab", "reading", 2)) == ["a", "b"]
        if not (child := os.fork()):
            progress.advance("reading", 7, 8)
            os._exit(len(reported))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3, "a forked process draws nothing"
    progress.advance("reading", 1, 2)
    assert reported == [("reading", 0, 2), ("reading", 1, 2), ("reading", 2, 2)]


def test_a_line_has_rate_and_time_left_and_fits_the_terminal() -> None:
    text = line("reading headers", 30, 120, 10.0, 20, 100)
    assert text == f"reading headers  {'━' * 6}{'╌' * 18}  30 of 120, 2.0 a second, 0:45 left"
    assert "4.0 s each, 1:06:40 left" in line("x", 10, 1010, 40.0, 10, 200)
    assert line("reading headers", 30, 120, 10.0, 20, 60) == "reading headers  30 of 120, 2.0 a second, 0:45 left"
    assert len(line("reading headers", 30, 120, 10.0, 20, 20)) == 19
    assert "left" not in line("x", 5, 10, 3.0, 0, 80)  # nothing is known of the rate yet


def test_a_bar_is_drawn_after_a_second_and_taken_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("mil.cli.progress_bar.time.monotonic", lambda: now)
    bar = Bar()
    for now, done in ((0.0, 0), (0.9, 9), (1.0, 10), (1.05, 11), (2.0, 20)):  # noqa: B007
        bar("packing", done, 40)
    shown = capsys.readouterr().err.split("\r\x1b[K")
    assert [text.partition("  ")[2].rpartition("  ")[2][:8] for text in shown[1:]] == ["10 of 40", "20 of 40"]
    bar.clear()
    bar.clear()
    assert capsys.readouterr().err == "\r\x1b[K"
    now = 9.0
    bar("packing", 39, 40)
    bar("packing", 40, 40)
    assert capsys.readouterr().err.endswith("\r\x1b[K")


def test_commands_report_their_steps(mil: Mil, tmp_path: Path, crc_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: dict[str, list[int]] = {}
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress_bar, "_bar", Recorder(steps))

    def during(*words: object) -> set[str]:
        steps.clear()
        said = mil(*map(str, words))
        assert said.code in (0, 1), said.err
        assert all(done == sorted(done) or step == "resampling" for step, done in steps.items()), steps
        return set(steps)

    cohort, packed = tmp_path / "cohort", tmp_path / "packed.h5"
    checkpoint, features = crc_run / "fold_0" / "checkpoint", tmp_path / "cohort" / "features"
    given = [f"data.cohort={cohort}/cohort.csv", f"data.features={features}"]
    assert "simulating patients" in during("simulate", cohort, *SIMULATION)
    assert {"reading headers", "reading features"} <= during("check", *given, "--deep", *SMALL)
    assert {"reading headers", "packing", "reading back"} <= during("convert", features, packed)
    assert "predicting" in during("predict", checkpoint, "--features", features, "--out", tmp_path / "scores.csv")
    given = ["--features", str(features), "--out"]
    assert "explaining patients" in during("explain", checkpoint, *given, tmp_path / "explained")
    given = ["--cohort", f"{cohort}/cohort.csv", *given]
    evaluated = during("evaluate", checkpoint, *given, tmp_path / "evaluated", "--resamples", 50)
    assert {"predicting", "computing the report", "drawing figures", "resampling"} <= evaluated


class Recorder(Bar):
    """Keeps what is reported instead of drawing it."""

    def __init__(self, steps: dict[str, list[int]]) -> None:
        super().__init__()
        self.steps = steps

    def __call__(self, step: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        self.steps.setdefault(step, []).append(done)


COMMAND = (
    "import mil.cli.progress_bar as bar; bar.AFTER = -1.0; bar._REDRAWN = -1.0; from mil.cli.main import main; main()"
)


def test_a_pipe_gets_no_bar_and_no_colour(mil: Mil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_bar, "AFTER", -1.0)
    monkeypatch.setattr(progress_bar, "_REDRAWN", -1.0)
    done = mil("simulate", tmp_path / "piped", *SIMULATION)
    assert done.err == ""
    assert done.out == f"{tmp_path}/piped\n"


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    words = [sys.executable, "-c", COMMAND, "simulate", str(tmp_path / "shown"), *SIMULATION]
    terminal, theirs = pty.openpty()
    with subprocess.Popen(words, stderr=theirs, stdout=subprocess.PIPE) as shown:
        os.close(theirs)
        drawn = b""
        while True:
            try:
                drawn += os.read(terminal, 4096)
            except OSError:  # the process has ended
                break
        assert shown.stdout is not None
        assert shown.stdout.read().decode() == f"{tmp_path}/shown\n"
    os.close(terminal)
    assert re.search(r"simulating patients .*\d+ of 24, .* left", drawn.decode())
    assert drawn.decode().endswith("\x1b[K")
