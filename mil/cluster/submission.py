"""Submit units of work by submitit: an array of jobs for all groups, and for each group the jobs that come after."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mil.cluster.cluster_options import GROUP, ClusterOptions
from mil.cluster.job_ledger import JobRecord, Ledger, forget_status, now
from mil.cluster.job_states import cancel_ids, refuse_active
from mil.cluster.job_work import Unit, Work
from mil.errors import ConfigError

if TYPE_CHECKING:
    from submitit import Job, LocalExecutor, SlurmExecutor

_REQUEUES = 1000
"""How often submitit queues a job again whose time is over; ours count for themselves, by how far they get."""


@dataclass(frozen=True)
class JobGroup:
    """The jobs of one result.

    Attributes:
        place: Their folder.
        result: The run folder, or the file or folder that is written last.
        stages: Jobs that need nothing of each other; those of a stage come after all of the stages before.
        last: The job that comes after all of them. Like every stage it comes whether those before succeeded or not.
        request: A digest of what was asked for.
    """

    place: Path
    result: Path
    stages: Sequence[Sequence[Unit]]
    last: Unit
    request: str | None = None

    @property
    def units(self) -> list[Unit]:
        """The jobs of all stages."""
        return [unit for stage in self.stages for unit in stage]

    def write_ledger(self, options: ClusterOptions, logs: Path, jobs: Sequence[JobRecord]) -> None:
        """Write which jobs were submitted; a local job of a later stage reads in it what to wait for."""
        ledger = Ledger(
            engine=options.engine,
            result=str(self.result),
            request=self.request,
            logs=str(logs),
            submitted=now(),
            jobs=tuple(jobs),
        )
        ledger.write(self.place)


def check_engine(options: ClusterOptions) -> None:
    """Check that jobs can be submitted from here.

    Raises:
        ConfigError: The extra is not installed, or there is no SLURM.
    """
    if find_spec("submitit") is None:
        raise ConfigError(f"{GROUP}={options.engine}: jobs need pip install 'mil-zoo[cluster]'")
    if options.engine == "slurm" and shutil.which("sbatch") is None:
        raise ConfigError(
            f"{GROUP}=slurm: no sbatch on PATH, expected a login node of SLURM; {GROUP}=local tries the same jobs here"
        )


def submit(groups: Sequence[JobGroup], options: ClusterOptions, logs: Path, title: str) -> None:
    """Submit the first stages of all groups as one array, then what comes after in each, and write what was submitted.

    Args:
        groups: What is to be done.
        options: Of the cluster.
        logs: Folder for submitit's files, on a file system that the nodes share.
        title: Name of the jobs in the queue.

    Raises:
        ConfigError: As `check_engine`; jobs of an earlier submission are not over; or the scheduler refuses, after
            which nothing is left in its queue.
    """
    check_engine(options)
    for group in groups:
        refuse_active(group.place)
    for group in groups:
        for unit in (*group.units, group.last):
            forget_status(group.place, unit.name)
    submitted = list[str]()
    try:
        work = [Work(group.place, unit, options.cpus) for group in groups for unit in group.stages[0]]
        submitted += _submit(work, options, logs, title)
        ids = iter(tuple(submitted))
        for group in groups:
            jobs = [JobRecord(name=unit.name, id=next(ids)) for unit in group.stages[0]]
            for at, stage in enumerate((*group.stages[1:], (group.last,)), 2):
                group.write_ledger(options, logs, jobs)
                work = [Work(group.place, unit, options.cpus) for unit in stage]
                name = f"{title}-last" if at > len(group.stages) else f"{title}-{at}"
                later = _submit(work, options, logs, name, [job.id for job in jobs])
                submitted += later
                jobs += [JobRecord(name=unit.name, id=job) for unit, job in zip(stage, later, strict=True)]
            group.write_ledger(options, logs, jobs)
    except BaseException:
        if submitted and options.engine == "slurm":
            cancel_ids(submitted)
        raise


def _submit(
    work: Sequence[Work], options: ClusterOptions, logs: Path, title: str, after: Sequence[str] = ()
) -> list[str]:
    """Submit jobs, as an array where they are several, and return their numbers.

    Raises:
        ConfigError: The scheduler refuses; its own words in one line.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    if not work:
        return []
    logs.mkdir(parents=True, exist_ok=True)
    try:
        with _detached():
            jobs: list[Job[None]] = []
            executor = _slurm(options, logs, title, after) if options.engine == "slurm" else _local(options, logs)
            with executor.batch():
                jobs += [executor.submit(each) for each in work]
    except (FailedJobError, FailedSubmissionError) as error:
        lines = [line.removeprefix("sbatch: error: ").strip() for line in str(error).splitlines() if "error" in line]
        reason = "; ".join(dict.fromkeys(lines)) or " ".join(str(error).split())
        given = f" ({GROUP}.partition={options.partition})" if options.partition else ""
        raise ConfigError(f"{GROUP}=slurm: sbatch: {reason}{given}") from None
    for job in jobs:
        process = getattr(job, "_process", None)
        if process is not None:  # a local job goes on by itself: Python would warn of a child that nobody waited for
            process.returncode = 0
    return [job.job_id for job in jobs]


def _slurm(options: ClusterOptions, logs: Path, title: str, after: Sequence[str]) -> "SlurmExecutor":
    from submitit import SlurmExecutor

    executor = SlurmExecutor(logs, max_num_timeout=_REQUEUES)
    given: dict[str, object] = {
        "partition": options.partition,
        "cpus_per_task": options.cpus,
        "mem": None if options.memory is None else f"{int(options.memory * 1024)}M",
        "gpus_per_node": options.gpus or None,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        "dependency": f"afterany:{':'.join(after)}" if after else None,
        # since SLURM 22.05 a step does not take the number of cores of its job
        "srun_args": None if options.cpus is None else ["--cpus-per-task", str(options.cpus)],
        "setup": list(options.setup) or None,
    }
    executor.update_parameters(
        job_name=title,
        time=options.minutes,
        signal_delay_s=options.warning,
        array_parallelism=options.most,
        additional_parameters={"requeue": True, **options.sbatch},
        **{name: value for name, value in given.items() if value is not None},
    )
    return executor


def _local(options: ClusterOptions, logs: Path) -> "LocalExecutor":
    from submitit import LocalExecutor

    executor = LocalExecutor(logs, max_num_timeout=_REQUEUES)
    executor.update_parameters(
        timeout_min=options.minutes,
        signal_delay_s=options.warning,
        gpus_per_node=options.gpus,
        setup=list(options.setup),
    )
    return executor


@contextmanager
def _detached() -> Iterator[None]:
    """Let local jobs inherit no terminal and no pipe, for which a reader would wait; and keep sbatch's lines to us."""
    earlier = [os.dup(number) for number in range(3)]
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        for number in range(3):
            os.dup2(nothing, number)
        yield
    finally:
        for number, descriptor in enumerate(earlier):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(nothing)
