"""Tiles of training patients, to which some models are fitted before training."""

import numpy as np
import torch

from mil.errors import TrainingError
from mil.features.batches import BagDataset, Draw
from mil.models.mil_model import MILModel


def fit_tiles(model: MILModel, data: BagDataset, seed: int) -> None:
    """Fit what does not learn by gradients to tiles of the bags, of each bag at most the same number.

    Args:
        model: Fitted in place.
        data: Bags of training patients only.
        seed: Of the draw of tiles.

    Raises:
        TrainingError: There are too few tiles.
    """
    each = -(-model.tiles_to_fit // len(data))
    drawn = []
    for bag in range(len(data)):
        tiles = data[[Draw(bag)]].bags.features
        rng = np.random.default_rng((seed, bag))
        rows = np.sort(rng.choice(len(tiles), min(each, len(tiles)), replace=False))
        drawn.append(tiles[torch.from_numpy(rows)].float())
    try:
        model.fit_tiles(torch.cat(drawn))
    except ValueError as error:
        raise TrainingError(f"the model cannot be fitted to the tiles of {len(data)} training bags: {error}") from None
