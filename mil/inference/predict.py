"""Predict patients with one checkpoint, or with many in one pass over the features; see `mil.inference.forward`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil import files
from mil.bags import Bags
from mil.checkpoint import Checkpoint
from mil.cohort.clinical_table import Cohort
from mil.cohort.columns import Columns
from mil.cohort.gdc_names import named_as_files
from mil.cohort.slide_resolutions import slide_mpps
from mil.errors import CheckpointError, ConfigError, MilError, ResourceError
from mil.features.batches import BagDataset
from mil.features.formats import DETECTED, Reading
from mil.features.geometry import Expected
from mil.features.joined_store import folders_for, open_folders
from mil.features.store import FeatureStore
from mil.findings import log_warnings
from mil.fitted.withholding import RowBags
from mil.inference.bad_slides import OnBad, naming_the_option, with_skipped, without_bad_slides, without_scores
from mil.inference.cohort_shards import Shard
from mil.inference.forward import Watch, decoded, mean, outputs_of_each, per_patient
from mil.inference.provenance import ORIGIN_FILE, origin
from mil.models.mil_model import Output
from mil.slide_names import file_stem
from mil.tables import csv_text


@dataclass(frozen=True)
class PredictionInputs:
    """What is predicted, and how it is read.

    Attributes:
        features: Folder of feature files; of several encoders as in `mil.features.feature_folders`: each checkpoint
            reads those of its own.
        cohort: Table of patients and slides; None predicts each slide.
        slides: Table of slides, for a cohort table with one row for each patient.
        on_bad: Whether slides that are missing, unreadable, empty or not finite are an error or left out; where some
            are left out the column `skipped` names them, and patients without another slide have no score.
        max_tiles: Largest number of tiles of a bag, taken at equal steps; None takes all of bags for which there are
            memory and time, 0 tries to take all of every bag.
        ids: What the tables call patients, slides and resolutions; None looks for common names.
        workers: Processes that read ahead.
        shard: The part of the patients to predict; None predicts all.
    """

    features: Path
    cohort: Path | None = None
    slides: Path | None = None
    on_bad: OnBad = "error"
    max_tiles: int | None = None
    ids: Columns | None = None
    workers: int = 0
    shard: Shard | None = None


def predict(
    checkpoint: Checkpoint,
    features: Path,
    cohort: Path | None = None,
    slides: Path | None = None,
    tiles: Path | None = None,
    workers: int = 0,
    reading: Reading | None = None,
    on_bad: OnBad = "error",
    max_tiles: int | None = None,
    ids: Columns | None = None,
    shard: Shard | None = None,
) -> pd.DataFrame:
    """Return a table of predictions: one row for each patient of the cohort, or for each slide without a cohort.

    The fitted state adds its columns, see `FittedState.apply`.

    Args:
        checkpoint: The model.
        features: As in `PredictionInputs`, like all arguments that are not described here.
        cohort: Table of patients and slides.
        slides: Table of slides.
        tiles: Folder for one table for each slide: level-0 coordinates of the tiles, and their attention as a share of
            the bag; `origin.json` there says which tool they come from.
        workers: Processes that read ahead.
        reading: How files that leave it open are read; None reads them as in training.
        on_bad: What becomes of slides that cannot be read.
        max_tiles: Largest number of tiles of a bag.
        ids: What the tables call patients, slides and resolutions.
        shard: The part of the patients to predict.

    Raises:
        CheckpointError: `tiles` for a model without attention, or no cohort for a model with covariates.
        ConfigError: `tiles` where not all are read.
        ResourceError: There is not enough memory or time for a bag.
        CohortError: the cohort lacks a covariate's column, or has no number where one is needed.
        FeatureError: slides without features, with features of another encoder, or of tiles of another size.
    """
    if tiles is not None and max_tiles:
        raise ConfigError(f"max_tiles={max_tiles} with tables of all tiles: expected one of them")
    inputs = PredictionInputs(features, cohort, slides, on_bad, max_tiles, ids, workers, shard)
    job = _SharedFiles(inputs).job(checkpoint, reading or checkpoint.reading)
    if tiles is not None:
        job.watches.append(_tile_writer(job.dataset, tiles, checkpoint))
    _pass([job], inputs, lambda job, error: False)
    return job.table()


def predict_each(
    checkpoints: Sequence[Checkpoint],
    readings: Sequence[Reading],
    inputs: PredictionInputs,
    leave_out: Callable[[Checkpoint, MilError], bool] = lambda checkpoint, error: False,
) -> list[pd.DataFrame | None]:
    """Return the table of predictions of each checkpoint, as `predict` does, from one pass over the features.

    Checkpoints whose bags are the same slides, of the same encoders and read in the same way, share a pass; without a
    cohort that is all that read the same files alike.

    Args:
        checkpoints: The models.
        readings: How each reads files that leave it open.
        inputs: What is predicted.
        leave_out: Called with a checkpoint that cannot predict these features, and why; where it returns true the
            table of this checkpoint is None, else the error is raised.

    Raises:
        MilError: As in `predict`; of several checkpoints where `leave_out` returns false, or where reading fails.
    """
    files_of_all = _SharedFiles(inputs)
    jobs: list[_Job | None] = []
    for checkpoint, reading in zip(checkpoints, readings, strict=True):
        try:
            jobs.append(files_of_all.job(checkpoint, reading))
        except MilError as error:
            if not leave_out(checkpoint, error):
                raise
            jobs.append(None)
    passes: dict[tuple[_Source, tuple[tuple[str, ...], ...]], list[_Job]] = {}
    for job in jobs:
        if job is not None:
            passes.setdefault((job.source, tuple(map(tuple, job.dataset.slides))), []).append(job)
    for group in passes.values():
        _pass(group, inputs, lambda job, error: leave_out(job.checkpoint, error))
    return [None if job is None or job.is_left_out else job.table() for job in jobs]


class _Source(NamedTuple):
    """What the bags of a checkpoint are read from, and how."""

    reading: Reading
    folders: tuple[tuple[str, Path], ...]
    """each with its encoder, as in `folders_for`"""


@dataclass(eq=False)
class _Job:
    """The part of one checkpoint in a pass."""

    checkpoint: Checkpoint
    source: _Source
    id_column: str
    everyone: Cohort
    cohort: Cohort
    """without the slides that are left out"""
    reasons: dict[str, str]
    """why slides are left out"""
    bags: pd.DataFrame
    dataset: BagDataset
    watches: list[Watch] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    means: list[Tensor] = field(default_factory=list)
    is_left_out: bool = False

    @property
    def needs_means(self) -> bool:
        return self.checkpoint.manifest.fitted.novelty is not None

    def table(self) -> pd.DataFrame:
        if self.cohort.table.empty:
            return without_scores(self.everyone, self.id_column, self.reasons)
        patient, patients = self.bags["patient"], self.cohort.patients.index
        out = pd.DataFrame({self.id_column: patients})
        out["tiles"] = _tiles(self.dataset, patient, patients)
        by_patient = per_patient(torch.cat(self.logits), patient, patients)
        out = out.assign(**decoded(self.checkpoint.endpoint, by_patient))
        row_bags = _row_bags(self.dataset, self.bags, patients, self.means)
        predictions = self.checkpoint.manifest.fitted.apply(out, row_bags)
        return with_skipped(predictions, self.everyone, self.reasons)


class _SharedFiles:
    """Tables and headers of feature files, read once for all checkpoints."""

    def __init__(self, inputs: PredictionInputs) -> None:
        self._inputs = inputs
        self._stores: dict[_Source, FeatureStore] = {}
        self._cohorts: dict[_Source, Cohort] = {}
        self._unusable: dict[tuple[_Source, tuple[int, ...], str, str], str] = {}

    def job(self, checkpoint: Checkpoint, reading: Reading) -> _Job:
        """Return what a checkpoint needs to predict, after checking that the features fit it."""
        inputs = self._inputs
        folders = folders_for(inputs.features, checkpoint.encoder)
        source = _Source(reading, tuple(folders.items()))
        if source not in self._stores:
            self._stores[source] = open_folders(folders, reading=reading)
        files_read = self._stores[source]
        everyone = self._cohort(source, checkpoint)
        store = files_read.expecting(checkpoint.encoder, expected_geometry(checkpoint))
        is_part = inputs.shard is not None
        cohort, reasons = without_bad_slides(
            everyone, store, inputs.on_bad, partial(self._reasons, source), may_be_empty=is_part
        )
        id_column = "slide" if inputs.cohort is None else "patient"
        if cohort.table.empty:
            nothing = pd.DataFrame(columns=["bag", "patient", "slides"])
            empty = BagDataset(store, [], torch.zeros(0))
            return _Job(checkpoint, source, id_column, everyone, cohort, reasons, nothing, empty)
        with naming_the_option(inputs.on_bad):
            store.resolve(list(cohort.table["slide"])).require()
        bags = cohort.bags(checkpoint.manifest.data.bag)
        covariates = checkpoint.covariates
        encoded = None if covariates is None else covariates.encode(cohort.patients.loc[bags["patient"]])
        target, at_most = torch.zeros(len(bags)), inputs.max_tiles or None
        dataset = BagDataset(store, list(bags["slides"]), target, covariates=encoded, at_most=at_most)
        return _Job(checkpoint, source, id_column, everyone, cohort, reasons, bags, dataset)

    def _cohort(self, source: _Source, checkpoint: Checkpoint) -> Cohort:
        inputs = self._inputs
        if checkpoint.covariates is None and source in self._cohorts:
            return self._cohorts[source]
        cohort = cohort_of(self._stores[source], inputs.cohort, inputs.slides, checkpoint, inputs.ids)
        if inputs.shard is not None:
            cohort = inputs.shard.of(cohort)
        if checkpoint.covariates is None:
            self._cohorts[source] = cohort
        return cohort

    def _reasons(self, source: _Source, store: FeatureStore, slides: Sequence[str]) -> dict[str, str]:
        """Return why slides are unusable; they are read once for all checkpoints that expect the same kind of rows."""
        assert store.encoder is not None
        kind = (source, store.encoder.widths, store.encoder.level)
        unread = [slide for slide in slides if (*kind, slide) not in self._unusable]
        reasons = store.unusable(unread) if unread else {}
        self._unusable |= {(*kind, slide): reasons.get(slide, "") for slide in unread}
        return {slide: reason for slide in slides if (reason := self._unusable[*kind, slide])}


def _pass(jobs: Sequence[_Job], inputs: PredictionInputs, leave_out: Callable[[_Job, ResourceError], bool]) -> None:
    """Read every bag once and give it to the model of every job."""

    def left_out(number: int, error: ResourceError) -> bool:
        jobs[number].is_left_out = leave_out(jobs[number], error)
        return jobs[number].is_left_out

    models, datasets = [job.checkpoint.model for job in jobs], [job.dataset for job in jobs]
    latest: tuple[int, Tensor] | None = None  # the mean of a bag is the same for all
    with naming_the_option(inputs.on_bad):
        each = outputs_of_each(models, datasets, inputs.workers, inputs.max_tiles == 0, left_out)
        for number, bag, bags, output in each:
            job = jobs[number]
            job.logits.append(output.logits.cpu())
            if job.needs_means:
                latest = latest if latest is not None and latest[0] == bag else (bag, mean(bags))
                job.means.append(latest[1])
            for watch in job.watches:
                watch(bag, bags, output)
            del bags, output  # before the next bag is read


def _tiles(dataset: BagDataset, patient: "pd.Series[str]", patients: pd.Index) -> NDArray[np.int64]:
    """Return the number of tiles of each patient, over all of the patient's bags, `(p,)`."""
    row = patients.get_indexer(pd.Index(patient))
    return np.bincount(row, weights=dataset.sizes, minlength=len(patients)).astype(np.int64)


def _row_bags(dataset: BagDataset, bags: pd.DataFrame, patients: pd.Index, means: list[Tensor]) -> RowBags:
    return RowBags(
        row=patients.get_indexer(pd.Index(bags["patient"])),
        names=[", ".join(slides) for slides in dataset.slides],
        tiles=np.asarray(dataset.sizes, dtype=np.int64),
        means=torch.stack(means).numpy() if means else None,
    )


def reading_of(checkpoint: Checkpoint, given: Reading) -> Reading:
    """Return how files that leave it open are read: as given, otherwise as in training."""
    trained = checkpoint.reading
    return Reading(
        given.layout or trained.layout,
        given.batch_axis or trained.batch_axis,
        given.slide_mpp or trained.slide_mpp,
        given.table or trained.table,
    )


def readings_of(members: Sequence[Checkpoint], given: Reading = DETECTED) -> list[Reading]:
    """Return how each member of an ensemble reads files: as the first one of its encoder, so that they share a pass."""
    first: dict[str, Checkpoint] = {}
    for member in members:
        first.setdefault(member.encoder.name, member)
    return [reading_of(first[member.encoder.name], given) for member in members]


def expected_geometry(checkpoint: Checkpoint) -> Expected:
    """Return the size of tiles that a checkpoint was trained on."""
    trained = checkpoint.geometry
    return Expected(trained.mpp, trained.tile_px, f"the checkpoint of {checkpoint.manifest.tool.name}")


def cohort_of(
    store: FeatureStore, path: Path | None, slides: Path | None, checkpoint: Checkpoint, ids: Columns | None = None
) -> Cohort:
    """Return the patients to predict with their slides; without a table each slide is a patient.

    Args:
        store: The feature files, which learn the resolutions that the table of slides states.
        path: Table of patients and slides.
        slides: Table of slides, for a table with one row for each patient.
        checkpoint: The model, whose covariates are read from the table.
        ids: What the tables call patients, slides and resolutions; None looks for common names.

    Raises:
        CheckpointError: no table for a model that reads covariates.
        CohortError: the table cannot be read, or lacks a column.
        FeatureError: slides without features.
    """
    covariates = checkpoint.covariates
    if path is not None:
        columns = () if covariates is None else covariates.columns
        words = checkpoint.words_of(columns)
        cohort = Cohort.read(path, ids, covariates=columns, slides=slides, words=words).require()
        named = named_as_files(slides or path, cohort.table, store.slides).require()
        cohort = replace(cohort, table=named)
        mpps = slide_mpps(slides or path, cohort.table, None if ids is None else ids.mpp)
        store.set_resolutions(mpps.require())
        if covariates is not None:
            log_warnings(covariates.check(cohort.patients))
        return cohort
    if covariates is not None:
        raise CheckpointError(
            f"{checkpoint.folder}: reads {', '.join(covariates.columns)} of the clinical table, expected --cohort with "
            "them"
        )
    return Cohort(pd.DataFrame({"patient": store.slides, "slide": store.slides}, dtype=str))


def _tile_writer(dataset: BagDataset, folder: Path, checkpoint: Checkpoint) -> Watch:
    def write(index: int, bags: Bags, output: Output) -> None:
        if output.attention is None:
            raise CheckpointError(f"{checkpoint.folder}: {checkpoint.manifest.model.name} has no attention to write")
        coords = torch.full((len(bags.features), 2), -1) if bags.coords is None else bags.coords.cpu()
        table = pd.DataFrame(coords.numpy(), columns=["x", "y"]).assign(attention=output.attention.cpu().numpy())
        folder.mkdir(parents=True, exist_ok=True)
        if index == 0:
            files.write_json(folder / ORIGIN_FILE, origin([checkpoint]))
        start = 0
        for slide in dataset.slides[index]:
            end = start + dataset.store.header(slide).tiles
            files.write(folder / f"{file_stem(slide)}.csv", csv_text(table.iloc[start:end]))
            start = end

    return write
