"""The scanner and the tiling that every layout tells of."""

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
    """Level-0 pixels `(n, 2)` of the tiles' top-left corners, one tile in from the slide's border."""
    return extent * (cells + 1)


def size(cells: Ints, extent: int = EXTENT) -> tuple[int, int]:
    """Level-0 width and height of the slide, with a border of one tile."""
    width, height = (int(side) for side in extent * (cells.max(axis=0) + 3))
    return width, height
