"""Whether slides can have the resolutions that a user states, judged by the grid of their tiles."""

from collections.abc import Iterable, Mapping

from mil.errors import EncoderError
from mil.features.formats import Header

_SAME = 2e-4
"""Largest difference of a position, in tiles, that rounding makes: STAMP stores single precision."""
_SAME_STEP = 5e-3
"""Relative difference of steps of whole pixels that rounding makes."""
_WHOLE = 0.02
"""Largest distance of steps a tile from a whole number, as steps are of whole pixels."""
_REMEDY = (
    "give each slide's resolution in a column of the table of slides (data.columns.mpp), or leave data.slide_mpp out "
    "to train without positions"
)


def check_resolutions(headers: Mapping[str, Header], where: object) -> None:
    """Check the resolutions of slides whose positions depend on one.

    STAMP cuts tiles of whole level-0 pixels and stores their positions in micrometres, so slides of one resolution
    have one sequence of possible positions. Slideflow stores pixels, so slides of one resolution have one step, and a
    tile is a whole number of steps.

    Raises:
        EncoderError: Slides that are given one resolution must have different ones, or one cannot have the given one.
    """
    groups: dict[float, list[str]] = {}
    for slide, header in headers.items():
        if header.slide_mpp is not None:
            groups.setdefault(header.slide_mpp, []).append(slide)
    for slide_mpp, slides in groups.items():
        _check_step(headers, slides, where)
        pair = _different_steps(headers, slides) or _different_positions(headers, slides)
        if pair:
            first, second = pair
            raise EncoderError(
                f"slides '{first}' and '{second}' under {where} are both taken at {slide_mpp:g} micrometres a pixel, "
                f"but the grids of their tiles show that their resolutions differ: {_REMEDY}"
            )


def _check_step(headers: Mapping[str, Header], slides: Iterable[str], where: object) -> None:
    for slide in slides:
        step, slide_mpp = headers[slide].step, headers[slide].slide_mpp
        if step and (1 / step < 1 - _WHOLE or abs(1 / step - round(1 / step)) > _WHOLE * round(1 / step)):
            raise EncoderError(
                f"slide '{slide}' under {where} cannot have {slide_mpp:g} micrometres a pixel: its tiles would be "
                f"{1 / step:.3g} times the step of their grid, expected a whole number: {_REMEDY}"
            )


def _different_steps(headers: Mapping[str, Header], slides: Iterable[str]) -> tuple[str, str] | None:
    steps = {slide: step for slide in slides if (step := headers[slide].step)}
    if not steps:
        return None
    low, high = min(steps, key=steps.__getitem__), max(steps, key=steps.__getitem__)
    return (low, high) if steps[high] / steps[low] - 1 > _SAME_STEP else None


def _different_positions(headers: Mapping[str, Header], slides: Iterable[str]) -> tuple[str, str] | None:
    seen: dict[int, tuple[float, str]] = {}
    for slide in slides:
        for position in headers[slide].grid:
            number = int(position + 0.01)
            expected, first = seen.setdefault(number, (position, slide))
            if abs(position - expected) > _SAME * max(1, number / 50) and first != slide:
                return first, slide
    return None
