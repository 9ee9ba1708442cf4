"""`mil explain RUN` as jobs: measure maps on parts of the patients, explain parts of the patients, and join them.

Pages of cases say whether their maps can be believed, so that measuring comes first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from mil import checkpoint, files
from mil.checkpoint import MANIFEST
from mil.cluster.cluster_options import ClusterOptions
from mil.cluster.sharded_explanation import check_references, join_files
from mil.cluster.sharded_work import SHARD, ShardedWork, Step, submit_work
from mil.cluster.submission import check_engine
from mil.explain.faithfulness import Faithfulness
from mil.explain.measure_faithfulness import BagMeasures, faithfulness_of
from mil.inference.cohort_shards import Shard
from mil.runs.explain_report import (
    Explained,
    Record,
    RunExplanation,
    finish_explanation,
    write_explanations,
)
from mil.runs.faithfulness_run import measure_patients
from mil.runs.run import Run, open_run
from mil.runs.states import checkpoints_in

MEASURE = "measure"
"""Name of the step that comes first."""
_EXPLAINED = "explained.json"
"""What a part says of itself, in its folder."""


class _Part(BaseModel):
    """A file of a part; its numbers are read as they were written, NaN too."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class _MeasuredPart(_Part):
    """The measures of all bags of a part of the patients, in their order."""

    measures: tuple[BagMeasures, ...]


class _ExplainedPart(_Part):
    """What is left of the explanations of a part of the patients."""

    explained: Explained


@dataclass(frozen=True)
class MeasureStep:
    """Measure on patients how far their maps can be believed."""

    work: RunExplanation
    name: str = field(default=MEASURE, init=False)

    @property
    def patients(self) -> tuple[str, ...]:
        """The patients who were drawn."""
        return self.work.to_measure

    def compute(self, shard: Shard, out: Path, before: Sequence[Path]) -> None:
        """Write the measures of a part.

        Raises:
            MilError: As `measure_patients`.
        """
        measures = measure_patients(open_run(self.work.folder), shard.among(self.patients), self.work.measuring)
        files.write(out, _MeasuredPart(measures=tuple(measures)).model_dump_json())


@dataclass(frozen=True)
class ExplainRunStep:
    """Explain patients, and write their pages with what was measured."""

    work: RunExplanation
    name: str = field(default=SHARD, init=False)

    @property
    def patients(self) -> tuple[str, ...]:
        """All patients in the order of the tables."""
        return self.work.ordered

    def compute(self, shard: Shard, out: Path, before: Sequence[Path]) -> None:
        """Write the files of a part.

        Raises:
            MilError: As `write_explanations`.
        """
        patients = shard.among(self.patients)
        run, faithfulness = open_run(self.work.folder), _faithfulness(before)
        explained = write_explanations(run, self.work, patients, out, faithfulness, Record())
        files.write(out / _EXPLAINED, _ExplainedPart(explained=explained).model_dump_json())


@dataclass(frozen=True)
class RunJoin:
    """Join the files of all parts, and write what is about all patients."""

    work: RunExplanation

    def join(self, parts: Sequence[Sequence[Path]], out: Path) -> None:
        """Join tables, move files, and write index, figure, `explain.json` and, of the run's own folder, its report.

        Raises:
            MilError: As `finish_explanation`.
        """
        *measured, folders = parts
        texts = [(folder / _EXPLAINED).read_bytes() for folder in folders]
        explained = [_ExplainedPart.model_validate_json(text).explained for text in texts]
        faithfulness = _faithfulness([path for step in measured for path in step])
        join_files(folders, out, leave=_EXPLAINED)
        rows = tuple(row for each in explained for row in each.rows)
        last = Explained(outputs=explained[-1].outputs, reference=explained[-1].reference, rows=rows)
        finish_explanation(open_run(self.work.folder), self.work, last, faithfulness)


def _faithfulness(measured: Sequence[Path]) -> Faithfulness | None:
    """Return what was measured in the parts of the step `measure`; None where it was not."""
    parts = [_MeasuredPart.model_validate_json(path.read_bytes()) for path in measured]
    return faithfulness_of(each for part in parts for each in part.measures) if parts else None


def submit_run_explanation(run: Run, work: RunExplanation, options: ClusterOptions) -> None:
    """Submit an explanation of a run, see `mil.cluster.sharded_work.submit_work`.

    Args:
        run: The run.
        work: What is explained of it.
        options: Of the cluster.

    Raises:
        ConfigError: A checkpoint whose scores depend on what else is explained; `OUT.jobs` holds parts of another
            request, its jobs are not over, or the scheduler refuses.
    """
    check_engine(options)
    submit_work(run_explanation_work(run, work), work.place, options)


def run_explanation_work(run: Run, work: RunExplanation) -> ShardedWork:
    """Return an explanation of a run as work that can be cut into parts.

    Raises:
        ConfigError: A checkpoint whose scores depend on what else is explained.
    """
    places = checkpoints_in(run.folder).values()
    check_references(map(checkpoint.load, places))
    explain = ExplainRunStep(work)
    steps: tuple[Step, ...] = (MeasureStep(work), explain) if work.to_measure else (explain,)
    inputs = (run.folder / "config.yaml", run.folder / "predictions.csv", *(place / MANIFEST for place in places))
    return ShardedWork("mil-explain", steps, RunJoin(work), inputs)
