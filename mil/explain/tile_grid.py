"""The tiles of a slide as a grid of equal cells, for formats that know grids only.

Tiles need not lie on a grid: they may overlap, or have other extents after a change of scanner. A cell is therefore as
large as the greatest common divisor of all offsets and extents, so that each tile covers whole cells and no edge moves;
a cell that several tiles cover has their mean.
"""

from dataclasses import dataclass
from functools import reduce
from math import gcd

import numpy as np
from numpy.typing import NDArray

from mil.explain.tile_scores import Array, TilePlaces

MOST_CELLS = 4_000_000
"""A finer grid is coarsened: no viewer shows more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TileGrid:
    """Cells of `dx` times `dy` level-0 pixels, `r` rows of `c`.

    Attributes:
        x: Left edge of the first column in level-0 pixels.
        y: Top edge of the first row.
        dx: Width of a cell.
        dy: Height of a cell.
        covers: `(r, c)`, number of tiles over each cell.
        exact: Whether every tile covers whole cells; otherwise edges of tiles moved by at most half a cell.
    """

    x: float
    y: float
    dx: float
    dy: float
    covers: NDArray[np.int64]
    exact: bool
    _corners: tuple[NDArray[np.int64], ...]

    @property
    def overlap(self) -> bool:
        """Whether any cell is covered by several tiles."""
        return bool(self.covers.max() > 1)

    def fill(self, values: Array) -> Array:
        """Return the mean of the tiles over each cell, `(r, c)`, NaN where there is no tile.

        Args:
            values: `(n,)`, a number a tile.
        """
        left, top, right, bottom = self._corners
        if (right - left == 1).all() and (bottom - top == 1).all() and not self.overlap:
            cells = np.full(self.covers.shape, np.nan)
            cells[top, left] = values
            return cells
        sums = _covered(self._corners, self.covers.shape, values)
        return np.where(self.covers > 0, sums / np.maximum(self.covers, 1), np.nan)


def tile_grid(places: TilePlaces, most_cells: int = MOST_CELLS) -> TileGrid:
    """Return the coarsest grid on which every tile covers whole cells, or a coarser one where it has too many cells."""
    dx, x_exact = _step(places.x, places.width)
    dy, y_exact = _step(places.y, places.height)
    x, y = float(places.x.min()), float(places.y.min())
    across, down = float((places.x + places.width).max()) - x, float((places.y + places.height).max()) - y
    exact = x_exact and y_exact
    if (across / dx) * (down / dy) > most_cells:
        dx = dy = max(np.sqrt(across * down / most_cells), dx, dy)
        exact = False
    left, top = _cell(places.x - x, dx), _cell(places.y - y, dy)
    right = np.maximum(_cell(places.x + places.width - x, dx), left + 1)
    bottom = np.maximum(_cell(places.y + places.height - y, dy), top + 1)
    corners = (left, top, right, bottom)
    shape = (int(bottom.max()), int(right.max()))
    covers = np.rint(_covered(corners, shape, np.ones(len(left)))).astype(np.int64)
    return TileGrid(x=x, y=y, dx=dx, dy=dy, covers=covers, exact=exact, _corners=corners)


def _step(starts: Array, extents: Array) -> tuple[float, bool]:
    """Greatest common divisor of offsets and extents; half the smallest extent where they are not integers."""
    lengths = np.unique(np.concatenate([starts - starts.min(), extents]))
    if not np.array_equal(lengths, np.rint(lengths)):
        return max(1.0, float(extents.min()) / 2), False
    return float(reduce(gcd, (int(length) for length in lengths))), True


def _cell(distances: Array, step: float) -> NDArray[np.int64]:
    return np.rint(distances / step).astype(np.int64)


def _covered(corners: tuple[NDArray[np.int64], ...], shape: tuple[int, ...], values: Array) -> Array:
    """Sum the values of the tiles over each cell: differences at the corners of each tile, added up along both axes."""
    left, top, right, bottom = corners
    steps = np.zeros((shape[0] + 1, shape[1] + 1))
    for rows, columns, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        np.add.at(steps, (rows, columns), sign * values)
    return np.asarray(steps.cumsum(axis=0).cumsum(axis=1)[:-1, :-1])
