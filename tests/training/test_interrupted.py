"""A signal in the middle of an epoch saves the state; the run goes on from that batch to the same weights."""

import errno
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from mil import files
from mil.errors import TrainingError
from mil.training import saved_state
from mil.training.module import MILModule
from mil.training.saved_state import SyncedFiles, TrainedModel
from tests.conftest import Mil, once, run_quietly
from tests.training.test_resume import WORDS, fingerprint, uninterrupted

HOLDOUT = ["split=holdout"]
MANY_STEPS = [*WORDS, *HOLDOUT]


@pytest.fixture
def signalled(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that has a signal sent before a batch of an epoch."""
    original = MILModule.on_train_batch_start

    def at(epoch: int, batch: int, number: signal.Signals) -> None:
        def start(self: MILModule, data: Any, batch_idx: int) -> None:
            if (self.current_epoch, batch_idx) == (epoch, batch):
                os.kill(os.getpid(), number)
            original(self, data, batch_idx)

        monkeypatch.setattr(MILModule, "on_train_batch_start", start)

    return at


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGTERM, []),
        (signal.SIGUSR1, ["data.max_tiles=30"]),
        (signal.SIGINT, ["trainer.accumulate_grad_batches=2"]),
        (signal.SIGHUP, ["data.workers=1", "data.memory=0"]),
    ],
)
def test_a_signal_amid_an_epoch_saves_and_the_run_goes_on_to_the_same_weights(
    number: signal.Signals,
    words: list[str],
    mil: Mil,
    tmp_path: Path,
    shared: Path,
    signalled: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopped = tmp_path / "stopped"
    signalled(1, 1, number)
    said = mil("train", *MANY_STEPS, *words, f"hydra.run.dir={stopped}")
    monkeypatch.undo()
    assert said.code == 75
    line = f"mil: stopped by {number.name}; the state is saved; continue with: mil train --resume {stopped}"
    assert said.err.splitlines()[-1] == line
    state = saved_state.latest(stopped)
    assert state is not None
    assert state.epoch == 1
    assert state.batches == 2, "the batch that had begun is done"
    assert not [path for path in stopped.rglob(".*") if path.name != files.LOCK]
    assert mil("train", "--resume", stopped).code == 0
    assert fingerprint(stopped) == fingerprint(uninterrupted(shared, *HOLDOUT, *words))


def test_a_signal_while_the_cohort_is_read_leaves_nothing(
    mil: Mil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mil.runs import fit_run

    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(fit_run, "prepare_study", interrupt)
    said = mil("train", *MANY_STEPS, f"hydra.run.dir={tmp_path}/new/run")
    assert (said.code, said.err.splitlines()[-1]) == (143, "mil: stopped by SIGTERM; nothing is left to continue")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def stopped_in_the_third_epoch(shared: Path) -> Path:
    """Return a run whose state of two epochs is saved, for copies to be damaged and gone on with."""
    start = MILModule.on_train_batch_start

    def stop(self: MILModule, batch: Any, batch_idx: int) -> None:
        if (self.current_epoch, batch_idx) == (2, 0):
            os.kill(os.getpid(), signal.SIGTERM)
        start(self, batch, batch_idx)

    def train(at: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MILModule, "on_train_batch_start", stop)
            with pytest.raises(AssertionError, match="continue with: mil train --resume"):
                run_quietly("train", *MANY_STEPS, f"hydra.run.dir={at}/run")

    return once(shared / "stopped_in_the_third_epoch", train) / "run"


@pytest.mark.parametrize("has_links", [True, False])
def test_the_state_stays_until_the_next_one_is_written(
    has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    if not has_links:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    for epoch in range(3):
        SyncedFiles().save_checkpoint({"epoch": epoch}, path)
    states = [SyncedFiles().load_checkpoint(each)["epoch"] for each in (path, previous)]
    assert states == [2, 1]
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        SyncedFiles().save_checkpoint({"epoch": 3}, path)
    assert path.exists() == has_links
    assert SyncedFiles().load_checkpoint(path if has_links else previous)["epoch"] == 2
    assert sorted(each.name for each in tmp_path.iterdir()) == [*(["last.ckpt"] if has_links else []), "previous.ckpt"]


@pytest.mark.parametrize("kind", ["pipe", "folder", "list", "lacking"])
def test_a_state_that_is_no_file_is_passed_over(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / saved_state.FOLDER
    folder.mkdir()
    names = ("global_step", "pytorch-lightning_version", "state_dict", "loops", "callbacks", "optimizer_states")
    state: dict[str, object] = {"epoch": 4} | {name: {} for name in names}
    SyncedFiles().save_checkpoint(state, folder / "previous.ckpt")
    last = folder / "last.ckpt"
    if kind in ("list", "lacking"):
        torch.save([1, 2] if kind == "list" else {"epoch": 1, "callbacks": {}}, last)
    else:
        os.mkfifo(last) if kind == "pipe" else last.mkdir()
    latest = saved_state.latest(tmp_path)
    assert latest is not None
    assert (latest.path.name, latest.epoch) == ("previous.ckpt", 5)
    assert {"list": "it lacks epoch", "lacking": "it lacks global_step"}.get(kind, f"it is a {kind}, ") in caplog.text
    SyncedFiles().save_checkpoint(state, last)
    assert last.is_file()


def test_the_state_of_another_model_is_called_so(mil: Mil, tmp_path: Path, stopped_in_the_third_epoch: Path) -> None:
    run = shutil.copytree(stopped_in_the_third_epoch, tmp_path / "run")
    last = run / "state" / "last.ckpt"
    state = torch.load(last, weights_only=True)
    state["state_dict"] = {name: weights[:1] for name, weights in state["state_dict"].items()}
    torch.save(state, last)
    said = mil("train", "--resume", run)
    assert said.code == 2
    assert said.err.splitlines()[-1].startswith(f"mil: {run / 'state'} holds the state of another model; remove it")


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_state_falls_back_to_the_one_before(
    damage: str, mil: Mil, tmp_path: Path, shared: Path, stopped_in_the_third_epoch: Path
) -> None:
    run = shutil.copytree(stopped_in_the_third_epoch, tmp_path / "run")
    last = run / "state" / "last.ckpt"
    content = bytearray(last.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 0x40
    last.write_bytes(content)
    copy = shutil.copytree(run, tmp_path / "copy")
    said = mil("train", "--resume", run)
    assert said.code == 0
    assert f"{last} is damaged" in said.err
    assert "going on from previous.ckpt instead, after epoch 2" in said.err
    assert fingerprint(run) == fingerprint(uninterrupted(shared, *HOLDOUT))
    (copy / "state" / "previous.ckpt").write_bytes(b"")
    said = mil("train", "--resume", copy)
    assert said.code == 2
    assert said.err.splitlines()[-1].endswith(f"remove {copy / 'state'} to train this fold from its beginning")


def test_a_fold_whose_training_is_over_is_only_predicted(
    mil: Mil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning does not save that it has stopped early: it would train a further epoch."""
    early = [*MANY_STEPS, "callbacks.early_stopping.patience=1", "trainer.max_epochs=30", "optimizer.lr=0.01"]
    run, whole = tmp_path / "run", tmp_path / "whole"
    assert mil("train", *early, f"hydra.run.dir={whole}").code == 0
    epochs = (whole / "log.txt").read_text().count(" of 30  ")
    assert 1 < epochs < 30, "does not stop early"

    def fail(*_: object) -> None:
        raise TrainingError("no power")

    with monkeypatch.context() as patch:
        patch.setattr("mil.training.fit._predicted", fail)
        assert mil("train", *early, f"hydra.run.dir={run}").code == 2
    resumed = mil("train", "--resume", run)
    assert resumed.code == 0, resumed.err
    assert (run / "log.txt").read_text().count(" of 30  ") == epochs
    assert fingerprint(run) == fingerprint(whole)
    assert (run / "checkpoint" / "manifest.json").read_bytes() == (whole / "checkpoint" / "manifest.json").read_bytes()
    assert not (run / "state").exists()


def test_damaged_weights_of_a_trained_fold_are_trained_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained = TrainedModel({"weight": torch.ones(2)}, 3, [2], "32-true")
    assert saved_state.read_trained(tmp_path) is None
    saved_state.write_trained(tmp_path, trained)
    read = saved_state.read_trained(tmp_path)
    assert read is not None
    assert (read.epochs, read.best_epochs, read.precision) == (3, [2], "32-true")
    assert torch.equal(read.weights["weight"], torch.ones(2))
    path = tmp_path / "state" / "trained.pt"
    path.write_bytes(path.read_bytes()[:-40])
    assert saved_state.read_trained(tmp_path) is None
    assert "trained.pt is damaged" in caplog.text
