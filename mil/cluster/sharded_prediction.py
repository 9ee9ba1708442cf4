"""`mil predict` as jobs: one for each part of the patients, and a last one that writes the table of all."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mil import api, files
from mil.checkpoint import MANIFEST, Checkpoint
from mil.cluster.cluster_options import ClusterOptions
from mil.cluster.sharded_work import SHARD, ShardedWork, submit_work
from mil.cluster.submission import check_engine
from mil.cohort.clinical_table import Cohort, without_files
from mil.cohort.columns import Columns
from mil.errors import FeatureError
from mil.features.formats import Reading
from mil.features.joined_store import open_store
from mil.findings import raise_first_error
from mil.inference.bad_slides import SKIPPED, OnBad, naming_the_option
from mil.inference.cohort_shards import Shard
from mil.inference.predict import cohort_of, expected_geometry, reading_of
from mil.tables import csv_text
from mil.zoo.predictor import load


@dataclass(frozen=True)
class PredictRequest:
    """The arguments of `mil.api.predict`."""

    checkpoints: tuple[str, ...]
    features: Path
    cohort: Path | None = None
    slides: Path | None = None
    tiles: Path | None = None
    layout: str | None = None
    batch_axis: bool = False
    slide_mpp: float | None = None
    feature_table: str | None = None
    columns: Mapping[str, str] | None = None
    on_bad: OnBad = "error"
    max_tiles: int | None = None
    allow: tuple[str, ...] = ()
    key: Path | None = None

    def table(self, shard: Shard | None = None) -> pd.DataFrame:
        """Return the predictions of all patients, or of a part of them.

        Raises:
            MilError: As `mil.api.predict`.
        """
        return api.predict(
            self.checkpoints,
            self.features,
            self.cohort,
            slides=self.slides,
            tiles=self.tiles,
            layout=self.layout,
            batch_axis=self.batch_axis,
            slide_mpp=self.slide_mpp,
            feature_table=self.feature_table,
            columns=self.columns,
            on_bad=self.on_bad,
            max_tiles=self.max_tiles,
            allow=self.allow,
            key=self.key,
            shard=shard,
        )


@dataclass(frozen=True)
class PredictStep:
    """Predict patients."""

    request: PredictRequest
    patients: tuple[str, ...]
    name: str = field(default=SHARD, init=False)

    def compute(self, shard: Shard, out: Path, before: Sequence[Path]) -> None:
        """Write the table of a part.

        Raises:
            MilError: As `mil.api.predict`.
        """
        files.write(out, csv_text(self.request.table(shard)))


@dataclass(frozen=True)
class PredictJoin:
    """Write the table of all patients."""

    def join(self, parts: Sequence[Sequence[Path]], out: Path) -> None:
        """Join the tables of the parts in the order of the patients.

        Raises:
            FeatureError: No slide of any part could be used.
        """
        files.write(out, merged_csv([path.read_text(encoding="utf-8") for path in parts[0]]))


def submit_prediction(request: PredictRequest, out: Path, options: ClusterOptions) -> bool:
    """Submit a prediction, see `mil.cluster.sharded_work.submit_work`.

    Returns:
        Whether the weights of any checkpoint were trained on simulated slides.

    Raises:
        ConfigError: `OUT.jobs` holds parts of another request, its jobs are not over, or the scheduler refuses.
        MilError: Checkpoints, tables or the list of feature files cannot be used.
    """
    check_engine(options)
    loaded = [load(each, request.allow, request.key).checkpoint for each in request.checkpoints]
    patients = tuple(map(str, cohort_to_predict(request, loaded[0]).patients.index))
    tables = [path for path in (request.cohort, request.slides) if path is not None]
    inputs = (*tables, *(each.folder / MANIFEST for each in loaded))
    submit_work(ShardedWork("mil-predict", (PredictStep(request, patients),), PredictJoin(), inputs), out, options)
    return any(each.manifest.data.simulated for each in loaded)


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


def cohort_to_predict(request: PredictRequest, checkpoint: Checkpoint) -> Cohort:
    """Return the patients of a request with their slides, of which all have a file unless bad ones are skipped.

    Raises:
        MilError: The table or the list of feature files cannot be used.
    """
    given = Reading(request.layout, request.batch_axis, request.slide_mpp, request.feature_table)
    reading, expected = reading_of(checkpoint, given), expected_geometry(checkpoint)
    store = open_store(request.features, checkpoint.encoder, (), reading, expected)
    ids = None if request.columns is None else Columns(**request.columns)
    cohort = cohort_of(store, request.cohort, request.slides, checkpoint, ids)
    with naming_the_option(request.on_bad):
        raise_first_error(without_files(cohort.table, store.slides, request.on_bad))
    return cohort
