"""What changes when a tile is missing."""

import torch

from mil.bags import Bags
from mil.explain.coalitions import Coalitions
from mil.explain.explained_model import ExplainedModel
from mil.explain.methods import MethodOptions, Scored
from mil.explain.tile_groups import neighbourhoods, patches
from mil.explain.tile_scores import Method

METHOD = Method(
    name="leave_one_out",
    title="tile missing",
    signed=True,
    sentence="How much the result falls when this tile is missing. It does not say where a finding lies: where many "
    "tiles show it, none of them is missed.",
)
MOST = 512
"""Bags without a tile that are read of a model without closed form; larger bags lose a patch of tiles at a time."""
_AT_ONCE = 4096


def score(model: ExplainedModel, bag: Bags, options: MethodOptions) -> Scored:
    """Return the bag's outputs less those without each tile, or without it and its `options.group` neighbours.

    For weighted means of tiles in closed form: the sums without the tile, divided by the weights without it. A bag of
    one tile without it is a bag of the reference tile. Of other models, bags of more than `MOST` tiles lose patches.
    """
    coalitions, n = Coalitions(model, bag), len(bag.features)
    complete = model(bag)
    if options.group:
        groups, note = neighbourhoods(bag, options.group), ""
        note = f"Each tile is missing together with its {groups.shape[1] - 1} nearest neighbours."
        without = torch.cat([coalitions.without(block) for block in torch.split(groups, _AT_ONCE)])
        return Scored(scores=complete - without, note=note)
    if coalitions.terms is not None or n <= MOST:
        without = torch.cat([coalitions.without(block) for block in torch.split(torch.arange(n)[:, None], _AT_ONCE)])
        return Scored(scores=complete - without)
    patch = patches(bag, MOST // 2)
    members = [(patch == number).nonzero().flatten() for number in range(int(patch.max()) + 1)]
    without = torch.cat([coalitions.without(rows[None]) for rows in members])
    largest = max(map(len, members))
    return Scored(scores=(complete - without)[patch], note=f"Tiles are missing in patches of up to {largest}.")
