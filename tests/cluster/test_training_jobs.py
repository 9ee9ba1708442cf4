"""Runs as jobs of a cluster: the same files as one process writes, what is submitted, and how jobs stand."""

import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from mil.cluster import job_work
from mil.cluster.job_ledger import JobRecord, Ledger, now, read_status, write_status
from mil.cluster.job_states import job_states, overall
from mil.cluster.job_work import Unit, Work
from mil.cluster.training_jobs import EvaluationUnit
from mil.errors import TrainingError
from mil.study.compose import read_config
from tests.cluster.fake_scheduler import FakeScheduler
from tests.conftest import TINY, Mil

SLURM = ("cluster=slurm", "cluster.time=00:10:00")
OF_THE_MOMENT = ("log.txt", "looks.json", ".lock")
"""Files of a run that hold the time."""


def content(run: Path) -> dict[str, bytes]:
    """Every file of a run but those of its jobs and of the moment."""
    paths = (path for path in run.rglob("*") if path.is_file() and path.relative_to(run).parts[0] != "jobs")
    return {str(path.relative_to(run)): path.read_bytes() for path in paths if path.name not in OF_THE_MOMENT}


def ledger_of(place: Path, *ids: str, engine: str = "slurm") -> Path:
    """Write a list of jobs: folds, and last the evaluation."""
    names = [*(f"fold_{number}" for number in range(len(ids) - 1)), "evaluation"]
    jobs = tuple(JobRecord(name=name, id=job) for name, job in zip(names, ids, strict=True))
    (place / "logs").mkdir(parents=True)
    values = {"engine": engine, "result": str(place.parent), "logs": str(place / "logs"), "submitted": now()}
    Ledger.model_validate(values | {"jobs": jobs}).write(place)
    return place


def test_local_jobs_write_the_files_of_one_process(crc_run: Path, tmp_path: Path, mil: Mil) -> None:
    run = tmp_path / "run"
    started = time.monotonic()
    submitted = mil("train", *TINY, f"hydra.run.dir={run}", "cluster=local")
    assert submitted.code == 0, submitted.err
    assert submitted.out.splitlines() == [str(run)]
    assert "submitted 2 folds of 1 runs to local" in submitted.err
    busy = mil("train", "--resume", run)
    assert (busy.code, "mil runs" in busy.err) == (2, True), busy.err
    while overall(job_states(run / "jobs")).is_active and time.monotonic() < started + 900:
        time.sleep(0.2)
    shown = mil("runs", run)
    assert shown.out.splitlines()[-2:] == ["done", str(run)], mil("runs", run, "--logs").out
    assert [line.split()[0] for line in shown.out.splitlines()[:3]] == ["fold_0", "fold_1", "evaluation"]
    assert content(run) == content(crc_run)
    assert "epoch 1 of" in mil("runs", run, "--logs").out


def test_an_array_of_all_folds_and_a_last_job_for_each_run(slurm: FakeScheduler, tmp_path: Path, mil: Mil) -> None:
    words = ["-m", *TINY, "seed=0,1", f"hydra.sweep.dir={tmp_path}/sweep", *SLURM, "cluster.cpus=2"]
    submitted = mil("train", *words, "cluster.partition=gpu", "cluster.memory=8", "cluster.gpus=1")
    assert submitted.code == 0, submitted.err
    runs = [tmp_path / "sweep" / number for number in ("0", "1")]
    assert submitted.out.splitlines() == list(map(str, runs))
    assert [read_config(run / "config.yaml").seed for run in runs] == [0, 1]
    scripts = slurm.scripts(tmp_path / "sweep" / "jobs" / "logs")
    assert sorted(scripts) == ["4711", "4712", "4713"]
    for option in ("array=0-3%4", "partition=gpu", "time=10", "cpus-per-task=2", "mem=8192M", "gpus-per-node=1"):
        assert f"#SBATCH --{option}\n" in scripts["4711"]
    assert "#SBATCH --requeue\n#SBATCH --signal=USR2@120\n" in scripts["4711"]
    assert "--cpus-per-task 2" in scripts["4711"].split("\nsrun ")[1]
    assert "#SBATCH --dependency=afterany:4711_0:4711_1\n" in scripts["4712"]
    assert "#SBATCH --dependency=afterany:4711_2:4711_3\n" in scripts["4713"]
    slurm.answer("squeue", "4711_0|RUNNING|None", "4711_1|PENDING|Priority", "4712|PENDING|Dependency")
    assert [each.state for each in job_states(runs[0] / "jobs")] == ["running", "queued", "queued"]
    again = mil("train", "--resume", runs[0], *SLURM)
    assert again.code == 2
    assert again.err.startswith(f"mil: {runs[0]}: its job 4711_0 (fold_0) is running; wait for it, or mil runs ")
    assert mil("runs", runs[0], "--cancel").out.splitlines()[0] == "cancelled 4711_0 (fold_0)"
    assert slurm.calls("scancel") == ["4711_0 4711_1 4712"]


@pytest.mark.parametrize("refused", [4711, 4712])
def test_a_refused_submission_leaves_nothing(refused: int, slurm: FakeScheduler, tmp_path: Path, mil: Mil) -> None:
    slurm.refuse_from(refused)
    result = mil("train", *TINY, f"hydra.run.dir={tmp_path}/runs/run", *SLURM, "cluster.partition=gpu")
    assert result.code == 2
    assert result.err.splitlines()[-1] == (
        "mil: cluster=slurm: sbatch: invalid partition specified: gpu; Batch job submission failed: Invalid partition "
        "name specified (cluster.partition=gpu)"
    )
    assert not (tmp_path / "runs").exists()
    assert slurm.calls("scancel") == ([] if refused == 4711 else ["4711_0 4711_1"])


def test_what_is_missing_is_named_before_anything_is_read(
    tmp_path: Path, mil: Mil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = mil("train", "data.cohort=none.csv", "data.features=none", "cluster=slurm")
    expected = "no sbatch on PATH, expected a login node of SLURM; cluster=local tries the same jobs here"
    assert (result.code, result.err) == (2, f"mil: cluster=slurm: {expected}\n")
    monkeypatch.setattr("mil.cluster.submission.find_spec", lambda _: None)
    result = mil("train", "cluster=slurm")
    assert (result.code, result.err) == (2, "mil: cluster=slurm: jobs need pip install 'mil-zoo[cluster]'\n")


def test_parallel_folds_and_other_launchers_are_refused(slurm: FakeScheduler, mil: Mil, tmp_path: Path) -> None:
    result = mil("train", *TINY, f"hydra.run.dir={tmp_path}/run", "parallel=2", *SLURM)
    assert result.err == "mil: parallel=2 with cluster: each fold is a job; cluster.most limits them\n"
    result = mil("train", "-m", "hydra/launcher=joblib", "seed=0,1", *SLURM)
    assert result.code == 2
    assert "hydra/launcher=joblib with cluster=slurm" in result.err


def test_unfinished_folds_are_submitted_again(crc_run: Path, slurm: FakeScheduler, tmp_path: Path, mil: Mil) -> None:
    run = shutil.copytree(crc_run, tmp_path / "run")
    for name in ("predictions.csv", "report.json", "fold_1/predictions.csv"):
        (run / name).unlink()
    shutil.rmtree(run / "fold_1" / "checkpoint")
    resumed = mil("train", "--resume", run, *SLURM)
    assert resumed.code == 0, resumed.err
    ledger = Ledger.read(run / "jobs")
    assert ledger is not None
    assert [(job.name, job.id) for job in ledger.jobs] == [("fold_1", "4711"), ("evaluation", "4712")]
    assert "afterany:4711\n" in slurm.scripts(run / "jobs" / "logs")["4712"]
    assert mil("train", "--resume", run, "seed=1", *SLURM).code == 2
    assert (run / "config.yaml").exists(), "a refused submission removed a run that was there before"


@pytest.mark.parametrize(
    ("stage", "answer", "expected"),
    [
        (None, "7_0|PENDING|Resources", ("queued", "Resources")),
        ("stopped", "7_0|PENDING|BeginTime", ("queued", "BeginTime")),
        ("running", "7_0|RUNNING|None", ("running", "on ")),
        ("done", "", ("done", "")),
        ("failed", "7_0|FAILED|NonZeroExitCode", ("failed", "slide S1 is broken")),
        ("running", "7_0|FAILED|NonZeroExitCode", ("failed", "killed without a word")),
        ("running", "7_0|OUT_OF_MEMORY|OutOfMemory", ("failed", "killed: more memory than cluster.memory")),
        ("running", "7_0|TIMEOUT|TimeLimit", ("failed", "killed at the time limit, cluster.time (SLURM: TIMEOUT)")),
        ("stopped", "7_0|CANCELLED|None", ("cancelled", "")),
        (None, "7_0|CANCELLED by 0|None", ("cancelled", "")),
        (None, "", ("failed", "never began, and the scheduler does not know it any more")),
    ],
)
def test_the_state_of_a_job(
    stage: str | None, answer: str, expected: tuple[str, str], slurm: FakeScheduler, tmp_path: Path
) -> None:
    place = ledger_of(tmp_path / "run" / "jobs", "7_0", "8")
    if stage is not None:
        reason = "slide S1 is broken" if stage == "failed" else None
        write_status(place, "fold_0", "7_0", stage, reason)  # type: ignore[arg-type]
    slurm.answer("squeue", answer)
    state = job_states(place)[0]
    assert state.state == expected[0]
    assert state.reason.startswith(expected[1])
    if not answer:
        assert slurm.calls("sacct")


def test_the_result_stands_as_the_job_that_decides(slurm: FakeScheduler, tmp_path: Path, mil: Mil) -> None:
    run = tmp_path / "run"
    ledger_of(run / "jobs", "7_0", "7_1", "8")
    (run / "config.yaml").touch()
    write_status(run / "jobs", "fold_0", "7_0", "failed", "the loss is not finite")
    slurm.answer("squeue", "7_1|RUNNING|None", "8|PENDING|Dependency")
    assert mil("runs", run).out.splitlines()[-2] == "running"
    slurm.answer("squeue", "7_1|CANCELLED|None", "8|CANCELLED|None")
    assert mil("runs", run).out.splitlines()[-2] == "failed the loss is not finite"
    nothing = mil("runs", run, "--cancel")
    assert nothing.err == f"mil: {run}: none of its 3 jobs is queued or running\n"


def test_without_the_scheduler_a_job_stands_as_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = ledger_of(tmp_path / "run" / "jobs", "7_0", "8")
    write_status(place, "fold_0", "7_0", "running")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [(each.state, each.reason) for each in job_states(place)] == [
        ("running", "the scheduler cannot be asked from here"),
        ("queued", "the scheduler cannot be asked from here"),
    ]


def test_the_last_job_names_the_fold_that_failed_and_trains_none(
    crc_run: Path, slurm: FakeScheduler, tmp_path: Path
) -> None:
    run = shutil.copytree(crc_run, tmp_path / "run")
    (run / "predictions.csv").unlink()
    (run / "fold_1" / "predictions.csv").unlink()
    ledger_of(run / "jobs", "7_0", "7_1", "8")
    write_status(run / "jobs", "fold_0", "7_0", "done")
    write_status(run / "jobs", "fold_1", "7_1", "running")
    slurm.answer("squeue", "7_1|NODE_FAIL|NodeDown")
    unit = EvaluationUnit(read_config(run / "config.yaml").plain(), run, ("fold_0", "fold_1"))
    with pytest.raises(TrainingError, match="1 of 2 folds are not finished; fold_1 failed: killed: its node failed"):
        unit.run()
    assert not (run / "predictions.csv").exists()


@dataclass(frozen=True)
class Signalled:
    """A unit that gets a signal while it works."""

    number: int
    resumable: bool
    name: str = "fold_0"
    waits_for: tuple[str, ...] = ()

    def run(self) -> None:
        """Get the signal."""
        os.kill(os.getpid(), self.number)
        time.sleep(10)


@pytest.mark.parametrize(
    ("number", "resumable", "stage", "requeued"),
    [
        (signal.SIGUSR2, True, "stopped", ["7_0"]),
        (signal.SIGUSR2, False, "failed", []),
        (signal.SIGTERM, True, "stopped", []),
    ],
)
def test_a_job_whose_time_is_over_is_queued_again_if_it_saves_its_state(
    number: int,
    resumable: bool,
    stage: str,
    requeued: list[str],
    slurm: FakeScheduler,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unit: Unit = Signalled(number, resumable)
    monkeypatch.setattr(job_work, "_job", lambda: "7_0")
    monkeypatch.setattr(job_work, "_log", lambda: None)
    earlier = signal.getsignal(signal.SIGUSR2)
    try:
        with pytest.raises(SystemExit):
            Work(tmp_path, unit, None)()
    finally:
        signal.signal(signal.SIGUSR2, earlier)
    status = read_status(tmp_path, "fold_0")
    assert status is not None
    assert status.stage == stage
    assert slurm.calls("scontrol") == [f"requeue {job}" for job in requeued]


def test_runs_are_listed_with_their_state(
    crc_run: Path, slurm: FakeScheduler, tmp_path: Path, mil: Mil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert mil("runs").out == "no runs below runs/ or multirun/\n"
    done, stopped = tmp_path / "runs/msi/a", tmp_path / "multirun/msi/b/0"
    shutil.copytree(crc_run, done)
    shutil.copytree(crc_run, stopped)
    (stopped / "report.json").unlink()
    assert mil("runs").out.splitlines() == ["stopped    multirun/msi/b/0", "done       runs/msi/a"]
    ledger_of(stopped / "jobs", "7_0", "8")
    slurm.answer("squeue", "7_0|PENDING|Priority")
    assert mil("runs").out.splitlines()[0] == "queued     multirun/msi/b/0"
    assert mil("runs", "runs/none").code == 2
    assert mil("runs", done).out.splitlines() == ["done", str(done)]


def test_a_fold_of_a_run_that_one_process_began_ends_it_the_same(crc_run: Path, tmp_path: Path) -> None:
    """Also without jobs: `fit_fold` for each fold, then the run."""
    from mil.runs.fit_run import begin_run, fit_fold, fit_run

    config = read_config(crc_run / "config.yaml")
    begun = begin_run(config, tmp_path / "run")
    assert begun.unfinished == (0, 1)
    fit_fold(config, begun.folder, 1)
    assert begin_run(config, begun.folder).unfinished == (0,)
    fit_fold(config, begun.folder, 0)
    fit_run(config, begun.folder)
    assert content(begun.folder) == content(crc_run)


def test_a_run_that_was_begun_here_alone_is_removed(tmp_path: Path, crc_run: Path) -> None:
    from mil.runs.fit_run import begin_run, discard_run

    config = read_config(crc_run / "config.yaml")
    discard_run(begin_run(config, tmp_path / "runs" / "run"))
    assert not (tmp_path / "runs").exists()
    again = begin_run(read_config(crc_run / "config.yaml"), shutil.copytree(crc_run, tmp_path / "run"))
    discard_run(again)
    assert (again.folder / "report.json").exists()
