"""Pass bags through models: bag by bag, with all tiles, in single precision; each bag is read once for all models.

A bag is read alone and in full precision, so that its score depends neither on its neighbours in a batch nor on what
trained the model: the run's own predictions and those of a fresh process on the same machine are the same numbers.
Nor does it depend on which other models read the bag.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil import tile_rows
from mil.bags import Bags
from mil.endpoints.endpoint import Endpoint
from mil.errors import ResourceError
from mil.features.batches import BagDataset, Batch, Draw, loader, reading
from mil.inference.room import check_room, free_bytes
from mil.memory import enough_for
from mil.models.mil_model import MILModel, Output
from mil.progress import counted
from mil.tables import listed
from mil.tile_rows import blocks

Watch = Callable[[int, Bags, Output], object]
_HELD_SHARE = 0.25
"""Part of the free memory that a large bag may take so that several models need to read it only once."""


LeaveOut = Callable[[int, ResourceError], bool]
"""Decides whether a model without enough memory or time for a bag is left out, by its number."""


class BagOutput(NamedTuple):
    """What one of several models gives for a bag."""

    model: int
    """number of the model"""
    bag: int
    bags: Bags
    output: Output


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
    for _, bag, bags, output in outputs_of_each([model], [dataset], workers, unlimited):
        yield bag, bags, output
        del bags, output  # before the next bag is read


def outputs_of_each(
    models: Sequence[MILModel],
    datasets: Sequence[BagDataset],
    workers: int = 0,
    unlimited: bool = False,
    leave_out: LeaveOut = lambda model, error: False,
) -> Iterator[BagOutput]:
    """Yield what every model gives for each bag, bag after bag; a bag is read once, for all models.

    Large bags are read once where they fit into a part of the free memory, else by each model in pieces.

    Args:
        models: The models.
        datasets: The bags of each model; they differ in nothing but their covariates.
        workers: Processes that read ahead.
        unlimited: Try bags for which there are not enough memory and time.
        leave_out: Called with the number of a model that has not enough memory or time for a bag; where it returns
            true the model is left out from there on, else the error is raised.

    Raises:
        ResourceError: As in `outputs`.
    """
    place, first = device(), datasets[0]
    active = {number: model.to(place).eval() for number, model in enumerate(models)}
    large = [first.is_large(bag) for bag in range(len(first))]
    small = [[Draw(bag)] for bag in range(len(first)) if not large[bag]]
    with torch.inference_mode():
        batches = iter(loader(first, small, workers))
        for bag, in_pieces in counted(enumerate(large), "predicting", len(first)):
            described = partial(_described, first, bag)
            with reading(), enough_for(described):
                read = _LargeBag(bag, unlimited, len(active) > 1) if in_pieces else _SmallBag(next(batches).bags)
            for number, model in list(active.items()):
                try:
                    with enough_for(described):
                        bags = _with_covariates(read.bags_for(model, datasets[number]), datasets[number], bag)
                        output = model(bags)
                except ResourceError as error:
                    if not leave_out(number, error):
                        raise
                    del active[number]
                    continue
                yield BagOutput(number, bag, bags, output)
                del bags, output
            del read
            if not active:
                return


def _with_covariates(bags: Bags, dataset: BagDataset, bag: int) -> Bags:
    if dataset.covariates is None:
        return bags if bags.covariates is None else replace(bags, covariates=None)
    return replace(bags, covariates=dataset.covariates[bag : bag + 1].to(bags.features.device))


class _SmallBag:
    """A bag in memory, in single precision as each model takes it."""

    def __init__(self, bags: Bags) -> None:
        self._stored = bags.to(device(), non_blocking=True)  # the loader pins what a GPU reads
        self._single: Bags | None = None

    def bags_for(self, model: MILModel, dataset: BagDataset) -> Bags:
        if model.reads_in_blocks():
            return self._stored.cast_in_blocks(torch.float32)
        if self._single is None:
            self._single = self._stored.cast(torch.float32)
        return self._single


class _LargeBag:
    """A bag that models read in pieces from the files; from memory where several models read it and it fits there."""

    def __init__(self, bag: int, unlimited: bool, is_shared: bool) -> None:
        self._bag, self._unlimited, self._is_shared = bag, unlimited, is_shared
        self._pieces: Bags | None = None

    def bags_for(self, model: MILModel, dataset: BagDataset) -> Bags:
        if model.reads_in_pieces():
            if self._pieces is None:
                self._pieces = self._held(dataset.read_in_pieces(self._bag).bags)
            bags = self._pieces
        else:
            bags = read_large(model, dataset, self._bag, self._unlimited).bags
        bags = bags.to(device())
        return bags.cast_in_blocks(torch.float32) if model.reads_in_blocks() else bags.cast(torch.float32)

    def _held(self, bags: Bags) -> Bags:
        features = bags.features
        stored = features.numel() * features.element_size()
        if not self._is_shared or stored > _HELD_SHARE * free_bytes():
            return bags
        return bags.with_features(tile_rows.computed_once(features))


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


def mean(bags: Bags) -> Tensor:
    """Return the mean features of one bag, `(d,)`, in double precision on the CPU; summed in blocks of tiles."""
    total = bags.features.new_zeros(bags.features.shape[1], dtype=torch.float64)
    for rows in blocks(bags.features):
        total += rows.float().sum(0)
    return (total / len(bags.features)).cpu()
