"""What is known of submitted jobs: a list of them, written when they are submitted, and how each stands, by itself.

Both lie in the folder `jobs` of a run, and in `OUT.jobs` of a prediction or explanation.
"""

import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from mil import files
from mil.errors import ConfigError

FOLDER, LEDGER, LOGS = "jobs", "jobs.json", "logs"
_STATUS = "status"
Stage = Literal["running", "done", "stopped", "failed"]
"""What a job says of itself; `stopped` by a signal, with its state saved, until it is started again."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class JobRecord(_Record):
    """A submitted job.

    Attributes:
        name: What it does, such as `fold_0`, and the name of its files.
        id: The scheduler's number, such as `4711_0`; of a local job that of its process.
    """

    name: str
    id: str


class Ledger(_Record):
    """The jobs of a run, a prediction or an explanation.

    Attributes:
        engine: `slurm` or `local`.
        result: The run folder, or the file or folder that is written last.
        request: A digest of what was asked for; None for a run, whose folder holds its options.
        logs: Folder of what the jobs print.
        submitted: When, in UTC.
        jobs: The jobs, the one that joins the others last.
    """

    engine: Literal["slurm", "local"]
    result: str
    request: str | None = None
    logs: str
    submitted: str
    jobs: tuple[JobRecord, ...] = ()

    @classmethod
    def read(cls, place: Path) -> Self | None:
        """Read the ledger in a folder of jobs; None where there is none.

        Raises:
            ConfigError: It is damaged.
        """
        path = place / LEDGER
        if not path.is_file():
            return None
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ConfigError(f"{path}: {error.errors()[0]['msg']}, expected the list of submitted jobs") from None

    def write(self, place: Path) -> None:
        """Write the ledger into a folder of jobs."""
        files.write(place / LEDGER, self.model_dump_json(indent=2) + "\n")


class JobStatus(_Record):
    """How a job stands, as it wrote itself.

    Attributes:
        stage: `running` until the job writes another, also if it was killed in the meantime.
        since: When, in UTC.
        job: Its number when it wrote this.
        host: Where it runs or ran.
        process: Its process there.
        reason: Why it failed, in one line.
    """

    stage: Stage
    since: str
    job: str
    host: str
    process: int
    reason: str | None = None


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_status(place: Path, name: str) -> JobStatus | None:
    """Return how a job stands; None where it has not begun."""
    path = place / _STATUS / f"{name}.json"
    try:
        return JobStatus.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_status(place: Path, name: str, job: str, stage: Stage, reason: str | None = None) -> None:
    """Write how a job stands."""
    status = JobStatus(stage=stage, since=now(), job=job, host=socket.gethostname(), process=os.getpid(), reason=reason)
    files.write(place / _STATUS / f"{name}.json", status.model_dump_json(indent=2) + "\n")


def forget_status(place: Path, name: str) -> None:
    """Remove what an earlier job of this name wrote."""
    (place / _STATUS / f"{name}.json").unlink(missing_ok=True)


def jobs_folder(result: Path) -> Path:
    """Return the folder of jobs of a result: `RUN/jobs` of a run folder, `OUT.jobs` of everything else."""
    return result / FOLDER if (result / "config.yaml").is_file() else result.with_name(f"{result.name}.jobs")
