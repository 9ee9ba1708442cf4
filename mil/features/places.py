"""Where the tiles of a slide lie on its scan: level-0 position and extent of each tile."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mil.errors import FeatureError
from mil.features.containers.grids import grid_step
from mil.features.formats import Header

Array = NDArray[np.float64]

ExtentSource = Literal["file", "grid"]
"""Where the size of tiles is from: the file (with the slide's resolution where needed), or the step of their grid."""


@dataclass(frozen=True, eq=False)
class SlidePlaces:
    """The tiles of one slide on its scan, in level-0 pixels as OpenSlide counts them (bounds are not subtracted).

    Attributes:
        x: Left edge of each tile, `(n,)`.
        y: Upper edge, `(n,)`.
        width: Width of each tile, `(n,)`.
        height: Height of each tile, `(n,)`.
        mpp: Micrometres a level-0 pixel; nominal where the file only states magnifications; None where unknown.
        slide_size: Width and height of the scan; None where the file does not say.
        extent_source: Where width and height are from.
    """

    x: Array
    y: Array
    width: Array
    height: Array
    mpp: float | None
    slide_size: tuple[float, float] | None
    extent_source: ExtentSource

    def __len__(self) -> int:
        return len(self.x)

    def check_within(self, width: float, height: float, name: str) -> None:
        """Check that every tile touches the scan; tiles at its edges may reach beyond it.

        Args:
            width: Of the scan, level-0 pixels.
            height: Of the scan.
            name: The slide, for the message.

        Raises:
            FeatureError: A tile lies outside, as where the resolution of the slide is another than the given one.
        """
        inside = (self.x < width) & (self.y < height) & (self.x + self.width > 0) & (self.y + self.height > 0)
        if inside.all():
            return
        worst = int(np.argmax(np.maximum(self.x / width, self.y / height)))
        at = "" if self.mpp is None else f" at {self.mpp:.4g} micrometres a pixel"
        raise FeatureError(
            f"slide '{name}': {int((~inside).sum())} of {len(self)} tiles lie outside its {width:g} x {height:g} "
            f"pixels{at}, such as one at ({self.x[worst]:g}, {self.y[worst]:g}): give the slide's own resolution in a "
            "column of the table of slides (data.columns.mpp)"
        )


def places_of(coords: Tensor | None, header: Header, slide_mpp: float | None = None) -> SlidePlaces | None:
    """Return where the tiles of a slide lie; None without coordinates, or for a single tile of unknown size.

    Where no file states the size of tiles, it is the step of their grid, which is too small for tiles that overlap.

    Args:
        coords: Coordinates of the tiles `(n, 2)`; None where they are not known.
        header: The header of the slide's file.
        slide_mpp: Micrometres a level-0 pixel, where the user states it.
    """
    if coords is None:
        return None
    x, y = coords.numpy().astype(np.float64).T
    extent = header.extent or grid_step(coords.numpy())
    if extent is None:
        return None
    height = header.extent_height or extent
    return SlidePlaces(
        x=x,
        y=y,
        width=np.full(len(x), extent, np.float64),
        height=np.full(len(x), height, np.float64),
        mpp=header.slide_mpp or slide_mpp or _nominal_mpp(header),
        slide_size=header.slide_size,
        extent_source="file" if header.extent else "grid",
    )


def _nominal_mpp(header: Header) -> float | None:
    if not (header.mpp and header.tile_px and header.extent):
        return None
    return header.mpp * header.tile_px / header.extent
