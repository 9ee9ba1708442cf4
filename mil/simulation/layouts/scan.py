"""The scanner, the tiling and the encoder of simulated slides."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

TILE_MPP = 0.5
"""Micrometres a pixel of the tiles as cut, 20x."""
TILE = 256
"""Pixels a tile as cut."""


@dataclass(frozen=True)
class Scan:
    """How a slide was scanned, tiled and encoded.

    Attributes:
        mpp: Micrometres a level-0 pixel; 0.25 is 40x.
        overlap: Pixels of a tile as cut that its neighbour has too.
        bounds: Left and top of the scanned region in level-0 pixels, as OpenSlide's bounds; tiles begin there.
        encoder: The name of the encoder that producers write, as far as they write one.
    """

    mpp: float = 0.25
    overlap: int = 0
    bounds: tuple[int, int] = (0, 0)
    encoder: str = "simulated"

    @property
    def extent(self) -> int:
        """Level-0 pixels a tile: 512 for 256 pixels at 20x of a slide scanned at 40x."""
        return round(TILE * TILE_MPP / self.mpp)

    @property
    def step(self) -> int:
        """Level-0 pixels from a tile to the next."""
        return self.extent * (TILE - self.overlap) // TILE

    @property
    def magnification(self) -> int:
        """Nominal magnification of the scan."""
        return round(10 / self.mpp)

    def corners(self, cells: Ints) -> Ints:
        """Return the top-left corners `(n, 2)` in level-0 pixels, with a border of one step."""
        return np.asarray(self.bounds) + self.step * (cells + 1)

    def size(self, cells: Ints) -> tuple[int, int]:
        """Return width and height of the slide in level-0 pixels, with a border of one step."""
        far = np.asarray(self.bounds) + self.step * (cells.max(axis=0) + 2) + self.extent
        return int(far[0]), int(far[1])


SCAN = Scan()
EXTENT = SCAN.extent
