"""The tile that every tile is compared with: the mean of the training tiles."""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mil.checkpoint import Checkpoint
from mil.features.batches import BagDataset
from mil.fitted.novelty import unpacked
from mil.tile_rows import blocks

logger = logging.getLogger(__name__)
ROWS = 2**17
"""Tiles that are summed at a time."""
TRAINING, BAGS, GIVEN = "training tiles", "means of the training bags", "tiles of the given cohort"


@dataclass(frozen=True, eq=False)
class ReferenceTile:
    """The features `(d,)`, and what they are the mean of."""

    features: Tensor
    mean_of: str


def stored_reference(checkpoint: Checkpoint) -> ReferenceTile | None:
    """Return the reference tile that a checkpoint records; None for an older one that records none.

    It is the mean of the training tiles, recorded since version 0.2; of older checkpoints that withhold unusual slides
    it is the mean of the training bags' means.
    """
    stored, novelty = checkpoint.manifest.data.mean_tile, checkpoint.manifest.fitted.novelty
    if stored is not None:
        return ReferenceTile(torch.from_numpy(unpacked(stored).astype(np.float32)), TRAINING)
    if novelty is not None and novelty.features is not None:
        return ReferenceTile(torch.from_numpy(novelty.features.space().mean.astype(np.float32)), BAGS)
    return None


def reference_of(checkpoint: Checkpoint, dataset: BagDataset) -> ReferenceTile:
    """Return the reference tile of a checkpoint; of one that records none, the mean of the given tiles.

    The latter is logged: scores then depend on what else is explained.
    """
    if (stored := stored_reference(checkpoint)) is not None:
        return stored
    logger.warning(
        "%s: an older checkpoint without the mean of its training tiles: tiles are compared with the mean of the given "
        "%d bags; explain the same slides together, or train again",
        checkpoint.folder,
        len(dataset),
    )
    return ReferenceTile(mean_of_bags(dataset), GIVEN)


def mean_of_bags(dataset: BagDataset) -> Tensor:
    """Return the mean features of all tiles of the bags, `(d,)`; at most one slide is in memory at a time."""
    total, tiles = None, 0
    for slide in dict.fromkeys(slide for bag in dataset.slides for slide in bag):
        features = dataset.store.features(slide)
        for rows in blocks(features, ROWS):
            summed = rows.float().sum(0).double()
            total = summed if total is None else total + summed
        tiles += len(features)
    if total is None:
        raise ValueError("a data set without bags has no mean")
    return (total / tiles).float()
