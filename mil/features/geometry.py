"""Size of tiles, in pixels and in micrometres a pixel, and whether it is the expected one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median_low

from mil.errors import EncoderError
from mil.features.formats import Header
from mil.features.resolutions import check_resolutions

MPP_TOLERANCE = 0.12
"""Most resolutions are derived from a magnification, and "20x" means 0.5 micrometres a pixel within ten percent."""
TILE_TOLERANCE = 0.25
"""Tiles of 224 and of 256 pixels are cut for the same encoders."""


@dataclass(frozen=True)
class Geometry:
    """Size of the tiles of a cohort; None where unknown.

    Attributes:
        mpp: Micrometres a pixel of the tiles as cut, the slides' median.
        tile_px: Side of a tile in pixels at `mpp`, the slides' median.
        mpp_verified: Whether every file states its `mpp`; otherwise the expected one stands in.
        tile_px_verified: Whether every file states its `tile_px`.
    """

    mpp: float | None = None
    tile_px: float | None = None
    mpp_verified: bool = False
    tile_px_verified: bool = False

    def __post_init__(self) -> None:
        for name in ("mpp", "tile_px"):
            if not _usable(value := getattr(self, name)) and value is not None:
                raise ValueError(f"{name} is {value}, expected a positive number")


@dataclass(frozen=True)
class Expected:
    """The expected size of tiles; None accepts any.

    Attributes:
        mpp: Micrometres a pixel.
        tile_px: Side of a tile in pixels.
        whose: Who expects it, for messages.
        option: Option that a user may set with `.mpp=...` to change it; "" where there is none.
    """

    mpp: float | None = None
    tile_px: float | None = None
    whose: str = ""
    option: str = ""


def common_geometry(headers: Mapping[str, Header], expected: Expected, where: object) -> Geometry:
    """Return the common geometry that the files of the slides state; where no file states it, the expected one.

    Extents in level-0 pixels may differ, as scanners do.

    Raises:
        EncoderError: Slides differ from each other or from the expected size by more than the tolerance, or cannot have
            the resolutions that the user states.
    """
    tiled = {slide: header for slide, header in headers.items() if header.tiles}
    check_resolutions(tiled, where)
    mpp, mpp_said = _common("mpp", MPP_TOLERANCE, tiled, expected, where)
    tile_px, tile_px_said = _common("tile_px", TILE_TOLERANCE, tiled, expected, where)
    return Geometry(mpp, tile_px, mpp_said, tile_px_said)


def _common(
    name: str, tolerance: float, headers: Mapping[str, Header], expected: Expected, where: object
) -> tuple[float | None, bool]:
    stated = {slide: value for slide, header in headers.items() if _usable(value := getattr(header, name))}
    fallback: float | None = getattr(expected, name)
    if not stated:
        return fallback, False
    middle = median_low(stated.values())
    if odd := [slide for slide, value in stated.items() if _relative_difference(value, middle) > tolerance]:
        raise EncoderError(
            f"features under {where} differ in {name}: {middle:.4g} ({len(stated) - len(odd)}) and "
            f"{stated[odd[0]]:.4g} ({len(odd)}, e.g. slide '{odd[0]}'), expected one within {tolerance:.0%}"
        )
    if fallback is not None and _relative_difference(middle, fallback) > tolerance:
        hint = f" ({expected.option}.{name}={middle:.4g} accepts it)" if expected.option else ""
        raise EncoderError(
            f"features under {where} have {name} {middle:.4g}, {expected.whose} expects {fallback:.4g} "
            f"within {tolerance:.0%}{hint}"
        )
    return middle, len(stated) == len(headers)


def _usable(value: float | None) -> bool:
    return value is not None and 0 < value < math.inf


def _relative_difference(first: float, second: float) -> float:
    return max(first, second) / min(first, second) - 1
