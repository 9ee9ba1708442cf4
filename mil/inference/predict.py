"""Scores of patients from a model: bag by bag, whole bags, in single precision.

A bag is read alone and in full precision, so that its score depends neither on its neighbours in a batch nor on what
trained the model: the run's own predictions and those of a fresh process on the same machine are the same numbers.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from mil.bags import Bags
from mil.checkpoint import Checkpoint
from mil.data.batches import BagDataset, loader
from mil.data.cohort import Cohort
from mil.data.features import FeatureStore
from mil.errors import CheckpointError
from mil.models.base import MILModel, Output

Watch = Callable[[int, Bags, Output], None]


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


def predict(
    checkpoint: Checkpoint, features: Path, cohort: Path | None = None, tiles: Path | None = None, workers: int = 0
) -> pd.DataFrame:
    """A table of scores: one row a patient of the cohort, or one a slide where there is no cohort.

    `tiles` names a folder for one table a slide: each tile's level-0 coordinates and attention, its share of the bag.

    Raises:
        CheckpointError: tiles are asked of a model without attention.
        FeatureError: slides without features, or with features of another encoder.
    """
    store = FeatureStore(features, checkpoint.encoder)
    table = _cohort(store, cohort, checkpoint)
    store.resolve(list(table.table["slide"]))
    bags = table.bags(checkpoint.manifest.data.get("bag", "patient"))
    dataset = BagDataset(store, list(bags["slides"]), torch.zeros(len(bags)))
    watch = None if tiles is None else _tile_writer(dataset, tiles, checkpoint)
    found = logits(checkpoint.model, dataset, workers, watch)
    patients = table.patients.index
    scores = checkpoint.endpoint.decode(per_patient(found, bags["patient"], patients))
    out = pd.DataFrame({"slide" if cohort is None else "patient": patients})
    out["tiles"] = per_patient(torch.tensor(dataset.sizes).double().unsqueeze(1), bags["patient"], patients).numpy()
    return out.assign(**{name: column.numpy() for name, column in scores.items()})


def _cohort(store: FeatureStore, path: Path | None, checkpoint: Checkpoint) -> Cohort:
    if path is not None:
        return Cohort.read(path).having(store.slides, "error")
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
