"""What the model says of each tile alone, less what it says of the reference tile: the default method."""

import torch
from torch import Tensor

from mil.bags import Bags
from mil.explain.explained_model import TILES_AT_ONCE, ExplainedModel
from mil.explain.methods import MethodOptions, Scored
from mil.explain.tile_groups import neighbourhoods
from mil.explain.tile_scores import Method

METHOD = Method(
    name="single",
    title="tile alone",
    signed=True,
    sentence="What the model would say if this tile were all the tissue, compared with an average tile.",
)


def score(model: ExplainedModel, bag: Bags, options: MethodOptions) -> Scored:
    """Return the outputs of the bag of each tile alone, less those of the reference tile.

    With `options.group` a bag holds the tile and its nearest neighbours on its slide, for models that read context; the
    reference is then as many copies of the reference tile, at the places of the first group.
    """
    if not options.group:
        alone = model.outputs_of(model.single_logits(bag))
        return Scored(scores=alone - model(model.reference_bag(bag)))
    index = neighbourhoods(bag, options.group)  # (n, k + 1)
    rows = max(1, TILES_AT_ONCE // index.shape[1])
    values = torch.cat([model(_groups(bag, block)) for block in torch.split(index, rows)])
    first = _groups(bag, index[:1])
    reference = first.with_features(model.reference.float().expand(len(first.features), -1))
    note = f"Each tile is read together with its {index.shape[1] - 1} nearest neighbours."
    return Scored(scores=values - model(reference), note=note)


def _groups(bag: Bags, index: Tensor) -> Bags:
    """Return one bag for each row of tiles `(g, k)`."""
    covariates = None if bag.covariates is None else bag.covariates.expand(len(index), -1)
    tiles, sizes = index.flatten(), (index.shape[1],) * len(index)
    coords, slide = (None if rows is None else rows[tiles] for rows in (bag.coords, bag.slide))
    return Bags(bag.features[tiles], sizes, coords, slide, covariates)
