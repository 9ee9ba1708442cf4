"""Features of one slide that are read in pieces: all of them one after the other, or those of some tiles only."""

from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil import tile_rows
from mil.features.formats import Header
from mil.tile_rows import TileRows

PIECE_BYTES = 2**25
"""Size of a piece where all tiles are read one after the other."""
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
"""Types of features in memory; all others are read as float32."""


class Pieces:
    """The features of a slide, read when they are needed.

    Attributes:
        header: The header of the file.
    """

    def __init__(self, read: Callable[[Sequence[slice]], list[Tensor]], header: Header, gap_bytes: int) -> None:
        """Create the reader.

        Args:
            read: Returns the features `(m, d)` of runs of tiles.
            header: The header of the file.
            gap_bytes: Tiles between two drawn ones are read with them up to this size.
        """
        self.header = header
        self._read, self._gap_bytes = read, gap_bytes

    @property
    def dtype(self) -> torch.dtype:
        """Type of the features as they are read."""
        return DTYPES.get(self.header.dtype, torch.float32)

    def rows(self) -> Tensor:
        """Return all features `(n, d)` as a tensor that reads its rows when they are computed with."""
        header = self.header
        like = torch.empty(0, header.width, dtype=self.dtype)
        size = PIECE_BYTES // max(1, header.width * like.element_size())
        size = max(1, size // tile_rows.READ_ROWS) * tile_rows.READ_ROWS
        latest: dict[int, Tensor] = {}

        def piece(number: int) -> Tensor:
            if number not in latest:
                latest.clear()
                latest[number] = self._read([slice(number * size, min((number + 1) * size, header.tiles))])[0]
            return latest[number]

        def reader(start: int, stop: int) -> Tensor:
            numbers = range(start // size, -(-stop // size))
            cut = [piece(number)[max(0, start - number * size) : min(size, stop - number * size)] for number in numbers]
            return cut[0] if len(cut) == 1 else torch.cat([like, *cut])

        return TileRows(reader, like, header.tiles)

    def drawn(self, tiles: NDArray[np.int64]) -> Tensor:
        """Return the features `(m, d)` of some tiles, given by their numbers in ascending order."""
        if not len(tiles):
            return torch.empty(0, self.header.width, dtype=self.dtype)
        gap = self._gap_bytes // (self.header.width * self.dtype.itemsize)
        cuts = np.flatnonzero(np.diff(tiles) > gap + 1) + 1
        runs = np.split(tiles, cuts)
        pieces = self._read([slice(int(run[0]), int(run[-1]) + 1) for run in runs])
        return torch.cat([piece[torch.from_numpy(run - run[0])] for piece, run in zip(pieces, runs, strict=True)])


def in_order(slides: Sequence[Tensor]) -> Tensor:
    """Return the features of several slides, one after the other, as one tensor that is read in pieces."""
    if len(slides) == 1:
        return slides[0]
    starts = np.cumsum([0, *map(len, slides)]).tolist()
    dtype = reduce(torch.promote_types, [rows.dtype for rows in slides])

    def reader(start: int, stop: int) -> Tensor:
        cuts = [
            tile_rows.read(rows, max(start, first) - first, min(stop, last) - first).to(dtype)
            for rows, first, last in zip(slides, starts[:-1], starts[1:], strict=True)
            if first < stop and start < last
        ]
        return torch.cat(cuts) if len(cuts) != 1 else cuts[0]

    return TileRows(reader, torch.empty(0, slides[0].shape[1], dtype=dtype), starts[-1])
