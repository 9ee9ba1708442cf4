"""`mil predict` as jobs: one for each part of the patients, and a last one that writes the table of all."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mil import api, files
from mil.checkpoint import MANIFEST, Checkpoint
from mil.cluster import shard_results
from mil.cluster.cluster_options import ClusterOptions
from mil.cluster.job_ledger import LOGS, jobs_folder
from mil.cluster.submission import JobGroup, check_engine, submit
from mil.cohort.clinical_table import Cohort, without_files
from mil.cohort.columns import Columns
from mil.features.formats import Reading
from mil.features.joined_store import open_store
from mil.findings import raise_first_error
from mil.inference.bad_slides import OnBad, naming_the_option
from mil.inference.cohort_shards import Shard
from mil.inference.predict import cohort_of, expected_geometry, reading_of
from mil.tables import csv_text
from mil.zoo.predictor import load

logger = logging.getLogger("mil")


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
class PredictUnit:
    """Predict a part of the patients."""

    request: PredictRequest
    place: Path
    shard: Shard
    resumable: bool = field(default=False, init=False)
    waits_for: tuple[str, ...] = field(default=(), init=False)

    @property
    def name(self) -> str:
        """The shard's name."""
        return shard_results.unit_name(self.shard.number)

    def run(self) -> None:
        """Write the table of this part.

        Raises:
            MilError: As `mil.api.predict`.
        """
        text = csv_text(self.request.table(self.shard))
        files.write(shard_results.part(self.place, self.shard.number), text)


@dataclass(frozen=True)
class MergeUnit:
    """Write the table of all patients."""

    place: Path
    out: Path
    shards: int
    waits_for: tuple[str, ...]
    name: str = field(default=shard_results.MERGE, init=False)
    resumable: bool = field(default=False, init=False)

    def run(self) -> None:
        """Join the tables of the parts in the order of the patients.

        Raises:
            TrainingError: A part is missing.
            FeatureError: No slide of any part could be used.
        """
        shard_results.check_complete(self.place, self.shards)
        parts = [shard_results.part(self.place, number) for number in range(self.shards)]
        text = shard_results.merged_csv([path.read_text(encoding="utf-8") for path in parts])
        files.write(self.out, text)
        shard_results.remove_parts(self.place)


def submit_prediction(request: PredictRequest, out: Path, options: ClusterOptions) -> bool:
    """Submit the parts of a prediction that are not done, and the job that joins them; return at once.

    Args:
        request: What is predicted.
        out: The table to write.
        options: Of the cluster.

    Returns:
        Whether the weights of any checkpoint were trained on simulated slides.

    Raises:
        ConfigError: `OUT.jobs` holds parts of another request, its jobs are not over, or the scheduler refuses.
        MilError: Checkpoints, tables or the list of feature files cannot be used.
    """
    check_engine(options)
    loaded = [load(each, request.allow, request.key).checkpoint for each in request.checkpoints]
    patients = len(cohort_to_predict(request, loaded[0]).patients)
    shards = min(options.shards, patients)
    place = jobs_folder(out.absolute())
    inputs = [request.cohort, request.slides, *(each.folder / MANIFEST for each in loaded)]
    digest = shard_results.digest_of(request, inputs, shards)
    shard_results.check_request(place, digest)
    done = [shard_results.part(place, number).exists() for number in range(shards)]
    units = [PredictUnit(request, place, Shard(number, shards)) for number in range(shards) if not done[number]]
    last = MergeUnit(place, out.absolute(), shards, tuple(unit.name for unit in units))
    submit([JobGroup(place, out, units, last, digest)], options, place / LOGS, "mil-predict")
    logger.info(
        "submitted %d of %d shards of %d patients to %s; mil runs %s shows how they stand",
        *(len(units), shards, patients, options.engine, out),
    )
    return any(each.manifest.data.simulated for each in loaded)


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
