"""Resuming after `kill -9` gives bitwise the weights of a run that was never stopped.

Only the run that is killed has a process of its own: starting one takes longer than its training.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import QUICK, run_quietly

WORDS = [
    *QUICK[1:],
    "trainer.max_epochs=4",
    "data.max_tiles=50",
    "data.batch_bags=3",
    "baseline=false",
    "resamples=10",
    "figures=false",
    "simulation.patients=24",
    "simulation.tiles=60",
    "simulation.width=16",
    "simulation.target.prevalence=0.4",
]


def fingerprint(run: Path) -> dict[str, bytes]:
    names = ["predictions.csv", *(str(path.relative_to(run)) for path in run.glob("**/weights.safetensors"))]
    return {name: (run / name).read_bytes() for name in sorted(names)}


def kill_when(process: "subprocess.Popen[bytes]", epoch: str, fold: int, run: Path) -> None:
    """Kills without warning once the fold's log says that the epoch is over."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        text = (run / "log.txt").read_text() if (run / "log.txt").exists() else ""
        started = text.split(f"fold {fold} of")[-1] if f"fold {fold} of" in text else ""
        if epoch in started:
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.002)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("split", "fold"),
    [
        (["split=holdout"], 1),
        (["split=kfold", "split.folds=2"], 2),
        (["split=holdout", "data.whole_cohort=true", "data.passes=2"], 1),
    ],
)
def test_a_killed_run_resumes_to_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, split: list[str], fold: int
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    words = ["train", *WORDS, *split]
    run_quietly(*words, f"hydra.run.dir={whole}")
    command = [sys.executable, "-m", "mil", *words, f"hydra.run.dir={broken}"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    kill_when(process, "epoch 2 of", fold, broken)
    assert not (broken / "predictions.csv").exists()
    assert list(broken.glob("**/last.ckpt")), "there is something to resume from"
    before = (broken / "log.txt").read_text()
    run_quietly("train", "--resume", broken)
    resumed = (broken / "log.txt").read_text().removeprefix(before)
    assert "epoch 4 of 4" in resumed
    assert "epoch 1 of" not in resumed, "it went on, it did not start again"
    assert fingerprint(broken) == fingerprint(whole)
    assert not list(broken.glob("**/state")), "what resuming needs is removed at the end"
