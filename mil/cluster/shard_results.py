"""Results of parts in a folder of jobs: what belongs to which request, and which parts are done."""

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from mil import files
from mil.cluster.cluster_options import GROUP
from mil.cluster.job_ledger import Ledger
from mil.cluster.job_states import job_states
from mil.errors import ConfigError, TrainingError

PARTS = "parts"


def unit_name(step: str, number: int) -> str:
    """Return the name of the job that computes a part of a step."""
    return f"{step}_{number:05d}"


def part(place: Path, name: str) -> Path:
    """Return where the result of a job lies: a table, or a folder."""
    return place / PARTS / name


def parts_of(place: Path, step: str, shards: int) -> list[Path]:
    """Return where the results of all parts of a step lie, in their order."""
    return [part(place, unit_name(step, number)) for number in range(shards)]


def digest_of(request: object, inputs: Iterable[Path]) -> str:
    """Return a digest of what was asked for, and of the content of the tables and manifests that it names."""
    contents = [files.sha256(path) for path in inputs if path.is_file()]
    return hashlib.sha256(repr((request, contents)).encode()).hexdigest()


def check_request(place: Path, request: str) -> None:
    """Check that a folder of jobs is that of this request, or of none.

    Raises:
        ConfigError: It holds parts of another.
    """
    ledger = Ledger.read(place)
    if ledger is not None and ledger.request != request and (place / PARTS).exists():
        raise ConfigError(
            f"{place}: holds shards of another request, or their tables or weights have changed since; remove the "
            "folder, or name another --out"
        )


def check_complete(place: Path, step: str, shards: int) -> None:
    """Check that every part of a step is done.

    Raises:
        TrainingError: One is not, with the reason.
    """
    absent = [path.name for path in parts_of(place, step, shards) if not path.exists()]
    if not absent:
        return
    states = {each.job.name: each for each in job_states(place)}
    first = states.get(absent[0])
    reason = "" if first is None else f": {first.state} {first.reason}".rstrip()
    raise TrainingError(
        f"{len(absent)} of {shards} shards are not done; {absent[0]}{reason}; the same command with {GROUP}=... "
        "computes those"
    )


def remove_parts(place: Path) -> None:
    """Remove the results of parts once they are joined."""
    shutil.rmtree(place / PARTS, ignore_errors=True)
