"""How jobs stand: what the scheduler says, what they wrote themselves, and what follows from both."""

import os
import shutil
import signal
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mil.cluster.job_ledger import JobRecord, JobStatus, Ledger, read_status
from mil.errors import ConfigError

State = Literal["queued", "running", "done", "failed", "cancelled"]
_SECONDS = 60
"""How long an answer of the scheduler may take."""
_QUEUED = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "SUSPENDED")
_RUNNING = ("RUNNING", "COMPLETING", "CONFIGURING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED")
_KILLED = {
    "OUT_OF_MEMORY": "killed: more memory than cluster.memory",
    "TIMEOUT": "killed at the time limit, cluster.time",
    "NODE_FAIL": "killed: its node failed",
    "DEADLINE": "killed at the deadline of the queue",
    "PREEMPTED": "preempted and not queued again",
}
_SILENT = "killed without a word, most often because memory ran out"


@dataclass(frozen=True)
class JobState:
    """How one job stands.

    Attributes:
        job: The job.
        state: In one word.
        reason: Why it waits or failed; empty where there is nothing to say.
    """

    job: JobRecord
    state: State
    reason: str = ""

    @property
    def is_active(self) -> bool:
        """Whether the scheduler still has something to do with it."""
        return self.state in ("queued", "running")


def job_states(place: Path) -> list[JobState]:
    """Return how the jobs in a folder of jobs stand, in the order of their submission.

    Raises:
        ConfigError: The list of jobs is damaged, or there is none.
    """
    ledger = _ledger(place)
    answers = _answers(ledger)
    return [_state(job, read_status(place, job.name), answers) for job in ledger.jobs]


def overall(states: Sequence[JobState]) -> JobState:
    """Return how the work as a whole stands: the job that decides it."""
    last = states[-1]
    if last.state == "done":
        return last
    for state in ("running", "queued"):
        if (first := next((each for each in states if each.state == state), None)) is not None:
            return first
    return next((each for each in states if each.state == "failed"), last)


def is_over(place: Path, names: Collection[str]) -> bool:
    """Return whether none of the named jobs is queued or running."""
    if not names:
        return True
    return not any(each.is_active for each in job_states(place) if each.job.name in names)


def refuse_active(place: Path) -> None:
    """Check that no earlier job of a result is still to come.

    Raises:
        ConfigError: One is queued or running.
    """
    ledger = Ledger.read(place)
    if ledger is None:
        return
    active = [each for each in job_states(place) if each.is_active]
    if active:
        raise ConfigError(
            f"{ledger.result}: its job {active[0].job.id} ({active[0].job.name}) is {active[0].state}; wait for it, or "
            f"mil runs {ledger.result} --cancel"
        )


def cancel(place: Path) -> list[JobRecord]:
    """Cancel the jobs that are queued or running and return them.

    Raises:
        ConfigError: There are none, or the scheduler refuses.
    """
    ledger = _ledger(place)
    active = [each.job for each in job_states(place) if each.is_active]
    if not active:
        raise ConfigError(f"{ledger.result}: none of its {len(ledger.jobs)} jobs is queued or running")
    if ledger.engine == "local":
        for job in reversed(active):  # the one that waits for the others first
            os.kill(int(job.id), signal.SIGTERM)
    else:
        cancel_ids([job.id for job in active])
    return active


def cancel_ids(jobs: Sequence[str]) -> None:
    """Cancel jobs of SLURM.

    Raises:
        ConfigError: It refuses.
    """
    answer = _ask("scancel", *jobs)
    if answer is None or answer.returncode:
        reason = "no scancel on PATH" if answer is None else " ".join(answer.stderr.split())
        raise ConfigError(f"jobs {', '.join(jobs)} cannot be cancelled: {reason}")


def _ledger(place: Path) -> Ledger:
    ledger = Ledger.read(place)
    if ledger is None:
        raise ConfigError(f"{place}: holds no list of jobs, expected a result of cluster=...")
    return ledger


def _state(job: JobRecord, status: JobStatus | None, answers: Mapping[str, str] | None) -> JobState:
    """Return how a job stands from its own words and the scheduler's; these are None where it cannot be asked."""
    if status is not None and status.stage in ("done", "failed"):
        return JobState(job, "done" if status.stage == "done" else "failed", status.reason or "")
    if answers is None:
        stage: State = "running" if status is not None and status.stage == "running" else "queued"
        return JobState(job, stage, "the scheduler cannot be asked from here")
    word, _, why = answers.get(job.id, "").partition("|")
    word = word.split(" ")[0]
    if word in _QUEUED:
        return JobState(job, "queued", why if why not in ("None", "") else "")
    if word in _RUNNING:
        return JobState(job, "running", f"on {status.host}" if status is not None else "")
    if word == "CANCELLED" or (status is not None and status.stage == "stopped"):
        return JobState(job, "cancelled", "" if status is None else status.reason or "")
    if status is None and not word:
        return JobState(job, "failed", "never began, and the scheduler does not know it any more")
    return JobState(job, "failed", _KILLED.get(word, _SILENT) + (f" (SLURM: {word})" if word else ""))


def _answers(ledger: Ledger) -> dict[str, str] | None:
    """Return the scheduler's word and reason, `PENDING|Priority`, for each job that it knows."""
    jobs = [job.id for job in ledger.jobs]
    if ledger.engine == "local":
        return {job: "RUNNING|" for job in jobs if _is_alive(int(job))}
    numbers = ",".join(sorted({job.partition("_")[0] for job in jobs}))
    answer = _ask("squeue", "--noheader", "--array", "--states=all", f"--jobs={numbers}", "--format=%i|%T|%r")
    if answer is None or (answer.returncode and "Invalid job id" not in answer.stderr):
        return None
    known_jobs = dict(_pairs(answer.stdout.splitlines()))
    if set(jobs) - set(known_jobs):  # older than the controller remembers
        answer = _ask("sacct", "--noheader", "-P", "-X", "--format=JobID,State,ExitCode", f"--jobs={numbers}")
        past = {} if answer is None or answer.returncode else dict(_pairs(answer.stdout.splitlines()))
        known_jobs = past | known_jobs
    return known_jobs


def _pairs(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        job, bar, rest = line.strip().partition("|")
        if bar:
            yield job, rest


def _ask(program: str, *words: str) -> "subprocess.CompletedProcess[str] | None":
    """Ask the scheduler; None where its programs are not installed or do not answer."""
    if shutil.which(program) is None:
        return None
    try:
        return subprocess.run([program, *words], capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _is_alive(process: int) -> bool:
    """Return whether submitit's process of a local job runs; its number may have gone to another one since."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" and b"submitit" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False
