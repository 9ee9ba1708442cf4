"""`mil explain` as jobs: one for each part of the patients, and a last one that joins their files."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mil import files
from mil.checkpoint import MANIFEST, Checkpoint
from mil.cluster.cluster_options import ClusterOptions
from mil.cluster.sharded_prediction import PredictRequest, cohort_to_predict
from mil.cluster.sharded_work import SHARD, ShardedWork, submit_work
from mil.cluster.submission import check_engine
from mil.cohort.columns import Columns
from mil.errors import CohortError, ConfigError, FeatureError
from mil.explain.explain_patients import Request
from mil.explain.faithfulness import FILE as EXPLAIN
from mil.explain.faithfulness import ExplainResult
from mil.explain.reference_tile import stored_reference
from mil.explain.writers import FileChoices
from mil.explain.writers.tile_table import CSV_TABLE, TABLE, join_csv, join_parquet
from mil.inference.cohort_shards import Shard
from mil.runs.explain_run import explain_checkpoint
from mil.zoo.predictor import load


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
        some = replace(self.request, patients=tuple(patients), is_part=True)
        choices, columns = self.choices, self.columns
        explain_checkpoint(self.loaded(), self.features, out, self.cohort, self.slides, some, choices, columns)


@dataclass(frozen=True)
class ExplainStep:
    """Explain patients."""

    request: ExplainRequest
    patients: tuple[str, ...]
    name: str = field(default=SHARD, init=False)

    def compute(self, shard: Shard, out: Path, before: Sequence[Path]) -> None:
        """Write the files of a part.

        Raises:
            MilError: As `explain_checkpoint`.
        """
        self.request.write(out, shard.among(self.patients))


@dataclass(frozen=True)
class ExplainJoin:
    """Join the files of all parts in one folder."""

    def join(self, parts: Sequence[Sequence[Path]], out: Path) -> None:
        """Join the tables in the order of the patients, move all other files, and write `explain.json` last.

        Raises:
            FeatureError: No slide of any part could be used.
        """
        folders = parts[0]
        results = [ExplainResult.model_validate_json((folder / EXPLAIN).read_bytes()) for folder in folders]
        patients = tuple(patient for result in results for patient in result.patients)
        if not patients:
            raise FeatureError("none of the slides can be used; the logs of the jobs name them")
        join_files(folders, out, leave=EXPLAIN)
        joined = [result for result in results if result.patients][-1].model_copy(update={"patients": patients})
        files.write(out / EXPLAIN, joined.model_dump_json(indent=2) + "\n")


def submit_explanation(request: ExplainRequest, out: Path, options: ClusterOptions) -> None:
    """Submit an explanation, see `mil.cluster.sharded_work.submit_work`.

    Raises:
        ConfigError: A checkpoint whose scores depend on what else is explained; `OUT.jobs` holds parts of another
            request, its jobs are not over, or the scheduler refuses.
        MilError: Checkpoints, tables or the list of feature files cannot be used.
    """
    check_engine(options)
    loaded = request.loaded()
    check_references(loaded)
    tables = [path for path in (request.cohort, request.slides) if path is not None]
    inputs = (*tables, *(each.folder / MANIFEST for each in loaded))
    step = ExplainStep(request, _patients(request, loaded[0]))
    submit_work(ShardedWork("mil-explain", (step,), ExplainJoin(), inputs), out, options)


def check_references(loaded: Iterable[Checkpoint]) -> None:
    """Check that what is explained besides a patient does not change the patient's scores.

    Raises:
        ConfigError: A checkpoint records no reference tile.
    """
    for each in loaded:
        if stored_reference(each) is None:
            raise ConfigError(
                f"{each.folder}: an older checkpoint, whose tiles are compared with the mean of all given ones: "
                "explain them together, without a cluster, or train again"
            )


def join_files(folders: Sequence[Path], out: Path, leave: str) -> None:
    """Write the tables of tiles of all folders one after the other, and move all other files.

    Args:
        folders: Files of parts of the patients, in their order.
        out: The folder of all; made where it does not exist.
        leave: Name of a file of each folder that stays.
    """
    out.mkdir(parents=True, exist_ok=True)
    for table, join in ((TABLE, join_parquet), (CSV_TABLE, join_csv)):
        tables = [folder / table for folder in folders if (folder / table).is_file()]
        if tables:
            join(tables, out / table)
    for folder in folders:
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            place = path.relative_to(folder)
            if str(place) not in (TABLE, CSV_TABLE, leave):
                (out / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(path, out / place)


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
