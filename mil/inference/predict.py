"""Predict patients with a model: bag by bag, with all tiles, in single precision.

A bag is read alone and in full precision, so that its score depends neither on its neighbours in a batch nor on what
trained the model: the run's own predictions and those of a fresh process on the same machine are the same numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

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
from mil.endpoints.endpoint import Endpoint
from mil.errors import CheckpointError, ConfigError
from mil.features.batches import BagDataset, Batch, Draw, loader, reading
from mil.features.formats import Reading
from mil.features.geometry import Expected
from mil.features.joined_store import open_store
from mil.features.store import FeatureStore
from mil.findings import log_warnings
from mil.fitted.withholding import RowBags
from mil.inference.bad_slides import OnBad, naming_the_option, with_skipped, without_bad_slides, without_scores
from mil.inference.cohort_shards import Shard
from mil.inference.provenance import ORIGIN_FILE, origin
from mil.inference.room import check_room
from mil.memory import enough_for
from mil.models.mil_model import MILModel, Output
from mil.progress import counted
from mil.slide_names import file_stem
from mil.tables import csv_text, listed
from mil.tile_rows import blocks

Watch = Callable[[int, Bags, Output], object]


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def outputs(
    model: MILModel, dataset: BagDataset, workers: int = 0, unlimited: bool = False
) -> Iterator[tuple[int, Bags, Output]]:
    """Each bag of the dataset with what the model says of it, in order.

    Args:
        model: The model.
        dataset: The bags.
        workers: Processes that read ahead.
        unlimited: Try bags for which there are not enough memory and time.

    Raises:
        ResourceError: There is not enough memory or time for a bag; or memory ran out, with the bag that needed it; or
            a reading process was killed.
    """
    place = device()
    model = model.to(place).eval()
    large = [dataset.is_large(bag) for bag in range(len(dataset))]
    small = [[Draw(bag)] for bag in range(len(dataset)) if not large[bag]]
    with torch.inference_mode():
        batches = iter(loader(dataset, small, workers))
        for bag, in_pieces in counted(enumerate(large), "predicting", len(dataset)):
            with reading(), enough_for(partial(_described, dataset, bag)):
                batch = read_large(model, dataset, bag, unlimited) if in_pieces else next(batches)
                bags = batch.bags.to(place)
                bags = bags.cast_in_blocks(torch.float32) if model.reads_in_blocks() else bags.cast(torch.float32)
                output = model(bags)
            yield bag, bags, output
            del batch, bags, output


def read_large(model: MILModel, dataset: BagDataset, bag: int, unlimited: bool = False) -> Batch:
    """Return a large bag: in pieces where the model reads it so, whole where there is room for it.

    Raises:
        ResourceError: There is not enough memory or time; `unlimited` tries it.
    """
    if model.reads_in_pieces():
        return dataset.read_in_pieces(bag)
    if not unlimited:
        width = dataset.store.header(dataset.slides[bag][0]).width
        covariates = 0 if dataset.covariates is None else dataset.covariates.shape[1]
        check_room(model, dataset.sizes[bag], width, covariates, _described(dataset, bag))
    return dataset[[Draw(bag)]]


def _described(dataset: BagDataset, index: int) -> str:
    """Return the slides of a bag with their size, for a message."""
    headers = [dataset.store.header(slide) for slide in dataset.slides[index]]
    tiles = sum(header.tiles for header in headers)
    return f"slides {listed(list(dataset.slides[index]))} ({tiles} tiles, {headers[0].width} wide)"


def logits(
    model: MILModel, dataset: BagDataset, workers: int = 0, watch: Watch | None = None, unlimited: bool = False
) -> Tensor:
    """`(b, c)` on the CPU; `watch` sees each bag with its output as it passes."""
    rows: list[Tensor] = []
    for index, bags, output in outputs(model, dataset, workers, unlimited):
        rows.append(output.logits.cpu())
        if watch:
            watch(index, bags, output)
        del bags, output  # before the next bag is read
    return torch.cat(rows)


def per_patient(values: Tensor, patient: "pd.Series[str]", patients: pd.Index) -> Tensor:
    """Means over each patient's bags, `(b, c)` to `(p, c)`: the unit of every number is the patient."""
    row = torch.from_numpy(patients.get_indexer(pd.Index(patient)))
    amount = torch.bincount(row, minlength=len(patients)).unsqueeze(1)
    return values.new_zeros((len(patients), values.shape[1])).index_add(0, row, values) / amount


def decoded(endpoint: Endpoint, logits: Tensor) -> dict[str, NDArray[np.float64]]:
    """Return the columns of predictions for logits `(p, c)`, each `(p,)`.

    They are computed patient by patient: vector units round differently from the scalar code for the remainder, so the
    last bit would depend on the number of patients.
    """
    rows = [endpoint.decode(row) for row in torch.split(logits, 1)]
    return {name: torch.cat([row[name] for row in rows]).numpy() for name in rows[0]}


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
        features: Folder of feature files.
        cohort: Table of patients and slides.
        slides: Table of slides, for a cohort table with one row for each patient.
        tiles: Folder for one table for each slide: level-0 coordinates of the tiles, and their attention as a share of
            the bag; `origin.json` there says which tool they come from.
        workers: Processes that read ahead.
        reading: How files that leave it open are read; None reads them as in training.
        on_bad: Whether slides that are missing, unreadable, empty or not finite are an error or left out; where some
            are left out the column `skipped` names them, and patients without another slide have no score.
        max_tiles: Largest number of tiles of a bag, taken at equal steps; None takes all of bags for which there are
            memory and time, 0 tries to take all of every bag.
        ids: What the tables call patients, slides and resolutions; None looks for common names.
        shard: The part of the patients to predict; None predicts all.

    Raises:
        CheckpointError: `tiles` for a model without attention, or no cohort for a model with covariates.
        ConfigError: `tiles` where not all are read.
        ResourceError: There is not enough memory or time for a bag.
        CohortError: the cohort lacks a covariate's column, or has no number where one is needed.
        FeatureError: slides without features, with features of another encoder, or of tiles of another size.
    """
    if tiles is not None and max_tiles:
        raise ConfigError(f"max_tiles={max_tiles} with tables of all tiles: expected one of them")
    store = open_store(features, checkpoint.encoder, (), reading or checkpoint.reading, expected_geometry(checkpoint))
    everyone = cohort_of(store, cohort, slides, checkpoint, ids)
    if shard is not None:
        everyone = shard.of(everyone)
    name = "slide" if cohort is None else "patient"
    table, reasons = without_bad_slides(everyone, store, on_bad, may_be_empty=shard is not None)
    if table.table.empty:
        return without_scores(everyone, name, reasons)
    with naming_the_option(on_bad):
        store.resolve(list(table.table["slide"])).require()
    bags = table.bags(checkpoint.manifest.data.bag)
    covariates = checkpoint.covariates
    encoded = None if covariates is None else covariates.encode(table.patients.loc[bags["patient"]])
    slides_of = list(bags["slides"])
    dataset = BagDataset(store, slides_of, torch.zeros(len(bags)), covariates=encoded, at_most=max_tiles or None)
    means: list[Tensor] = []
    watches = [] if tiles is None else [_tile_writer(dataset, tiles, checkpoint)]
    if checkpoint.manifest.fitted.novelty is not None:
        watches.append(lambda index, bags, output: means.append(mean(bags)))
    with naming_the_option(on_bad):
        seen = partial(_watched, watches)
        by_bag = logits(checkpoint.model, dataset, workers, seen, unlimited=max_tiles == 0)
    patients = table.patients.index
    out = pd.DataFrame({name: patients})
    out["tiles"] = _tiles(dataset, bags["patient"], patients)
    out = out.assign(**decoded(checkpoint.endpoint, per_patient(by_bag, bags["patient"], patients)))
    predictions = checkpoint.manifest.fitted.apply(out, _row_bags(dataset, bags, patients, means))
    return with_skipped(predictions, everyone, reasons)


def _watched(watches: Sequence[Watch], index: int, bags: Bags, output: Output) -> None:
    for watch in watches:
        watch(index, bags, output)


def _tiles(dataset: BagDataset, patient: "pd.Series[str]", patients: pd.Index) -> NDArray[np.int64]:
    """Return the number of tiles of each patient, over all of the patient's bags, `(p,)`."""
    row = patients.get_indexer(pd.Index(patient))
    return np.bincount(row, weights=dataset.sizes, minlength=len(patients)).astype(np.int64)


def mean(bags: Bags) -> Tensor:
    """Return the mean features of one bag, `(d,)`, in double precision on the CPU; summed in blocks of tiles."""
    total = bags.features.new_zeros(bags.features.shape[1], dtype=torch.float64)
    for rows in blocks(bags.features):
        total += rows.float().sum(0)
    return (total / len(bags.features)).cpu()


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
