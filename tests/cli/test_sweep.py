"""Hydra's own multirun: a folder a job, and a job that fails does not take the others with it."""

import os
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mil.cli.train_command import _remove_empty
from mil.training.module import MILModule
from tests.conftest import TINY, Mil

WORDS = [word for word in TINY if not word.startswith(("model.", "experiment=", "split."))]
ONCE = ["trainer.max_epochs=1", "baseline=false", "model.embed_dim=8", "resamples=5"]


def jobs(folder: Path) -> dict[str, tuple[str, int]]:
    found = {path.parent.name: OmegaConf.load(path) for path in sorted(folder.glob("*/config.yaml"))}
    return {name: (said.model._target_.rpartition(".")[2], said.seed) for name, said in found.items()}


def test_a_sweep_makes_a_run_of_each_combination(mil: Mil, tmp_path: Path) -> None:
    said = mil(
        "train",
        "-m",
        *WORDS,
        *ONCE,
        "model=abmil,mean",
        "seed=0,1",
        "split=holdout",
        f"hydra.sweep.dir={tmp_path}/sweep",
    )
    assert said.code == 0, said.err
    expected = {"0": ("ABMIL", 0), "1": ("ABMIL", 1), "2": ("Pooling", 0), "3": ("Pooling", 1)}
    assert jobs(tmp_path / "sweep") == expected
    for job in expected:
        run = tmp_path / "sweep" / job
        assert (run / "report.json").is_file()
        assert (run / "log.txt").read_text().count("epoch 1 of 1") == 1, "a job logs its own epochs, nobody else's"
    lines = said.err.splitlines()
    for number, (model, seed) in enumerate((model, seed) for model in ("abmil", "mean") for seed in (0, 1)):
        label = f"run {number + 1} of 4: model={model}, seed={seed}"
        assert [f"[{label}] epoch 1 of 1 " in line for line in lines].count(True) == 1
        assert said.out.splitlines().count(label) == 1, "the results of each run stand under its name"
    *_, head, first, second, third, fourth, last = said.out.splitlines()
    assert head.split() == ["run", "model", "seed", "folder", "discrimination"]
    assert [row.split()[:4] for row in (first, second, third, fourth)] == [
        ["1", "abmil", "0", "0"],
        ["2", "abmil", "1", "1"],
        ["3", "mean", "0", "2"],
        ["4", "mean", "1", "3"],
    ]
    assert "AUROC" in first
    assert ", n " in first
    assert last == str(tmp_path / "sweep")


def test_a_job_that_fails_does_not_stop_the_others_and_fails_the_sweep(mil: Mil, tmp_path: Path) -> None:
    words = ["split.folds=23,2", f"hydra.sweep.dir={tmp_path}/sweep"]
    said = mil("train", "-m", *WORDS, *ONCE, *words)
    assert said.code == 2
    assert said.err.splitlines()[-1].startswith("mil: run 1 of 2: split.folds=23: class ")
    assert "Error executing job" not in said.err
    assert "failed" in next(line for line in said.out.splitlines() if line.startswith("1  "))
    assert "expected at least 23 for 23 folds" in said.err.splitlines()[-1]
    assert sorted(jobs(tmp_path / "sweep")) == ["1"]
    assert (tmp_path / "sweep" / "1" / "report.json").is_file()
    assert "Traceback" not in said.err


def test_a_sweep_that_is_stopped_says_how_all_of_it_goes_on(
    mil: Mil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = MILModule.on_train_batch_start
    stops = [signal.SIGTERM]

    def stop_second(self: MILModule, batch: Any, batch_idx: int) -> None:
        if (tmp_path / "a sweep" / "0" / "report.json").is_file() and stops:
            os.kill(os.getpid(), stops.pop())
        start(self, batch, batch_idx)

    monkeypatch.setattr(MILModule, "on_train_batch_start", stop_second)
    words = ["train", "-m", *WORDS, *ONCE, "split=holdout", "seed=0,1,2", f"hydra.sweep.dir='{tmp_path}/a sweep'"]
    said = mil(*words)
    assert said.code == 75
    rows = {line.split()[0]: line for line in said.out.splitlines() if line[:3] in ("1  ", "2  ", "3  ")}
    assert ("AUROC" in rows["1"], "stopped" in rows["2"], "not begun" in rows["3"]) == (True, True, True)
    line = said.err.splitlines()[-1]
    assert line.startswith("mil: stopped by SIGTERM; the state is saved; continue with: mil train -m ")
    said = mil(*shlex.split(line.partition("continue with: mil ")[2]))
    assert said.code == 0, said.err
    assert all((tmp_path / "a sweep" / job / "report.json").is_file() for job in ("0", "1", "2"))


def test_a_folder_that_another_sweep_has_removed_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "run" / "state").mkdir(parents=True)
    for name in ("empty", "gone", "run"):
        _remove_empty(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_runs_side_by_side_do_not_share_several_devices(mil: Mil, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["parallel=2", "trainer.devices=2", "seed=0,1", f"hydra.sweep.dir={tmp_path}/sweep"]
    said = mil("train", "-m", *WORDS, *ONCE, *words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("mil: trainer.devices=2 with -m and parallel=2: expected one of them; ")
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_a_sweep_can_run_its_jobs_at_once(mil: Mil, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = [
        "parallel=2",
        "seed=0,1",
        "split=holdout",
        f"hydra.sweep.dir={tmp_path}/sweep",
    ]
    said = mil("train", "-m", *WORDS, *ONCE, *words)
    assert said.code == 0, said.err
    assert jobs(tmp_path / "sweep") == {"0": ("ABMIL", 0), "1": ("ABMIL", 1)}
    assert "epoch 1 of 1" in (tmp_path / "sweep" / "1" / "log.txt").read_text()
    assert said.out.splitlines()[-1] == str(tmp_path / "sweep")
