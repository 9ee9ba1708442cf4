"""Shapley values: the result shared among the tiles, over all orders in which they could have been added.

L. S. Shapley: A value for n-person games. 1953. By random orders: J. Castro, D. Gomez, J. Tejada, Computers and
Operations Research 36, 2009; each order is also taken backwards, which makes errors smaller.
"""

from itertools import combinations
from math import comb

import torch
from torch import Tensor

from mil.bags import Bags
from mil.explain.coalitions import Coalitions
from mil.explain.explained_model import ExplainedModel
from mil.explain.methods import MethodOptions, Scored
from mil.explain.tile_groups import patches
from mil.explain.tile_scores import Method

METHOD = Method(
    name="shapley",
    title="Shapley value",
    signed=True,
    sentence="This tile's share of the result, mean over the orders in which tiles could have been added. "
    "The shares of all tiles add up to the result.",
)
EXACT = 8
"""Tiles up to which all sets of tiles are read."""
MOST = 32
"""Patches of tiles that share the result, of models without closed form."""


def score(model: ExplainedModel, bag: Bags, options: MethodOptions) -> Scored:
    """Return Shapley values; a bag without tiles is a bag of the reference tile.

    Exact for bags of up to `EXACT` tiles, else over random orders, with the standard error. Where the model is no
    weighted mean of tiles, patches of tiles are the players, and a patch's value is shared equally by its tiles.
    """
    coalitions, n = Coalitions(model, bag), len(bag.features)
    if n <= EXACT:
        return Scored(scores=_exact(coalitions, n))
    player = torch.arange(n) if coalitions.terms is not None else patches(bag, MOST)
    pairs = max(1, options.permutations // 2)
    generator = torch.Generator().manual_seed(options.seed)
    players, outputs = int(player.max()) + 1, len(model.outputs)
    total, squares = torch.zeros(2, players, outputs, dtype=torch.float64)
    for _ in range(pairs):
        order = torch.randperm(players, generator=generator)
        value = (_gains(coalitions, player, order) + _gains(coalitions, player, order.flip(0))) / 2
        total += value
        squares += value**2
    mean = total / pairs
    size = torch.bincount(player)[player].unsqueeze(1)
    error = ((squares / pairs - mean**2).clamp(min=0) / max(1, pairs - 1)).sqrt()
    note = f"Mean of {2 * pairs} random orders"
    note += f" of patches of up to {int(size.max())} tiles." if int(size.max()) > 1 else "."
    return Scored(scores=mean[player] / size, error=error[player] / size, note=note)


def _gains(coalitions: Coalitions, player: Tensor, order: Tensor) -> Tensor:
    """Return what each player adds when the players come in this order, `(p, o)`."""
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    tiles = rank[player].argsort(stable=True)
    counts = torch.bincount(rank[player]).cumsum(0)
    values = torch.cat([coalitions.empty, coalitions.firsts(tiles, counts.tolist())])
    gains = torch.empty_like(values[1:])
    gains[order] = values.diff(dim=0)
    return gains


def _exact(coalitions: Coalitions, n: int) -> Tensor:
    """Return the exact values of `n` tiles, `(n, o)`: what a tile adds to each set of others, weighted."""
    sets = [tiles for size in range(n + 1) for tiles in combinations(range(n), size)]
    place = {tiles: at for at, tiles in enumerate(sets)}
    values = coalitions.sets([torch.tensor(tiles, dtype=torch.int64) for tiles in sets])
    shares = torch.zeros(n, values.shape[1], dtype=torch.float64)
    for tiles in sets[1:]:
        for tile in tiles:
            before = tuple(each for each in tiles if each != tile)
            gain = values[place[tiles]] - values[place[before]]
            shares[tile] += gain / (n * comb(n - 1, len(before)))
    return shares
