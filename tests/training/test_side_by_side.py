"""Folds trained side by side are those that were trained one after the other; faults end all of them in good order."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from mil.cli import train_command
from mil.errors import ConfigError
from mil.splits.folds import Split
from mil.study.compose import compose
from mil.study.study import Study
from mil.training import side_by_side
from mil.training.fold import Fold
from mil.training.side_by_side import GIB, FoldTask, Share, _Waiting, shares
from tests.conftest import TINY, Mil, run_quietly
from tests.training.test_resume import WORDS, fingerprint

PARALLEL = "parallel=2"


def test_folds_side_by_side_have_the_weights_of_folds_one_after_the_other(tmp_path: Path) -> None:
    """Of three folds in two processes the first two are trained first and predicted by who has nothing to train."""
    words, alone, run = ("train", *TINY, "split.folds=3"), tmp_path / "alone", tmp_path / "run"
    run_quietly(*words, f"hydra.run.dir={alone}")
    run_quietly(*words, PARALLEL, f"hydra.run.dir={run}")
    assert fingerprint(run) == fingerprint(alone)
    assert (run / "baseline.csv").read_bytes() == (alone / "baseline.csv").read_bytes()
    log = (run / "log.txt").read_text()
    for fold in (1, 2, 3):
        assert f"fold {fold} of 3: epoch 1 of" in log
        left = sorted(path.name for path in run.glob(f"fold_{fold - 1}/*"))
        assert left == sorted(path.name for path in alone.glob(f"fold_{fold - 1}/*"))
    assert [path.name for path in run.rglob(".lock")] == [".lock"], "a fold's lock is left"


def test_what_cannot_be_dealt_out_evenly_is_predicted_last(tmp_path: Path) -> None:
    def order(folds: int, workers: int) -> list[tuple[str, bool]]:
        """Return what is trained, and whether it is predicted, where whoever took a fold first is done first."""
        tasks = [FoldTask({}, study, split, fold(number), str(number)) for number in range(folds)]
        waiting, running = _Waiting(tasks, workers), list[FoldTask]()
        taken = list[FoldTask]()
        while True:
            if len(running) == workers:
                waiting.trained(running.pop(0))
            task = waiting.next()
            if task is None and not running:
                return [(each.name, each.predict) for each in taken]
            if task is None:
                waiting.trained(running.pop(0))
            else:
                taken.append(task)
                running.append(task)

    study, split = cast(Study, None), cast(Split, None)

    def fold(number: int) -> Fold:
        return cast(Fold, SimpleNamespace(folder=tmp_path / str(number)))

    assert order(4, 2) == [(str(number), True) for number in range(4)]
    trained = [("0", False), ("1", False), ("2", False), ("3", False), ("4", True)]
    assert order(5, 2) == [*trained, ("0", True), ("1", True), ("2", True), ("3", True)]
    assert order(2, 2) == [("0", True), ("1", True)]
    for number in range(3):  # of models that are solved at once
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "predictions.csv").touch()
    assert order(3, 2) == [("0", False), ("1", False), ("2", True)]


def test_a_finished_run_is_itself_with_another_number_of_processes(crc_run: Path, tmp_path: Path, mil: Mil) -> None:
    run = shutil.copytree(crc_run, tmp_path / "run")
    result = mil("train", *TINY, PARALLEL, f"hydra.run.dir={run}")
    assert result.code == 0, result.err


def test_each_process_has_an_equal_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-b")
    config = compose(["data.memory=6", "data.workers=null"])
    monkeypatch.setattr("mil.study.build.workers", lambda _: 4)
    assert shares(config, 3) == [Share(2, 2 * GIB, 1, gpu) for gpu in ("3", "GPU-b", "3")]
    on_cpu = compose(["data.memory=6", "data.workers=2", "trainer.accelerator=cpu"])
    monkeypatch.setattr("mil.study.build.workers", lambda config: config.data.workers)
    assert shares(on_cpu, 16) == [replace(Share(1, 6 * GIB // 16, 2))] * 16


def test_runs_of_a_sweep_are_side_by_side_by_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["model=abmil,mean", "parallel=2"]
    launched = ["model=abmil,mean", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    assert train_command._side_by_side(["-m"], words) == launched
    assert train_command._side_by_side(["--cfg", "job"], words) == words
    assert train_command._side_by_side(["-m"], ["seed=0,1", "parallel=1"]) == ["seed=0,1"]
    with pytest.raises(ConfigError, match="parallel=two, expected a whole number"):
        train_command._side_by_side(["-m"], ["parallel=two"])
    monkeypatch.setattr(train_command, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'mil-zoo\[sweep\]'"):
        train_command._side_by_side(["-m"], words)


def children(process: "subprocess.Popen[bytes]") -> list[int]:
    """Return the processes that train folds: those that were spawned by multiprocessing."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in listed if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def until(seconds: float = 600) -> Iterator[None]:
    """Yield until the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.01)
    raise TimeoutError


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hit", "number", "code", "line"),
    [
        ("parent", signal.SIGTERM, 75, "stopped by SIGTERM; the state is saved; continue with: mil train --resume"),
        ("parent", signal.SIGKILL, -signal.SIGKILL, ""),
        ("child", signal.SIGKILL, 2, "its process was killed, as the system does where memory runs out"),
    ],
)
def test_a_signal_or_a_kill_leaves_folds_that_go_on_to_the_same_weights(
    hit: str, number: int, code: int, line: str, tmp_path: Path
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    words = ["train", *WORDS, "split.folds=2", PARALLEL, "trainer.max_epochs=40"]
    process = subprocess.Popen([sys.executable, "-m", "mil", *words, f"hydra.run.dir={run}"], stderr=subprocess.PIPE)
    for _ in until():
        log = (run / "log.txt").read_text() if (run / "log.txt").exists() else ""
        if all(f"fold {fold} of 2: epoch 1 of" in log for fold in (1, 2)):
            break
    trained = children(process)
    assert len(trained) == 2
    os.kill(process.pid if hit == "parent" else trained[0], number)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == code
    assert line in errors.decode()
    for _ in until():
        if not any(Path(f"/proc/{child}").exists() for child in trained):
            break
    run_quietly("train", "--resume", run)
    run_quietly(*words[:-2], words[-1], f"hydra.run.dir={whole}")
    assert fingerprint(run) == fingerprint(whole)


class Process:
    """Stands for a worker whose process was started."""

    def __init__(self, share: Share) -> None:
        self.share, self.ended = share, False

    def join(self, seconds: float) -> None:
        assert seconds == 0, "an idle process has nothing to save"
        self.ended = True


def test_processes_are_started_while_the_cohort_is_read_and_end_where_nobody_takes_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(side_by_side, "Worker", Process)
    config = compose(["split=kfold", "split.folds=3", "parallel=2"])
    with side_by_side.started_ahead(config) as ahead:
        first, second = started = list(ahead.workers)
        assert ahead.taken(shares(config, 2)) == started
    assert not any(cast(Process, worker).ended for worker in (first, second)), "who took them ends them"
    with side_by_side.started_ahead(config) as ahead:
        started = list(ahead.workers)
        (other,) = ahead.taken(shares(config, 1))  # of a run of which one fold is left
        assert other not in started
    assert all(cast(Process, worker).ended for worker in started)
    untaken = side_by_side.StartedAhead(config)
    started = list(untaken.workers)
    untaken.stop()
    assert [cast(Process, worker).ended for worker in started] == [True, True]


@pytest.mark.parametrize("words", [("split=kfold", "parallel=1"), ("split=holdout", "parallel=2")])
def test_no_process_is_started_for_what_is_trained_in_this_one(words: tuple[str, str]) -> None:
    with side_by_side.started_ahead(compose(list(words))) as ahead:
        assert not ahead.workers
