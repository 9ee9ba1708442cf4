"""Results of shards in a folder of jobs: what belongs to which request, which shards are done, and their sum."""

import csv
import hashlib
import io
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from mil import files
from mil.cluster.cluster_options import GROUP
from mil.cluster.job_ledger import Ledger
from mil.cluster.job_states import job_states
from mil.errors import ConfigError, FeatureError, TrainingError
from mil.inference.bad_slides import SKIPPED

PARTS = "parts"
MERGE = "merge"
"""Name of the last job."""


def part(place: Path, number: int) -> Path:
    """Return where the result of a shard lies: a table, or a folder."""
    return place / PARTS / f"{number:05d}"


def digest_of(request: object, inputs: Iterable[Path | None], shards: int) -> str:
    """Return a digest of what was asked for, and of the content of the tables and manifests that it names."""
    contents = [files.sha256(path) for path in inputs if path is not None and path.is_file()]
    return hashlib.sha256(repr((request, shards, contents)).encode()).hexdigest()


def check_request(place: Path, request: str) -> None:
    """Check that a folder of jobs is that of this request, or of none.

    Raises:
        ConfigError: It holds shards of another.
    """
    ledger = Ledger.read(place)
    if ledger is not None and ledger.request != request and (place / PARTS).exists():
        raise ConfigError(
            f"{place}: holds shards of another request, or their tables or weights have changed since; remove the "
            "folder, or name another --out"
        )


def check_complete(place: Path, shards: int) -> None:
    """Check that every shard is done.

    Raises:
        TrainingError: One is not, with the reason.
    """
    absent = [number for number in range(shards) if not part(place, number).exists()]
    if not absent:
        return
    states = {each.job.name: each for each in job_states(place)}
    first = states.get(unit_name(absent[0]))
    reason = "" if first is None else f": {first.state} {first.reason}".rstrip()
    raise TrainingError(
        f"{len(absent)} of {shards} shards are not done; {unit_name(absent[0])}{reason}; the same command with "
        f"{GROUP}=... computes those"
    )


def unit_name(number: int) -> str:
    """Return the name of the job of a shard."""
    return f"shard_{number:05d}"


def remove_parts(place: Path) -> None:
    """Remove the results of shards once they are merged."""
    shutil.rmtree(place / PARTS, ignore_errors=True)


def merged_csv(texts: Sequence[str]) -> str:
    """Return tables of predictions as one table, to the byte as one process writes it.

    A column that a shard lacks, such as `skipped` where none of its slides was, is empty in its rows.

    Raises:
        FeatureError: No slide of any shard could be used.
    """
    tables = [list(csv.reader(io.StringIO(text))) for text in texts]
    columns = max((table[0] for table in tables), key=len)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    rows = [dict(zip(table[0], row, strict=True)) for table in tables for row in table[1:]]
    if SKIPPED in columns and all(row["tiles"] == "0" for row in rows):
        raise FeatureError(f"none of the slides of {len(rows)} rows can be used; the first, {rows[0][SKIPPED]}")
    writer.writerows([row.get(name, "") for name in columns] for row in rows)
    return out.getvalue()
