"""Scores of patients from a model: bag by bag, whole bags, in single precision.

A bag is read alone and in full precision, so that its score depends neither on its neighbours in a batch nor on what
trained the model: the run's own predictions and those of a fresh process on the same machine are the same numbers.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.bags import Bags
from mil.checkpoint import Checkpoint
from mil.cohort.clinical_table import Cohort, without_files
from mil.endpoints.endpoint import Endpoint
from mil.errors import CheckpointError
from mil.features.batches import BagDataset, loader
from mil.features.formats import Reading
from mil.features.geometry import Expected
from mil.features.store import FeatureStore
from mil.findings import log_warnings, raise_first_error
from mil.fitted.withholding import RowBags
from mil.models.mil_model import MILModel, Output

Watch = Callable[[int, Bags, Output], object]


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def outputs(model: MILModel, dataset: BagDataset, workers: int = 0) -> Iterator[tuple[int, Bags, Output]]:
    """Each bag of the dataset with what the model says of it, in order."""
    place = device()
    model = model.to(place).eval()
    with torch.inference_mode():
        for batch in loader(dataset, workers=workers):
            bags = batch.bags.to(place).cast(torch.float32)
            yield int(batch.place), bags, model(bags)


def logits(model: MILModel, dataset: BagDataset, workers: int = 0, watch: Watch | None = None) -> Tensor:
    """`(b, c)` on the CPU; `watch` sees each bag with its output as it passes."""
    rows: list[Tensor] = []
    for index, bags, output in outputs(model, dataset, workers):
        rows.append(output.logits.cpu())
        if watch:
            watch(index, bags, output)
    return torch.cat(rows)


def per_patient(values: Tensor, patient: "pd.Series[str]", patients: pd.Index) -> Tensor:
    """Means over each patient's bags, `(b, c)` to `(p, c)`: the unit of every number is the patient."""
    row = torch.from_numpy(patients.get_indexer(pd.Index(patient)))
    amount = torch.bincount(row, minlength=len(patients)).unsqueeze(1)
    return values.new_zeros((len(patients), values.shape[1])).index_add(0, row, values) / amount


def decoded(endpoint: Endpoint, logits: Tensor) -> dict[str, NDArray[np.float64]]:
    """Columns of predictions from logits `(p, c)`, each `(p,)`.

    Patient by patient: a vector unit rounds otherwise than the scalar code for what is left over at the end, so that
    the last bit would depend on who else is in the table.
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
) -> pd.DataFrame:
    """A table of scores: one row a patient of the cohort, or one a slide where there is no cohort.

    What was fitted with the model adds its columns, see `FittedState.apply`.

    `slides` names the slides of a cohort that has one row a patient. `tiles` names a folder for one table a slide: each
    tile's level-0 coordinates and attention, its share of the bag. `reading` is what the user says of files that leave
    it open; None reads them as in training.

    Raises:
        CheckpointError: tiles are asked of a model without attention, no cohort is given to one with covariates, or
            what the manifest says was fitted is no such thing.
        CohortError: the cohort lacks a covariate's column, or has no number where one is needed.
        FeatureError: slides without features, with features of another encoder, or of tiles of another size.
    """
    store = FeatureStore(features, checkpoint.encoder, (), reading or checkpoint.reading, _expected(checkpoint))
    table = _cohort(store, cohort, slides, checkpoint)
    store.resolve(list(table.table["slide"])).require()
    bags = table.bags(checkpoint.manifest.data.bag)
    known = checkpoint.covariates
    beside = None if known is None else known.encode(table.patients.loc[bags["patient"]])
    dataset = BagDataset(store, list(bags["slides"]), torch.zeros(len(bags)), covariates=beside)
    means: list[Tensor] = []
    watches = [] if tiles is None else [_tile_writer(dataset, tiles, checkpoint)]
    if checkpoint.manifest.fitted.novelty is not None:
        watches.append(lambda index, bags, output: means.append(mean(bags)))
    found = logits(checkpoint.model, dataset, workers, lambda *passing: [watch(*passing) for watch in watches])
    patients = table.patients.index
    out = pd.DataFrame({"slide" if cohort is None else "patient": patients})
    out["tiles"] = per_patient(torch.tensor(dataset.sizes).double().unsqueeze(1), bags["patient"], patients).numpy()
    out = out.assign(**decoded(checkpoint.endpoint, per_patient(found, bags["patient"], patients)))
    return checkpoint.manifest.fitted.apply(out, _row_bags(dataset, bags, patients, means))


def mean(bags: Bags) -> Tensor:
    """Of one bag's features, `(d,)` in double precision on the CPU."""
    return (bags.features.sum(0).double() / len(bags.features)).cpu()


def _row_bags(dataset: BagDataset, bags: pd.DataFrame, patients: pd.Index, means: list[Tensor]) -> RowBags:
    return RowBags(
        row=patients.get_indexer(pd.Index(bags["patient"])),
        names=[", ".join(slides) for slides in dataset.slides],
        tiles=np.asarray(dataset.sizes, dtype=np.int64),
        means=torch.stack(means).numpy() if means else None,
    )


def _expected(checkpoint: Checkpoint) -> Expected:
    trained = checkpoint.geometry
    return Expected(trained.mpp, trained.tile_px, f"the checkpoint of {checkpoint.manifest.tool.name}")


def _cohort(store: FeatureStore, path: Path | None, slides: Path | None, checkpoint: Checkpoint) -> Cohort:
    beside = checkpoint.covariates
    if path is not None:
        columns = () if beside is None else beside.columns
        words = checkpoint.words_of(columns)
        cohort = Cohort.read(path, covariates=columns, slides=slides, words=words).require()
        raise_first_error(without_files(cohort.table, store.slides))
        if beside is not None:
            log_warnings(beside.check(cohort.patients))
        return cohort
    if beside is not None:
        raise CheckpointError(
            f"{checkpoint.folder}: reads {', '.join(beside.columns)} of the clinical table, expected --cohort with them"
        )
    return Cohort(pd.DataFrame({"patient": store.slides, "slide": store.slides}, dtype=str))


def _tile_writer(dataset: BagDataset, folder: Path, checkpoint: Checkpoint) -> Watch:
    def write(index: int, bags: Bags, output: Output) -> None:
        if output.attention is None:
            raise CheckpointError(f"{checkpoint.folder}: {checkpoint.manifest.model.name} has no attention to write")
        coords = torch.full((len(bags.features), 2), -1) if bags.coords is None else bags.coords.cpu()
        table = pd.DataFrame(coords.numpy(), columns=["x", "y"]).assign(attention=output.attention.cpu().numpy())
        folder.mkdir(parents=True, exist_ok=True)
        start = 0
        for slide in dataset.slides[index]:
            end = start + dataset.store.header(slide).tiles
            table.iloc[start:end].to_csv(folder / f"{slide}.csv", index=False)
            start = end

    return write
