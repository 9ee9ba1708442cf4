"""Maps of tiles as small pictures: each tile where it lies, with true edges and without blur."""

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mil.explain.map_colours import PALETTE, palette, palette_indices
from mil.explain.tile_scores import TilePlaces

Floats = NDArray[np.float64]
EMPTY = PALETTE
"""Index of the transparent colour, where no tile lies."""


@dataclass(frozen=True)
class Extent:
    """The rectangle around all tiles of a slide, in level-0 pixels."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """From the left edge to the right one."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """From the top edge to the bottom one."""
        return self.bottom - self.top


def extent(places: TilePlaces) -> Extent:
    """Return the rectangle around all tiles."""
    right, bottom = float((places.x + places.width).max()), float((places.y + places.height).max())
    return Extent(float(places.x.min()), float(places.y.min()), right, bottom)


def overlap(places: TilePlaces) -> bool:
    """Return whether tiles overlap: their areas sum up to more than they cover."""
    drawn = extent(places)
    if not len(places.x) or drawn.width <= 0 or drawn.height <= 0:
        return False
    order = np.lexsort((places.x, places.y))
    x, y, width = places.x[order], places.y[order], places.width[order]
    level = (y[1:] == y[:-1]) & (x[1:] - x[:-1] < width[:-1] - 0.5)
    order = np.lexsort((places.y, places.x))
    x, y, height = places.x[order], places.y[order], places.height[order]
    below = (x[1:] == x[:-1]) & (y[1:] - y[:-1] < height[:-1] - 0.5)
    return bool(level.any() or below.any())


def raster(places: TilePlaces, values: Floats, longest: int) -> Floats:
    """Return the mean value of the tiles over each pixel of a picture, `(rows, columns)`; NaN where no tile lies.

    Args:
        places: Of the `n` tiles.
        values: `(n,)`.
        longest: Pixels of the longer side.
    """
    edges, rows, columns = _edges(places, longest)
    total, count = np.zeros((rows, columns)), np.zeros((rows, columns))
    for (first, last, upper, lower), value in zip(edges, values.tolist(), strict=True):
        total[upper:lower, first:last] += value
        count[upper:lower, first:last] += 1
    means: Floats = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return means


def scores_png(places: TilePlaces, values: Floats, limit: float, signed: bool, longest: int = 560) -> bytes:
    """Return the map of scores as a PNG with a palette, transparent where no tile lies.

    Args:
        places: Of the `n` tiles.
        values: Their scores, `(n,)`.
        limit: End of the scale of colours.
        signed: Whether the scale has two hues around zero.
        longest: Pixels of the longer side.
    """
    drawn = raster(places, values, longest)
    indices = np.where(np.isnan(drawn), EMPTY, palette_indices(drawn, limit, signed).astype(np.int64))
    return _png(indices, palette(signed))


def kinds_png(places: TilePlaces, kinds: NDArray[np.int64], colours: NDArray[np.uint8], longest: int = 560) -> bytes:
    """Return the map of kinds of tissue as a PNG; where tiles overlap, the last kind is drawn.

    Args:
        places: Of the `n` tiles.
        kinds: Index of each tile's kind, `(n,)`.
        colours: Of the kinds, `(k, 3)`.
        longest: Pixels of the longer side.
    """
    edges, rows, columns = _edges(places, longest)
    indices = np.full((rows, columns), EMPTY)
    for (first, last, upper, lower), kind in zip(edges, kinds.tolist(), strict=True):
        indices[upper:lower, first:last] = kind
    return _png(indices, colours)


def data_uri(content: bytes) -> str:
    """Return a PNG or JPEG as an address within a page."""
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def _edges(places: TilePlaces, longest: int) -> tuple[list[list[int]], int, int]:
    """Return the pixels of each tile (left, right, top, bottom; at least one), and the picture's rows and columns."""
    around = extent(places)
    scale = longest / max(around.width, around.height)
    columns, rows = (max(1, round(side * scale)) for side in (around.width, around.height))
    left, right, top, bottom = (
        np.floor(each * scale + 0.5).astype(int)
        for each in (
            places.x - around.left,
            places.x + places.width - around.left,
            places.y - around.top,
            places.y + places.height - around.top,
        )
    )
    edges = np.stack([left, np.maximum(right, left + 1), top, np.maximum(bottom, top + 1)], axis=1)
    return edges.tolist(), rows, columns


def _png(indices: NDArray[np.integer], colours: NDArray[np.uint8]) -> bytes:
    image = Image.frombytes("P", indices.shape[::-1], indices.astype(np.uint8).tobytes())
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(colours)] = colours
    image.putpalette(table.tobytes())
    content = BytesIO()
    image.save(content, "PNG", optimize=True, transparency=EMPTY)
    return content.getvalue()
