"""Joins neighbouring cells of one value into polygons with holes."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mil.explain.tile_grid import TileGrid

Corner = tuple[int, int]
"""Column and row of a corner of a cell."""
Ring = list[Corner]
"""Closed: the last corner is the first."""
Point = tuple[float, float]
"""x and y in level-0 pixels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CellRegion:
    """Cells that hang together by their sides.

    Attributes:
        value: Their common value.
        rows: `(k,)`, rows of the cells.
        columns: `(k,)`, columns of the cells.
        rings: Outline, then the outlines of the holes.
    """

    value: int
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    rings: list[Ring]

    def outlines(self, grid: TileGrid, start: Point) -> list[list[Point]]:
        """Return the rings in level-0 pixels, counted from an origin."""
        return [
            [
                (whole(grid.x + column * grid.dx - start[0]), whole(grid.y + row * grid.dy - start[1]))
                for column, row in ring
            ]
            for ring in self.rings
        ]


def whole(number: float) -> float:
    """Return whole numbers as integers, so that files stay small."""
    return int(number) if number == int(number) else number


def cell_regions(values: NDArray[np.int64]) -> Iterator[CellRegion]:
    """Yield the regions of equal values of a grid `(r, c)`; cells below 0 are empty."""
    for value in np.unique(values[values >= 0]):
        labels, _ = ndimage.label(values == value)
        for number, window in enumerate(ndimage.find_objects(labels), start=1):
            rows, columns = np.nonzero(labels[window] == number)
            rows, columns = rows + window[0].start, columns + window[1].start
            yield CellRegion(value=int(value), rows=rows, columns=columns, rings=_rings(rows, columns))


def _rings(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> list[Ring]:
    """Chain the sides that only one cell of the region has, clockwise around it; holes turn the other way."""
    cells = set(zip(columns.tolist(), rows.tolist(), strict=True))
    following = dict[Corner, list[Corner]]()
    for column, row in cells:
        corners = ((column, row), (column + 1, row), (column + 1, row + 1), (column, row + 1))
        neighbours = ((column, row - 1), (column + 1, row), (column, row + 1), (column - 1, row))
        for side, neighbour in enumerate(neighbours):
            if neighbour not in cells:
                following.setdefault(corners[side], []).append(corners[(side + 1) % 4])
    rings = list[Ring]()
    while following:
        rings.append(_chain(following))
    return sorted(rings, key=_doubled_area, reverse=True)


def _chain(following: dict[Corner, list[Corner]]) -> Ring:
    """Take one ring out of the sides; corners on a straight line are left out."""
    start = next(iter(following))
    path = [start, _take(following, start, None)]
    while path[-1] != start or len(path) < 4:
        path.append(_take(following, path[-1], path[-2]))
    return _straightened(path)


def _take(following: dict[Corner, list[Corner]], corner: Corner, before: Corner | None) -> Corner:
    """Return the end of the next side. Where two cells touch at a corner, turn left, away from the cells.

    So a ring never touches itself: an outline and a hole that meet at a corner stay two rings, as valid polygons need.
    """
    ends = following[corner]
    chosen = ends[0]
    if len(ends) > 1 and before is not None:
        heading = (corner[0] - before[0], corner[1] - before[1])
        left = (corner[0] + heading[1], corner[1] - heading[0])
        chosen = left if left in ends else ends[0]
    ends.remove(chosen)
    if not ends:
        del following[corner]
    return chosen


def _straightened(path: Ring) -> Ring:
    corners = path[:-1]
    ring = [
        corner
        for at, corner in enumerate(corners)
        if not _in_line(corners[at - 1], corner, corners[(at + 1) % len(corners)])
    ]
    return [*ring, ring[0]]


def _in_line(before: Corner, corner: Corner, after: Corner) -> bool:
    return before[0] == corner[0] == after[0] or before[1] == corner[1] == after[1]


def _doubled_area(ring: Ring) -> int:
    return sum(x * next_y - next_x * y for (x, y), (next_x, next_y) in pairwise(ring))
