"""Neighbours of tiles: exact graphs for each slide, by scipy's k-d tree.

Tiles on different slides, or of different bags, are never neighbours. Coordinates are whole pixels; fractions are
rounded. A slide's graph depends on its coordinates alone, so it is computed once and kept for later epochs while
`CACHE_BYTES` suffice.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from mil.bags import Bags

CACHE_BYTES = 2**28
"""Memory for the graphs of slides that were seen; the least recently used is dropped first."""
AT_ONCE = 2**16
"""Tiles whose neighbours are looked for at a time: bounds memory, changes no result."""
TIES = 16
"""Further tiles looked at beyond the k nearest, so that ties are broken by place: on a grid at most 16 tiles lie at the
same distance up to 18 steps away."""
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Places:
    """Where `n` tiles lie on `s` slides, counted through all bags."""

    xy: Tensor
    """`(n, 2)`, int64, pixels"""
    slide: Tensor
    """`(n,)`, int64, from 0; every slide has a tile"""

    @classmethod
    def of(cls, bags: Bags) -> "Places":
        """Return the places of the bags' tiles.

        Raises:
            ValueError: The bags have no coordinates.
        """
        if bags.coords is None:
            raise ValueError("the model reads where tiles lie, but the bags have no coordinates")
        xy, slide = bags.coords.double().round().long(), bags.bag
        if bags.slide is not None:
            slide = torch.unique(slide * (bags.slide.max() + 1) + bags.slide.long(), return_inverse=True)[1]
        return cls(xy, slide)

    @cached_property
    def corner(self) -> Tensor:
        """`(s, 2)`, the smallest x and y of each slide."""
        slides = int(self.slide.max()) + 1
        index = self.slide.unsqueeze(1).expand_as(self.xy)
        return self.xy.new_zeros(slides, 2).scatter_reduce(0, index, self.xy, "amin", include_self=False)

    @cached_property
    def step(self) -> Tensor:
        """`(s,)`, pixels from one tile to the next on each slide's grid, see `grid_step`."""
        return torch.tensor([grid_step(xy) for _, xy in self._slides], device=self.xy.device)

    @cached_property
    def _slides(self) -> list[tuple[Ints, Ints]]:
        """The rows `(m,)` and pixels `(m, 2)` of each slide's tiles, sorted by y, then x.

        Sorted, because a k-d tree breaks ties by the order of its points and the order of tiles must not matter.
        """
        xy, slide = self.xy.cpu().numpy(), self.slide.cpu().numpy()
        order = np.lexsort((xy[:, 0], xy[:, 1], slide))
        ends = np.cumsum(np.bincount(slide))[:-1]
        return [(rows, xy[rows]) for rows in np.split(order, ends)]


@dataclass(frozen=True, eq=False)
class Nearest:
    """The `k` tiles nearest to each, nearest first."""

    index: Tensor
    """`(n, k)`, rows of tiles; the tile itself where not valid"""
    valid: Tensor
    """`(n, k)`, bool; false where the slide has fewer other tiles"""


def nearest(places: Places, k: int) -> Nearest:
    """Return each tile's `k` nearest other tiles on its slide, by Euclidean distance.

    Of several at the same distance the one further up, then further left, comes first: the order of tiles does not
    matter, unless several lie at one and the same place.
    """
    index, valid = np.empty((len(places.slide), k), np.int64), np.zeros((len(places.slide), k), np.bool_)
    for rows, xy in places._slides:
        neighbours = _cached("nearest", xy, k, partial(_nearest, xy, k))
        present = neighbours >= 0
        valid[rows] = present
        index[rows] = np.where(present, rows[neighbours], rows[:, None])
    device = places.xy.device
    return Nearest(torch.from_numpy(index).to(device), torch.from_numpy(valid).to(device))


def adjacent(places: Places) -> Tensor:
    """Return `(2, p)`: all ordered pairs of tiles that touch on the grid of their slide, side by side or by a corner.

    These are tiles nearer than one and a half steps in x and in y: more than one, because producers round the places of
    a grid whose step is no whole number, and less than two.
    """
    pairs = [rows[_cached("adjacent", xy, 0, partial(_adjacent, xy))] for rows, xy in places._slides]
    return torch.from_numpy(np.concatenate(pairs).T).to(places.xy.device)


def grid_step(xy: Ints) -> int:
    """Return the pixels from one tile to the next on the grid of a slide's tiles `(m, 2)`.

    The commonest distance between one tile of a row or column and the next, the smallest of equally common ones: a few
    rows that the grids of two pieces of tissue share by chance, or places that the producer rounded, do not matter. No
    distance counts that is too long for half of the tiles to lie on a grid of it. Where none is left, the smallest
    difference of two rows or columns; else 1.
    """
    distances = np.concatenate([_gaps(xy[:, 1 - axis], xy[:, axis]) for axis in (0, 1)])
    distances = distances[len(xy) * distances**2 <= 2 * (np.ptp(xy, axis=0) + distances[:, None]).prod(1)]
    if len(distances):
        values, counts = np.unique(distances, return_counts=True)
        return int(values[counts.argmax()])
    differences = np.concatenate([np.diff(np.unique(xy[:, axis])) for axis in (0, 1)])
    return int(differences.min(initial=np.iinfo(np.int64).max)) if len(differences) else 1


def _gaps(line: Ints, place: Ints) -> Ints:
    """Positive distances between one tile and the next on the same line."""
    order = np.lexsort((place, line))
    gaps = np.diff(place[order])
    same_line = np.diff(line[order]) == 0
    return np.asarray(gaps[same_line & (gaps > 0)])


def _nearest(xy: Ints, k: int) -> Ints:
    """Return `(m, k)`, rows of the nearest tiles of one slide, -1 where it has fewer others."""
    tiles, candidates = len(xy), min(len(xy), k + 1 + TIES)
    count = min(k, tiles - 1, candidates)
    tree, neighbours = cKDTree(xy), np.full((tiles, k), -1)
    for start in range(0, tiles, AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, tiles))
        index = tree.query(xy[rows], k=np.arange(1, candidates + 1))[1]  # (r, candidates)
        squared = ((xy[index] - xy[rows, None]) ** 2).sum(2)
        squared[index == rows[:, None]] = np.iinfo(np.int64).max  # the tile itself comes last
        # rows are sorted by place, so that the index is the rank of the place
        order = np.lexsort((index, squared))[:, :k]
        neighbours[rows, :count] = np.take_along_axis(index, order, 1)[:, :count]
    return neighbours


def _adjacent(xy: Ints) -> Ints:
    """Return `(p, 2)`, the pairs of touching tiles of one slide, both ways."""
    reach = (3 * grid_step(xy) - 1) // 2
    pairs = cKDTree(xy).query_pairs(reach, p=np.inf, output_type="ndarray").astype(np.int64)
    both = np.concatenate([pairs, pairs[:, ::-1]])
    return both[np.lexsort((both[:, 1], both[:, 0]))]


_cache: OrderedDict[tuple[str, bytes, int], Ints] = OrderedDict()


def _cached(graph: str, xy: Ints, k: int, compute: Callable[[], Ints]) -> Ints:
    """Return a slide's graph, computed where it is not kept."""
    key = (graph, hashlib.sha256(np.ascontiguousarray(xy).tobytes()).digest(), k)
    if key in _cache:
        _cache.move_to_end(key)
        return _cache[key]
    _cache[key] = neighbours = compute()
    while sum(graphs.nbytes for graphs in _cache.values()) > CACHE_BYTES and len(_cache) > 1:
        _cache.popitem(last=False)
    return neighbours
