"""Loggers: nothing leaves the machine unless the user asks for it."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import QUICK, Mil

SMALL = ["simulation.patients=24", "simulation.tiles=40", "simulation.width=16", "simulation.target.prevalence=0.4"]
FAST = ["split=holdout", "trainer.max_epochs=2", "baseline=false", "resamples=10", "figures=false"]
WORDS = ["train", *(word for word in QUICK if word != "experiment=quick"), *SMALL, *FAST]


def test_default_logger_writes_loss_and_scores_of_each_epoch(tmp_path: Path, mil: Mil) -> None:
    result = mil(*WORDS, f"hydra.run.dir={tmp_path}")
    assert result.code == 0, result.err
    table = pd.read_csv(tmp_path / "log" / "version_0" / "metrics.csv")
    assert {"epoch", "train_loss", "select_loss", "select_auroc"} <= set(table.columns)
    assert set(table["epoch"]) == {1, 2}


def test_tensorboard_writes_events(tmp_path: Path, mil: Mil) -> None:
    pytest.importorskip("tensorboard")
    result = mil(*WORDS, "logger=tensorboard", f"hydra.run.dir={tmp_path}")
    assert result.code == 0, result.err
    assert list((tmp_path / "log").rglob("events.out.tfevents.*"))


@pytest.mark.slow
def test_wandb_is_offline_with_one_run_a_fold_and_sends_nothing_of_the_machine(tmp_path: Path) -> None:
    run = tmp_path / "secretfolder"
    folds = ["split=kfold", "split.folds=2", "trainer.max_epochs=1"]
    words = [*WORDS, *folds, "logger=wandb", f"hydra.run.dir={run}"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "WANDB_SILENT": "true"}
    done = subprocess.run(
        [sys.executable, "-m", "mil", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for fold in range(2):
        [log] = (run / f"fold_{fold}" / "log").rglob("offline-run-*/*.wandb")
        sent = [log, *(path for path in (log.parent / "files").rglob("*") if path.is_file())]
        written = b"".join(path.read_bytes() for path in sent)  # the folder logs/ is never uploaded
        assert f"fold {fold}".encode() in written
        for secret in ("secretfolder", "trainer.max_epochs", platform.node(), str(Path.home())):
            assert secret.encode() not in written, secret


def test_settings_of_wandb_change_what_they_name_and_keep_the_machine_out() -> None:
    pytest.importorskip("wandb", reason="the extra `wandb` is not installed")
    from mil.training.wandb_logger import with_private

    settings = with_private({"init_timeout": 300, "console": "wrap"})
    assert settings["init_timeout"] == 300
    assert (settings["console"], settings["x_disable_meta"], settings["host"]) == ("wrap", True, "private")
    assert with_private(None)["console"] == "off"


def test_default_logger_opens_no_connection_and_imports_no_wandb(tmp_path: Path) -> None:
    code = """
import json, socket, sys
connections = []
def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        connections.append(repr(address))
    raise ConnectionRefusedError
socket.socket.connect = socket.socket.connect_ex = connect
from mil.cli.main import main
try:
    main()
finally:
    with open("network.json", "w") as file:
        json.dump({"connections": connections, "wandb": "wandb" in sys.modules}, file)
"""
    words = [*WORDS, "trainer.max_epochs=1", f"hydra.run.dir={tmp_path}/run"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "network.json").read_text()) == {"connections": [], "wandb": False}
