"""The scanner and the tiling of simulated slides."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

SLIDE_MPP = 0.25
"""Micrometres a level-0 pixel, 40x."""
TILE_MPP = 0.5
"""Micrometres a pixel of the tiles as cut, 20x."""
TILE = 256
"""Pixels a tile as cut."""
EXTENT = 512
"""Level-0 pixels a tile: 256 at 20x, of a slide scanned at 40x."""


def corners(cells: Ints, extent: int = EXTENT) -> Ints:
    """Return the top-left corners `(n, 2)` in level-0 pixels, with a border of one tile."""
    return extent * (cells + 1)


def size(cells: Ints, extent: int = EXTENT) -> tuple[int, int]:
    """Return width and height of the slide in level-0 pixels, with a border of one tile."""
    width, height = (int(side) for side in extent * (cells.max(axis=0) + 3))
    return width, height
