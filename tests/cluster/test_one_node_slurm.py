"""Runs and predictions on a real SLURM of one node, see `one_node_slurm.sh`; needs root, slurm-wlm and munge."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mil.cluster.job_ledger import jobs_folder, read_status
from mil.cluster.job_states import JobState, job_states, overall
from tests.cluster.test_training_jobs import content
from tests.conftest import TINY, Mil, run_quietly

SCRIPT = Path(__file__).with_name("one_node_slurm.sh")
NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "srun")
OPTIONS = ("cluster=slurm", "cluster.partition=main", "cluster.time=00:30:00", "cluster.cpus=1")
LONG = (*TINY, "trainer.max_epochs=300", "callbacks=none", "baseline=false")
PATIENCE = 1200
"""Seconds, on a machine that does other things too."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, NEEDED)), reason="needs root, slurm-wlm and munge"
    ),
]


@pytest.fixture(scope="module")
def one_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start a SLURM of one node and stop it again; its configuration is in the environment meanwhile."""
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([SCRIPT, "start", folder], check=True, timeout=120)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield folder
    subprocess.run([SCRIPT, "stop", folder], check=True, timeout=60)


@pytest.fixture(scope="module")
def long_run(_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that one process trained without a stop."""
    return run_quietly("train", *LONG, f"hydra.run.dir={tmp_path_factory.mktemp('long')}/run")


def until(is_so: Callable[[], object], what: str) -> None:
    """Wait for something that happens in a job."""
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, f"not in {PATIENCE} s: {what}"
        time.sleep(0.3)


def results(run: Path) -> dict[str, bytes]:
    """Every file of a run but the logs of its epochs: a training that goes on begins a new one."""
    return {name: text for name, text in content(run).items() if "/log/" not in name}


def finished(result: Path) -> JobState:
    """Wait for the end of all jobs of a result and return the one that decides."""
    until(lambda: not any(each.is_active for each in job_states(jobs_folder(result))), "the end of all jobs")
    return overall(job_states(jobs_folder(result)))


def has_trained(run: Path, fold: int) -> bool:
    """Return whether a fold has saved a state and still trains."""
    return (run / f"fold_{fold}" / "state" / "last.ckpt").exists()


def job_of(run: Path, name: str) -> str:
    """Return the number of a job."""
    return next(each.job.id for each in job_states(run / "jobs") if each.job.name == name)


def test_submit_and_exit_then_the_last_job_writes_the_report(
    one_node: Path, crc_run: Path, mil: Mil, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = [sys.executable, "-m", "mil", "train", *TINY, f"hydra.run.dir={run}", *OPTIONS]
    submitted = subprocess.run(words, capture_output=True, text=True, check=True)
    assert submitted.stdout == f"{run}\n"
    assert finished(run).state == "done", mil("runs", run, "--logs").out
    assert content(run) == content(crc_run)


def test_a_job_that_is_queued_again_goes_on_to_the_same_weights(
    one_node: Path, long_run: Path, mil: Mil, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert mil("train", *LONG, f"hydra.run.dir={run}", *OPTIONS).code == 0
    until(lambda: has_trained(run, 0) and has_trained(run, 1), "a saved state")
    subprocess.run(["scontrol", "requeue", job_of(run, "fold_0")], check=True)  # as preemption does: SIGTERM
    subprocess.run(["scancel", "--signal=USR2", job_of(run, "fold_1")], check=True)  # as before the time limit
    until(lambda: all(_restarts(job_of(run, f"fold_{fold}")) for fold in (0, 1)), "both jobs queued again")
    assert finished(run).state == "done", mil("runs", run, "--logs").out
    assert results(run) == results(long_run)


def test_a_cancelled_run_goes_on_when_it_is_submitted_again(
    one_node: Path, long_run: Path, mil: Mil, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert mil("train", *LONG, f"hydra.run.dir={run}", *OPTIONS).code == 0
    until(lambda: has_trained(run, 0), "a saved state")
    assert mil("runs", run, "--cancel").code == 0
    assert finished(run).state == "cancelled"
    assert not (run / "predictions.csv").exists()
    assert mil("train", "--resume", run, *OPTIONS).code == 0
    assert finished(run).state == "done", mil("runs", run, "--logs").out
    assert results(run) == results(long_run)


def test_a_killed_job_is_named_by_the_last_one(one_node: Path, mil: Mil, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert mil("train", *LONG, f"hydra.run.dir={run}", *OPTIONS).code == 0
    until(lambda: has_trained(run, 0), "a saved state")
    status = read_status(run / "jobs", "fold_0")
    assert status is not None
    os.kill(status.process, signal.SIGKILL)
    decisive = finished(run)
    assert (decisive.state, decisive.job.name) == ("failed", "fold_0")
    assert decisive.reason == "killed without a word, most often because memory ran out (SLURM: FAILED)"
    last = read_status(run / "jobs", "evaluation")
    assert last is not None
    assert last.reason is not None
    assert last.reason.startswith("1 of 2 folds are not finished; fold_0 failed: killed without a word")


def test_srun_starts_a_process_for_each_device(one_node: Path, mil: Mil, tmp_path: Path) -> None:
    words = (*TINY, "trainer.devices=2", "trainer.accelerator=cpu")
    assert mil("train", *words, f"hydra.run.dir={tmp_path / 'alone'}").code == 0
    run = tmp_path / "run"
    step = ("srun", "--partition=main", "--nodes=1", "--ntasks-per-node=2", sys.executable, "-m", "mil", "train")
    done = subprocess.run([*step, *words, f"hydra.run.dir={run}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines().count(str(run)) == 1  # one process speaks
    assert results(run) == results(tmp_path / "alone")


def test_a_prediction_by_shards(one_node: Path, real_run: Path, hospital: Path, mil: Mil, tmp_path: Path) -> None:
    words = (str(real_run / "checkpoint"), "--features", str(hospital / "features"), "--out")
    assert mil("predict", *words, str(tmp_path / "together.csv")).code == 0
    assert mil("predict", *words, str(tmp_path / "out.csv"), *OPTIONS, "cluster.shards=3").code == 0
    assert finished(tmp_path / "out.csv").state == "done", mil("runs", str(tmp_path / "out.csv"), "--logs").out
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "together.csv").read_bytes()


def test_an_explanation_of_a_run_by_shards(one_node: Path, crc_run: Path, mil: Mil, tmp_path: Path) -> None:
    words = ("explain", crc_run, "--most", "3", "--measure", "2", "--format", "csv", "--out")
    assert mil(*words, tmp_path / "together").code == 0
    assert mil(*words, tmp_path / "out", *OPTIONS, "cluster.shards=2").code == 0
    assert finished(tmp_path / "out").state == "done", mil("runs", str(tmp_path / "out"), "--logs").out
    assert (tmp_path / "out" / "tiles.csv").read_bytes() == (tmp_path / "together" / "tiles.csv").read_bytes()
    assert (tmp_path / "out" / "explain.json").read_bytes() == (tmp_path / "together" / "explain.json").read_bytes()


def test_an_unknown_partition_is_one_line(one_node: Path, mil: Mil, tmp_path: Path) -> None:
    result = mil("train", *TINY, f"hydra.run.dir={tmp_path}/run", "cluster=slurm", "cluster.partition=none")
    assert result.code == 2
    assert result.err.splitlines()[-1] == (
        "mil: cluster=slurm: sbatch: invalid partition specified: none; Batch job submission failed: Invalid partition "
        "name specified (cluster.partition=none)"
    )
    assert not (tmp_path / "run").exists()


def _restarts(job: str) -> bool:
    """Return whether SLURM has started a job again."""
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout
    return "Restarts=0" not in shown
