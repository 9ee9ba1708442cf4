"""What runs within a job: a unit of work, its signals, and what it writes of how it stands.

SLURM sends SIGUSR2 some time before the time limit, and SIGTERM before a job is preempted, queued again or cancelled. A
unit that saves its state asks to be queued again after the first; after the second SLURM itself decides.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from mil import interruption
from mil.cluster.job_ledger import write_status
from mil.cluster.job_states import is_over
from mil.errors import MilError, printable
from mil.interruption import Interrupted
from mil.memory import described, is_out_of_memory

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

logger = logging.getLogger("mil")
TIME_LIMIT = signal.SIGUSR2
"""What submitit has SLURM send before the time limit; its local executor sends the same."""
_LOCAL_REQUEUE = 144
"""Exit code after which submitit's local executor starts a job again."""
_POLLED = 0.2
"""Seconds between two looks at the jobs that a local one waits for."""


class Unit(Protocol):
    """Work of one job; sent to it by pickle, so a class at the top of a module with plain values.

    Attributes:
        name: What the job does, and the name of its files.
        resumable: Whether it saves its state when it is stopped, and goes on from there.
        waits_for: Jobs that must be over before; SLURM sees to it by dependencies, a local job itself.
    """

    @property
    def name(self) -> str: ...
    @property
    def resumable(self) -> bool: ...
    @property
    def waits_for(self) -> tuple[str, ...]: ...

    def run(self) -> None:
        """Do the work.

        Raises:
            MilError: It cannot be done.
        """


@dataclass(frozen=True)
class Work:
    """A unit as submitit calls it.

    Attributes:
        place: The folder of jobs.
        unit: The work.
        threads: Of torch; None leaves them as the scheduler's cores give.
    """

    place: Path
    unit: Unit
    threads: int | None

    def __call__(self) -> None:
        """Run the unit and write how it stands; an error becomes one line and exit code 2."""
        job = _job()
        _log()
        signal.signal(TIME_LIMIT, _as_warning)
        try:
            with interruption.listening():
                self._wait()
                write_status(self.place, self.unit.name, job, "running")
                if self.threads is not None:
                    import torch

                    torch.set_num_threads(self.threads)
                self.unit.run()
        except Interrupted as stop:
            self._stopped(stop, job)
        except Exception as error:
            reason = _reason(error)
            write_status(self.place, self.unit.name, job, "failed", reason)
            logger.error("%s", reason, exc_info=not isinstance(error, MilError))
            sys.exit(2)
        write_status(self.place, self.unit.name, job, "done")

    def checkpoint(self) -> "DelayedSubmission":
        """Return what submitit queues again where the time is over before the work has begun."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(self)

    def _wait(self) -> None:
        """Let a local job wait for others: there is no queue that does."""
        while os.environ.get("SUBMITIT_EXECUTOR") == "local" and not is_over(self.place, self.unit.waits_for):
            time.sleep(_POLLED)

    def _stopped(self, stop: Interrupted, job: str) -> None:
        """Queue a job again whose time is over, or end it."""
        if stop.signal != signal.SIGUSR1:
            write_status(self.place, self.unit.name, job, "stopped", f"stopped by {stop.signal.name}")
        elif self.unit.resumable:
            write_status(self.place, self.unit.name, job, "stopped", "its time is over; it is queued again")
            if os.environ.get("SUBMITIT_EXECUTOR") == "local":
                sys.exit(_LOCAL_REQUEUE)
            subprocess.run(["scontrol", "requeue", job], check=True, timeout=60)
        else:
            write_status(self.place, self.unit.name, job, "failed", "not finished within cluster.time")
        sys.exit(stop.exit_code)


def _as_warning(number: int, frame: FrameType | None) -> None:
    """Pass the signal of the time limit on as the one that is listened to."""
    os.kill(os.getpid(), signal.SIGUSR1)


def _job() -> str:
    """Return the scheduler's number of this job."""
    from submitit import JobEnvironment

    return JobEnvironment().job_id


def _log() -> None:
    """Write the package's log to the job's stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _reason(error: Exception) -> str:
    if is_out_of_memory(error):
        return printable(f"{described(error)}; cluster.memory gives a job more")
    if isinstance(error, MilError):
        return printable(str(error))
    return printable(f"{type(error).__name__}: {' '.join(str(error).split())}")
