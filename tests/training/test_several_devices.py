"""Several processes train to the weights of one, and end in good order when one of them is stopped or killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mil.errors import ConfigError, ResourceError
from mil.features.batch_shares import IDLE, SharedOrder, one_by_one
from mil.features.batches import TrainOrder
from mil.federation.federated_run import refuse_alone
from mil.runs.fit_run import begin_run
from mil.study.available_devices import check_devices
from mil.study.compose import compose
from mil.study.pipeline import prepare_study
from mil.training.fit import fit
from mil.training.fold import cut
from mil.training.ranks import Ranks
from mil.training.several_devices import Started, Team, team
from mil.training.side_by_side import FoldTask
from mil.training.summed_gradients import environment, separate_gradients
from tests.conftest import QUICK, SMALL, run_quietly
from tests.training.test_resume import WORDS as RESUMED
from tests.training.test_side_by_side import children, until

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")

WORDS = [
    *QUICK,
    *SMALL[2:],
    "split=holdout",
    "simulation.patients=27",  # training, selection and report patients are odd numbers
    "data.batch_bags=3",
    "data.max_tiles=30",
    "trainer.precision=32-true",  # bfloat16 rounds sums of other parts in another way
    "baseline=false",
]
NARROW = SMALL[:2]
SURVIVAL = ["simulation.target.event_rate=0.5", *NARROW]
HORIZONS = "tool.endpoint.horizons={1y: 12, 3y: 36}"
ENDPOINTS = {
    "binary": ["tool=binary", *NARROW],
    "class weights": ["tool=multiclass", "data.balance=loss", *NARROW],
    "sampling": ["tool=multiclass", "data.balance=sampling", *NARROW],
    "multilabel": ["tool=multilabel", *NARROW],
    "ordinal": ["tool=ordinal", *NARROW],
    "regression": ["tool=regression", *NARROW],
    "several": ["tool=several", *NARROW],
    "cox": ["tool=survival", *SURVIVAL],
    "whole cohort": ["tool=survival", "data.whole_cohort=true", "data.passes=2", *SURVIVAL],
    "discrete": ["tool=survival_discrete", "tool.endpoint.intervals=3", HORIZONS, *SURVIVAL],
    "weibull": ["tool=survival_weibull", *SURVIVAL],
    "lognormal": ["tool=survival_lognormal", *SURVIVAL],
    "competing": ["tool=competing_risks", "tool.endpoint.intervals=3", HORIZONS, *SURVIVAL],
}
BATCHES = {
    "one bag a batch at times": ["tool=binary", "data.tiles_per_batch=31", *NARROW],
    "accumulated": ["tool=binary", "trainer.accumulate_grad_batches=2", *NARROW],
    "members": ["tool=binary", "model.members=2", *NARROW],
    "by slide": ["tool=binary", "data.bag=slide", "simulation.slides=1.5", *NARROW],
}
MODELS = {
    model: ["tool=binary", f"model={model}"]
    for model in ("acmil", "abmil_aem", "clam_sb", "clam_mb", "dsmil", "dtfd", "mhim", "transmil", "transformer")
}
FEW = ("sampling", "whole cohort", "one bag a batch at times")


def weights(fold: Path) -> Mapping[str, torch.Tensor]:
    return load_file(fold / "checkpoint" / "weights.safetensors")


@contextmanager
def two() -> Iterator[Started]:
    with team(compose([*WORDS, "trainer.devices=2"])) as processes:
        assert isinstance(processes, Started)
        yield processes
        processes.dismiss()


def furthest(trained: Mapping[str, torch.Tensor], reference: Mapping[str, torch.Tensor]) -> float:
    assert trained.keys() == reference.keys()
    return max(float((trained[name] - reference[name]).abs().max()) for name in trained)


BY_BAG: dict[str, object] = {"trainer.strategy": "ddp"}
DEFAULT: dict[str, object] = {"model.dropout": 0}


def compare(
    cases: Mapping[str, list[str]], changes: Mapping[str, object], epochs: int, folder: Path, processes: Team
) -> None:
    """Train each case with these options on one device and on two."""
    distances = dict[str, float]()
    for name, words in cases.items():
        alone = compose([*WORDS, *words, f"trainer.max_epochs={epochs}"]).replaced(changes)
        together = alone.replaced({"trainer.devices": 2})
        study, split = prepare_study(alone)
        one, both = (folder / f"{len(distances)}" / place for place in ("one", "two"))
        fit(alone, study, split, cut(alone, study, split, split.folds[0], one))
        processes.fit(FoldTask(together.plain(), study, split, cut(together, study, split, split.folds[0], both)))
        distances[name] = furthest(weights(both), weights(one))
        first, second = ((place / "predictions.csv").read_text().split() for place in (one, both))
        assert [row.split(",")[:3] for row in first] == [row.split(",")[:3] for row in second]
        (folder / "distances.txt").write_text("".join(f"{key}: {value:.1e}\n" for key, value in distances.items()))
    assert {name: distance for name, distance in distances.items() if not distance <= 1e-5} == {}


def test_two_devices_train_the_weights_of_one_and_end_when_one_is_killed(tmp_path: Path) -> None:
    with two() as started:
        compare({name: (ENDPOINTS | BATCHES)[name] for name in FEW}, BY_BAG, 2, tmp_path, started)
        os.kill(started.workers[1].process.pid or 0, signal.SIGKILL)
        start = time.monotonic()
        with pytest.raises(ResourceError, match=r"^the process of device 1 was killed, .*--resume goes on"):
            compare({"after it": ENDPOINTS["binary"]}, BY_BAG, 1, tmp_path / "killed", started)
        started.kill()
    assert time.monotonic() - start < 60
    assert not any(worker.process.is_alive() for worker in started.workers)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cases", "changes"),
    [
        pytest.param(ENDPOINTS, BY_BAG, id="endpoints"),
        pytest.param(ENDPOINTS, DEFAULT, id="endpoints as one device does by default, without dropout"),
        pytest.param(BATCHES | MODELS, BY_BAG, id="batches and models"),
    ],
)
def test_two_devices_train_the_weights_of_one_after_five_epochs(
    cases: Mapping[str, list[str]], changes: Mapping[str, object], tmp_path: Path
) -> None:
    with two() as started:
        compare(cases, changes, 5, tmp_path, started)


RUN = [*RESUMED, "split=holdout", "trainer.precision=32-true"]


def log_of(run: Path) -> str:
    return (run / "log.txt").read_text() if (run / "log.txt").exists() else ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hit", "number", "code", "line"),
    [
        (
            "rank",
            signal.SIGKILL,
            2,
            "mil: the process of device 1 was killed, as the system does where memory runs out",
        ),
        ("rank", signal.SIGTERM, 75, "mil: stopped by SIGTERM; the state is saved; continue with: mil train --resume"),
        (
            "parent",
            signal.SIGTERM,
            75,
            "mil: stopped by SIGTERM; the state is saved; continue with: mil train --resume",
        ),
    ],
)
def test_a_stopped_run_goes_on_with_one_device_to_the_same_weights(
    hit: str, number: int, code: int, line: str, tmp_path: Path
) -> None:
    run, uninterrupted = tmp_path / "run", tmp_path / "uninterrupted"
    words = ["train", *RUN, "trainer.max_epochs=60"]
    command = [sys.executable, "-m", "mil", *words, "trainer.devices=2", f"hydra.run.dir={run}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    for _ in until():
        assert process.poll() is None
        if "epoch 2 of" in log_of(run):
            break
    ranks = children(process)
    assert len(ranks) == 2
    os.kill(process.pid if hit == "parent" else ranks[1], number)
    start = time.monotonic()
    _, errors = process.communicate(timeout=600)
    assert time.monotonic() - start < 60
    assert process.returncode == code
    assert errors.decode().splitlines()[-1].startswith(line)
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)
    assert "epoch 60 of" not in log_of(run)
    run_quietly("train", "--resume", run, "trainer.devices=1")
    assert log_of(run).count("epoch 1 of 60") == 1
    run_quietly(*words, "trainer.strategy=ddp", f"hydra.run.dir={uninterrupted}")
    assert furthest(weights(run), weights(uninterrupted)) <= 1e-5


@pytest.mark.slow
def test_processes_of_srun_are_used_and_one_of_them_writes(tmp_path: Path) -> None:
    run, alone = tmp_path / "run", tmp_path / "alone"
    words = ["train", *RUN, "split=kfold", "split.folds=2", "trainer.max_epochs=2"]
    command = [sys.executable, "-m", "mil", *words, "trainer.devices=2", f"hydra.run.dir={run}"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    step = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "mil", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    step |= {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NODELIST": "127.0.0.1", "SLURM_NODEID": "0", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **step, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert said[0][0].splitlines()[-1] == str(run)
    assert said[1] == ("", "")
    run_quietly(*words, "trainer.strategy=ddp", f"hydra.run.dir={alone}")
    for fold in ("fold_0", "fold_1"):
        assert furthest(weights(run / fold), weights(alone / fold)) <= 1e-5


def test_srun_has_to_start_a_process_for_each_device(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose(["trainer.devices=2", "trainer.accelerator=cpu"])
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "3")
    with pytest.raises(ConfigError, match=r"trainer\.devices=2, but srun has started 3 processes"):
        check_devices(config)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(ConfigError, match="SLURM_NTASKS_PER_NODE is not set; expected --nodes=1 --ntasks-per-node=2"):
        check_devices(config)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    for number, kind in (("1", "LightningEnvironment"), ("2", "SLURMEnvironment")):
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", number)
        check_devices(config)
        assert type(environment(Ranks(0, 2))).__name__ == kind


def test_what_trains_on_one_device_refuses_several(tmp_path: Path) -> None:
    config = compose(["trainer.devices=2", "trainer.accelerator=cpu"])
    with pytest.raises(ConfigError, match=r"^trainer\.devices=2 in jobs of a cluster"):
        begin_run(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="a hospital trains on one device"):
        refuse_alone(config)
    assert list(tmp_path.iterdir()) == []


def test_gradients_that_share_memory_are_clipped_once() -> None:
    model = torch.nn.ParameterList([torch.nn.Parameter(torch.ones(2)) for _ in range(2)])
    for weight in model:
        weight.grad = torch.full((2,), 3.0) if weight is model[0] else model[0].grad
    separate_gradients(model)
    for weight in model:
        assert weight.grad is not None
        weight.grad.mul_(0.5)
    assert [weight.grad.tolist() for weight in model if weight.grad is not None] == [[1.5, 1.5], [1.5, 1.5]]


def test_a_batch_is_divided_without_a_bag_left_out_or_read_twice() -> None:
    sizes = [5, 100, 7, 60, 50, 3, 8]
    order = TrainOrder(sizes, 3, weight=np.ones(7), seed=1)
    shares = [list(SharedOrder(order, sizes, number, 2)) for number in range(2)]
    for batch, *parts in zip(order, *shares, strict=True):
        draws = sorted((draw.seat, draw.bag) for part in parts for draw in part if draw.seat != IDLE)
        assert draws == list(enumerate(draw.bag for draw in batch))
        tiles = [sum(sizes[draw.bag] for draw in part if draw.seat != IDLE) for part in parts]
        assert max(tiles) <= max(sum(tiles) / 2, *(sizes[draw.bag] for draw in batch)) + max(min(tiles), 8)
    assert sum(draw.seat == IDLE for share in shares for batch in share for draw in batch) == 1, "the last batch"
    assert [[draw.bag for draw in bags] for bags in one_by_one(3, 1, 2)] == [[1]]
    assert [[draw.seat for draw in bags] for bags in one_by_one(1, 1, 2)] == [[IDLE]]
