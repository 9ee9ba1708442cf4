"""`mil explain` as jobs: one for each part of the patients, and a last one that joins their files."""

import logging
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mil import files
from mil.checkpoint import MANIFEST, Checkpoint
from mil.cluster import shard_results
from mil.cluster.cluster_options import ClusterOptions
from mil.cluster.job_ledger import LOGS, jobs_folder
from mil.cluster.sharded_prediction import PredictRequest, cohort_to_predict
from mil.cluster.submission import JobGroup, check_engine, submit
from mil.cohort.columns import Columns
from mil.errors import CohortError, ConfigError
from mil.explain.explain_patients import Request
from mil.explain.faithfulness import FILE as EXPLAIN
from mil.explain.faithfulness import ExplainResult
from mil.explain.reference_tile import stored_reference
from mil.explain.writers import FileChoices
from mil.explain.writers.tile_table import CSV_TABLE, TABLE, join_csv, join_parquet
from mil.inference.cohort_shards import Shard
from mil.runs.explain_run import explain_checkpoint
from mil.zoo.predictor import load

logger = logging.getLogger("mil")


@dataclass(frozen=True)
class ExplainRequest:
    """The arguments of `mil.runs.explain_run.explain_checkpoint`, with checkpoints by their names."""

    checkpoints: tuple[str, ...]
    features: Path
    cohort: Path | None
    slides: Path | None
    request: Request
    choices: FileChoices
    columns: Columns | None
    key: Path | None

    def loaded(self) -> list[Checkpoint]:
        """Load and verify the checkpoints.

        Raises:
            MilError: One is not what its manifest says, or is not signed as required.
        """
        return [load(each, key=self.key).checkpoint for each in self.checkpoints]

    def write(self, out: Path, patients: Sequence[str]) -> None:
        """Explain some of the patients into a folder.

        Raises:
            MilError: As `explain_checkpoint`.
        """
        some, choices, columns = replace(self.request, patients=tuple(patients)), self.choices, self.columns
        explain_checkpoint(self.loaded(), self.features, out, self.cohort, self.slides, some, choices, columns)


@dataclass(frozen=True)
class ExplainUnit:
    """Explain a part of the patients."""

    request: ExplainRequest
    place: Path
    number: int
    patients: tuple[str, ...]
    resumable: bool = field(default=False, init=False)
    waits_for: tuple[str, ...] = field(default=(), init=False)

    @property
    def name(self) -> str:
        """The shard's name."""
        return shard_results.unit_name(self.number)

    def run(self) -> None:
        """Write the files of this part into a folder that appears when it is complete.

        Raises:
            MilError: As `explain_checkpoint`.
        """
        folder = shard_results.part(self.place, self.number)
        unfinished = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        self.request.write(unfinished, self.patients)
        unfinished.rename(folder)


@dataclass(frozen=True)
class JoinUnit:
    """Join the files of all parts in one folder."""

    place: Path
    out: Path
    shards: int
    waits_for: tuple[str, ...]
    name: str = field(default=shard_results.MERGE, init=False)
    resumable: bool = field(default=False, init=False)

    def run(self) -> None:
        """Join the tables in the order of the patients, move all other files, and write `explain.json` last.

        Raises:
            TrainingError: A part is missing.
        """
        shard_results.check_complete(self.place, self.shards)
        parts = [shard_results.part(self.place, number) for number in range(self.shards)]
        self.out.mkdir(parents=True, exist_ok=True)
        for table, join in ((TABLE, join_parquet), (CSV_TABLE, join_csv)):
            tables = [part / table for part in parts if (part / table).is_file()]
            if tables:
                join(tables, self.out / table)
        for part in parts:
            _move(part, self.out, leave=(TABLE, CSV_TABLE, EXPLAIN))
        results = [ExplainResult.model_validate_json((part / EXPLAIN).read_bytes()) for part in parts]
        patients = tuple(patient for result in results for patient in result.patients)
        joined = results[-1].model_copy(update={"patients": patients})
        files.write(self.out / EXPLAIN, joined.model_dump_json(indent=2) + "\n")
        shard_results.remove_parts(self.place)


def submit_explanation(request: ExplainRequest, out: Path, options: ClusterOptions) -> None:
    """Submit the parts of an explanation that are not done, and the job that joins them; return at once.

    Args:
        request: What is explained.
        out: The folder to write.
        options: Of the cluster.

    Raises:
        ConfigError: A checkpoint whose scores depend on what else is explained; `OUT.jobs` holds parts of another
            request, its jobs are not over, or the scheduler refuses.
        MilError: Checkpoints, tables or the list of feature files cannot be used.
    """
    check_engine(options)
    loaded = request.loaded()
    for each in loaded:
        if stored_reference(each) is None:
            raise ConfigError(
                f"{each.folder}: an older checkpoint, whose tiles are compared with the mean of all given ones: "
                "explain them together, without a cluster, or train again"
            )
    patients = _patients(request, loaded[0])
    shards = min(options.shards, len(patients))
    place = jobs_folder(out.absolute())
    inputs = [request.cohort, request.slides, *(each.folder / MANIFEST for each in loaded)]
    digest = shard_results.digest_of((request, patients), inputs, shards)
    shard_results.check_request(place, digest)
    missing = [number for number in range(shards) if not shard_results.part(place, number).exists()]
    units = [ExplainUnit(request, place, number, Shard(number, shards).among(patients)) for number in missing]
    last = JoinUnit(place, out.absolute(), shards, tuple(unit.name for unit in units))
    submit([JobGroup(place, out, units, last, digest)], options, place / LOGS, "mil-explain")
    logger.info(
        "submitted %d of %d shards of %d patients to %s; mil runs %s shows how they stand",
        *(len(units), shards, len(patients), options.engine, out),
    )


def _patients(request: ExplainRequest, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the patients to explain in their order.

    Raises:
        CohortError: A patient who is asked for is not in the table.
    """
    columns = request.columns
    names = None if columns is None else {name: value for name, value in vars(columns).items() if value is not None}
    # files of patients who are not asked for may be missing
    on_bad = "skip" if request.request.patients is not None else request.request.on_bad
    asking = PredictRequest(
        request.checkpoints, request.features, request.cohort, request.slides, columns=names, on_bad=on_bad
    )
    everyone = tuple(map(str, cohort_to_predict(asking, checkpoint).patients.index))
    chosen = request.request.patients
    if chosen is None:
        return everyone
    if missing := sorted(set(chosen) - set(everyone)):
        raise CohortError(f"--patients: {missing[0]} is not among the {len(everyone)} patients")
    return tuple(name for name in everyone if name in chosen)


def _move(source: Path, target: Path, leave: Iterable[str]) -> None:
    """Move the files of a folder, but for some of its first level, into another, with their folders."""
    for path in sorted(each for each in source.rglob("*") if each.is_file()):
        place = path.relative_to(source)
        if str(place) not in leave:
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target / place)
