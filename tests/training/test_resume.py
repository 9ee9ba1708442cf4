"""A run killed by `kill -9` resumes to bitwise the weights of an uninterrupted run.

Only the killed run has a process of its own, because starting one takes longer than its training.
"""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import QUICK, once, run_quietly

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

LONGEST = 1200
"""Seconds that an epoch may take on a machine that does many other things."""


def fingerprint(run: Path) -> dict[str, bytes]:
    names = ["predictions.csv", *(str(path.relative_to(run)) for path in run.glob("**/weights.safetensors"))]
    return {name: (run / name).read_bytes() for name in sorted(names)}


def uninterrupted(shared: Path, *words: str) -> Path:
    """Return the run of `WORDS` and these that nothing interrupts; all tests of all processes share it."""
    name = f"uninterrupted-{hashlib.sha256(' '.join(words).encode()).hexdigest()[:16]}"
    train = ("train", *WORDS, *words)
    return once(shared / name, lambda at: run_quietly(*train, f"hydra.run.dir={at}/run")) / "run"


def kill_when(process: "subprocess.Popen[bytes]", epoch: str, fold: int, run: Path) -> None:
    """Kill the process without warning once the log of the fold says that the epoch is over."""
    deadline = time.monotonic() + LONGEST
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
        (["split=holdout", "data.whole_cohort=true", "data.passes=2", "model.members=2"], 1),
    ],
)
def test_killed_run_resumes_to_the_uninterrupted_weights(
    tmp_path: Path, shared: Path, split: list[str], fold: int
) -> None:
    killed, words = tmp_path / "killed", ["train", *WORDS, *split]
    command = [sys.executable, "-m", "mil", *words, f"hydra.run.dir={killed}"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    kill_when(process, "epoch 2 of", fold, killed)
    assert not (killed / "predictions.csv").exists()
    assert list(killed.glob("**/last.ckpt")), "no checkpoint to resume from"
    before = (killed / "log.txt").read_text()
    run_quietly("train", "--resume", killed)
    resumed = (killed / "log.txt").read_text().removeprefix(before)
    assert "epoch 4 of 4" in resumed
    assert "epoch 1 of" not in resumed, "training started again instead of resuming"
    assert fingerprint(killed) == fingerprint(uninterrupted(shared, *split))
    assert not list(killed.glob("**/state")), "the resume state is not removed at the end"
