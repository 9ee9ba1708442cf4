"""Which tiles lie beside which: exact neighbour graphs, in time linear in tiles where tissue lies on a grid.

Tiles are sorted into square cells, slide by slide. Three cells side by side are then one run of the sorted list, and
the nine cells around a tile are three binary searches; no table of n x n is made. Tiles on different slides (or of
different bags) are never neighbours. Places are whole pixels; fractions are rounded.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mil.bags import Bags

PAIRS = 2**22
"""Pairs of tiles looked at together: bounds memory, changes no result."""
NOBODY = torch.iinfo(torch.int64).max


@dataclass(frozen=True, eq=False)
class Places:
    """Where `n` tiles lie on `s` slides, counted through all bags."""

    xy: Tensor
    """`(n, 2)`, int64, pixels"""
    slide: Tensor
    """`(n,)`, int64, from 0; every slide has a tile"""

    @classmethod
    def of(cls, bags: Bags) -> "Places":
        """The places of the bags' tiles.

        Raises:
            ValueError: the bags have no coordinates.
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
        return _reduced(self.slide, self.xy, "amin")

    @cached_property
    def span(self) -> Tensor:
        """`(s, 2)`, the largest x and y of each slide, counted from its corner."""
        return _reduced(self.slide, self.xy, "amax") - self.corner

    @cached_property
    def step(self) -> Tensor:
        """`(s,)`, pixels from one tile to the next on each slide's grid.

        The commonest distance between one tile of a row or column and the next, the smallest of equally common ones: a
        few rows that the grids of two pieces of tissue share by chance, or places that the producer rounded, do not
        matter. No distance counts that is too long for half of the slide's tiles to lie on a grid of it. Where none is
        left, the smallest difference of two rows or columns; else 1.
        """
        lines = torch.cat([self._gaps(0, aligned=True), self._gaps(1, aligned=True)], 1)  # (2, g): slide, pixels
        room = (self.span[lines[0]] + lines[1].unsqueeze(1)).prod(1)
        lines = lines[:, torch.bincount(self.slide)[lines[0]] * lines[1] ** 2 <= 2 * room]
        every = torch.cat([self._gaps(0, aligned=False), self._gaps(1, aligned=False)], 1)
        smallest = _reduced(every[0], every[1], "amin", like=self.corner[:, 0], empty=1)
        commonest = _commonest(lines[0], lines[1], like=smallest)
        return torch.where(commonest > 0, commonest, smallest)

    def _gaps(self, axis: int, aligned: bool) -> Tensor:
        """`(2, g)`: slides and positive differences along the axis from tile to next, of those in line or of all."""
        keys = [self.slide, self.xy[:, 1 - axis], self.xy[:, axis]] if aligned else [self.slide, self.xy[:, axis]]
        order = _lexical(keys)
        gap = self.xy[order, axis].diff()
        same = torch.stack([key[order].diff() == 0 for key in keys[:-1]]).all(0) & (gap > 0)
        return torch.stack([self.slide[order][1:][same], gap[same]])


@dataclass(frozen=True, eq=False)
class Nearest:
    """The `k` tiles nearest to each, nearest first."""

    index: Tensor
    """`(n, k)`, rows of tiles; the tile itself where not valid"""
    valid: Tensor
    """`(n, k)`, bool; false where the slide has fewer others"""


def nearest(places: Places, k: int) -> Nearest:
    """Each tile's `k` nearest others on its slide, by Euclidean distance.

    Of several at the same distance the one further up, then further left, comes first: the order of tiles does not
    matter, unless several lie at one and the same place.
    """
    tiles = torch.arange(len(places.slide), device=places.slide.device)
    index, valid = tiles.unsqueeze(1).repeat(1, k), torch.zeros(len(tiles), k, dtype=torch.bool, device=tiles.device)
    by_rank = _lexical([places.xy[:, 1], places.xy[:, 0]])
    rank = torch.empty_like(by_rank).scatter_(0, by_rank, tiles)
    side = _first_side(places)
    while len(tiles):
        cells, open_ = _Cells(places, side), []
        for some in cells.batches(tiles):
            keys = cells.closest(some, k, rank)  # (q, k)
            valid[some] = keys < NOBODY
            index[some] = torch.where(valid[some], by_rank[keys % len(rank)], some.unsqueeze(1))
            # whoever is not in the nine cells is further away than a cell is wide
            near = keys[:, -1] // len(rank) <= side[places.slide[some]] ** 2
            open_.append(some[~near & (side < places.span.amax(1))[places.slide[some]]])
        tiles, side = torch.cat(open_), 2 * side
    return Nearest(index, valid)


def adjacent(places: Places) -> Tensor:
    """`(2, p)`: all ordered pairs of tiles that touch on the grid of their slide, side by side or by a corner.

    These are tiles nearer than one and a half steps in x and in y: more than one, because producers round the places of
    a grid whose step is no whole number, and less than two.
    """
    cells, pairs = _Cells(places, (3 * places.step + 1) // 2), []
    for some in cells.batches(torch.arange(len(places.slide), device=places.slide.device)):
        one, other = cells.pairs(some)
        one = some[one]
        apart = (places.xy[one] - places.xy[other]).abs().amax(1)
        touch = (2 * apart < 3 * places.step[places.slide[one]]) & (one != other)
        pairs.append(torch.stack([one[touch], other[touch]]))
    return torch.cat(pairs, 1)


class _Cells:
    """Tiles sorted by slide, row and column of the square cell that they lie in; `side` `(s,)` in pixels."""

    def __init__(self, places: Places, side: Tensor) -> None:
        self.places = places
        # an empty row and column around each slide: neighbours of a border cell are no other slide's
        cell = (places.xy - places.corner[places.slide]) // side[places.slide].unsqueeze(1) + 1  # (n, 2)
        columns, rows = (cell.amax(0) + 2).tolist()
        self.key = (places.slide * rows + cell[:, 1]) * columns + cell[:, 0]  # (n,)
        self.sorted, self.order = self.key.sort()
        self.around = columns * torch.arange(-1, 2, device=cell.device)

    def runs(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """Start and length `(q, 3)` of the runs of `order` that lie in the nine cells around each tile."""
        middle = self.key[tiles].unsqueeze(1) + self.around
        start = torch.searchsorted(self.sorted, middle - 1)
        return start, torch.searchsorted(self.sorted, middle + 1, right=True) - start

    def batches(self, tiles: Tensor) -> Iterator[Tensor]:
        """The tiles in parts of about `PAIRS` pairs at most."""
        most = int(self.runs(tiles)[1].sum(1).max())
        yield from torch.split(tiles, max(1, PAIRS // most))

    def pairs(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """Which of `tiles`, and the tile in the nine cells around it: `(p,)` each, in the order of `tiles`."""
        start, length = (value.flatten() for value in self.runs(tiles))
        run = torch.repeat_interleave(torch.arange(len(length), device=length.device), length)
        place = torch.arange(len(run), device=run.device) - (length.cumsum(0) - length - start)[run]
        return run // 3, self.order[place]

    def closest(self, tiles: Tensor, k: int, rank: Tensor) -> Tensor:
        """`(q, k)`: squared distance * n + rank of the nearest in the nine cells, or `NOBODY`."""
        one, other = self.pairs(tiles)
        xy = self.places.xy
        key = (xy[tiles[one]] - xy[other]).square().sum(1) * len(rank) + rank[other]
        key = key.masked_fill(tiles[one] == other, NOBODY)
        count = torch.bincount(one, minlength=len(tiles))
        column = torch.arange(len(one), device=one.device) - (count.cumsum(0) - count)[one]
        table = key.new_full((len(tiles), max(k, int(count.max()))), NOBODY)
        table[one, column] = key
        return table.topk(k, largest=False).values


def _first_side(places: Places) -> Tensor:
    """`(s,)`: two steps, whose nine cells hold the eight around a tile of a grid; less where tiles lie denser."""
    tiles = torch.bincount(places.slide)
    spread = ((places.span + 1).prod(1) / tiles).sqrt().ceil().long()
    return 2 * torch.minimum(places.step, spread)


def _lexical(keys: list[Tensor]) -> Tensor:
    """The order `(n,)` by the first key, within it by the second, ..."""
    order = keys[-1].argsort(stable=True)
    for key in reversed(keys[:-1]):
        order = order[key[order].argsort(stable=True)]
    return order


def _reduced(group: Tensor, values: Tensor, how: str, like: Tensor | None = None, empty: int = 0) -> Tensor:
    """Smallest or largest of `values` `(n, ...)` in each group: `(s, ...)`, with `empty` where a group has none."""
    rows = int(group.max()) + 1 if like is None else len(like)
    start = values.new_full((rows, *values.shape[1:]), empty)
    index = group.view(-1, *(1,) * (values.dim() - 1)).expand_as(values)
    return start.scatter_reduce(0, index, values, how, include_self=False)


def _commonest(group: Tensor, values: Tensor, like: Tensor) -> Tensor:
    """`(s,)`: the commonest of the positive values in each group, the smallest of equally common ones; else 0."""
    if not len(values):
        return torch.zeros_like(like)
    base = int(values.max()) + 1
    each, count = torch.unique(group * base + values, return_counts=True)
    # one number to compare by: how often, then how small
    best = _reduced(each // base, count * base + (base - 1 - each % base), "amax", like)
    return torch.where(best > 0, base - 1 - best % base, 0)
