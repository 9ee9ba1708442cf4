"""Work on patients as jobs: one for each part of the patients, step after step, and a last one that joins the parts.

`mil predict` and `mil explain` say what is computed for a part and how parts are joined; everything else is here: which
parts are still to come, a part that appears only when it is complete, and a result that is written once.
"""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mil.cluster import shard_results
from mil.cluster.cluster_options import ClusterOptions
from mil.cluster.job_ledger import LOGS, jobs_folder
from mil.cluster.submission import JobGroup, submit
from mil.inference.cohort_shards import Shard

logger = logging.getLogger("mil")
SHARD = "shard"
"""Name of the step whose parts become the result."""
MERGE = "merge"
"""Name of the last job."""


class Step(Protocol):
    """What is computed for each patient separately; sent to jobs by pickle, so a class with plain values."""

    @property
    def name(self) -> str:
        """What the names of its jobs begin with."""

    @property
    def patients(self) -> tuple[str, ...]:
        """All patients in their order."""

    def compute(self, shard: Shard, out: Path, before: Sequence[Path]) -> None:
        """Compute a part of the patients.

        Args:
            shard: Which part.
            out: The file or folder to write.
            before: The parts of the step before; none for the first step.

        Raises:
            MilError: It cannot be computed.
        """


class Join(Protocol):
    """How the parts become the result; sent to a job by pickle."""

    def join(self, parts: Sequence[Sequence[Path]], out: Path) -> None:
        """Write the result from the parts of each step.

        Raises:
            MilError: The parts together are not a result.
        """


@dataclass(frozen=True)
class ShardedWork:
    """Work that can be cut into parts of the patients.

    Attributes:
        title: Name of its jobs in the queue.
        steps: What is computed; each step may read the parts of the one before.
        last: Joins the parts.
        inputs: Tables and manifests that it reads: parts of other contents do not belong to it.
    """

    title: str
    steps: tuple[Step, ...]
    last: Join
    inputs: tuple[Path, ...]


@dataclass(frozen=True)
class ShardUnit:
    """Compute a part of the patients.

    Attributes:
        step: What is computed.
        place: The folder of jobs.
        shard: Which part.
        before: Name and number of parts of the step before, if there is one.
        waits_for: Jobs of the step before.
    """

    step: Step
    place: Path
    shard: Shard
    before: tuple[str, int] | None = None
    waits_for: tuple[str, ...] = ()
    resumable: bool = field(default=False, init=False)

    @property
    def name(self) -> str:
        """The step's name and the number of the part."""
        return shard_results.unit_name(self.step.name, self.shard.number)

    def run(self) -> None:
        """Write this part under a name that it has only once it is complete.

        Raises:
            TrainingError: A part of the step before is missing.
            MilError: As the step.
        """
        before = list[Path]()
        if self.before is not None:
            shard_results.check_complete(self.place, *self.before)
            before = shard_results.parts_of(self.place, *self.before)
        result = shard_results.part(self.place, self.name)
        unfinished = result.with_name(f".{result.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        result.parent.mkdir(parents=True, exist_ok=True)
        self.step.compute(self.shard, unfinished, before)
        unfinished.rename(result)


@dataclass(frozen=True)
class JoinUnit:
    """Join the parts of all steps.

    Attributes:
        place: The folder of jobs.
        out: The file or folder to write.
        last: Joins the parts.
        steps: Name and number of parts of each step.
        waits_for: All other jobs.
    """

    place: Path
    out: Path
    last: Join
    steps: tuple[tuple[str, int], ...]
    waits_for: tuple[str, ...]
    name: str = field(default=MERGE, init=False)
    resumable: bool = field(default=False, init=False)

    def run(self) -> None:
        """Write the result, and remove the parts.

        Raises:
            TrainingError: A part is missing.
            MilError: The parts together are not a result.
        """
        for name, shards in self.steps:
            shard_results.check_complete(self.place, name, shards)
        self.last.join([shard_results.parts_of(self.place, name, shards) for name, shards in self.steps], self.out)
        shard_results.remove_parts(self.place)


def job_group(work: ShardedWork, out: Path, shards: int) -> JobGroup:
    """Return the jobs that are still to be done for a result.

    Args:
        work: The work.
        out: The file or folder to write.
        shards: Most parts of a step; never more than it has patients.

    Raises:
        ConfigError: `OUT.jobs` holds parts of another request.
    """
    place = jobs_folder(out.absolute())
    counts = [(step.name, min(shards, len(step.patients))) for step in work.steps]
    digest = shard_results.digest_of((work.steps, work.last, counts), work.inputs)
    shard_results.check_request(place, digest)
    stages, before, names = list[list[ShardUnit]](), None, tuple[str, ...]()
    for step, (name, count) in zip(work.steps, counts, strict=True):
        units = [ShardUnit(step, place, Shard(number, count), before, names) for number in range(count)]
        stages.append([unit for unit in units if not shard_results.part(place, unit.name).exists()])
        before, names = (name, count), tuple(unit.name for unit in stages[-1])
    waits_for = tuple(unit.name for units in stages for unit in units)
    return JobGroup(place, out, stages, JoinUnit(place, out.absolute(), work.last, tuple(counts), waits_for), digest)


def submit_work(work: ShardedWork, out: Path, options: ClusterOptions) -> None:
    """Submit the parts that are not done, and the job that joins them; return at once.

    Args:
        work: The work.
        out: The file or folder to write.
        options: Of the cluster.

    Raises:
        ConfigError: `OUT.jobs` holds parts of another request, its jobs are not over, or the scheduler refuses.
    """
    group = job_group(work, out, options.shards)
    submit([group], options, group.place / LOGS, work.title)
    patients = len(work.steps[-1].patients)
    logger.info(
        "submitted %d of %d shards of %d patients to %s; mil runs %s shows how they stand",
        *(len(group.stages[-1]), min(options.shards, patients), patients, options.engine, out),
    )
