"""Colours of maps: the same in every file and page, readable for colour-blind people."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from mil.explain.tile_scores import Array, Method

SIGNED = ("#00497a", "#0072b2", "#6fb1dc", "#d9dcdf", "#f0a070", "#d55e00", "#8c3200")
"""From the strongest score against an output over zero, which is grey, to the strongest score for it: Okabe and Ito's
blue and vermilion, which also people with red-green blindness tell apart."""
UNSIGNED = ("#d9dcdf", "#c9a3c6", "#b0639f", "#7b2f77", "#430c4c")
"""From zero to the largest share: purple, so that it is not taken for a signed scale."""
PALETTE = 255
"""Colours of a page's scale; an odd number, so that zero has a colour of its own."""
SIGNED_STEPS, UNSIGNED_STEPS = 11, 8
"""Colour steps of merged tiles; an odd number has one step around zero."""


def stops(method: Method) -> tuple[str, ...]:
    """Return the colours of a scale at equal distances, from its lowest to its highest value."""
    return SIGNED if method.signed else UNSIGNED


def scale(method: Method, limit: float) -> tuple[float, float]:
    """Return the lowest and highest value of a scale; the limit is the largest absolute score of a patient."""
    end = limit if limit > 0 else 1.0
    return (-end, end) if method.signed else (0.0, end)


def colours(values: Array, method: Method, limit: float) -> NDArray[np.uint8]:
    """Return the colour of each value, `(..., 3)`, red, green and blue from 0 to 255."""
    return _interpolate(_share(values, method, limit), stops(method))


def steps(values: Array, method: Method, limit: float) -> NDArray[np.int64]:
    """Return the number of the colour step of each value, from 0."""
    count = SIGNED_STEPS if method.signed else UNSIGNED_STEPS
    share = _share(values, method, limit)
    return np.minimum((share * count).astype(np.int64), count - 1)


def step_limits(method: Method, limit: float) -> Array:
    """Return the ends of the colour steps, `(steps + 1,)`."""
    count = SIGNED_STEPS if method.signed else UNSIGNED_STEPS
    return np.linspace(*scale(method, limit), count + 1)


def step_colours(method: Method) -> NDArray[np.uint8]:
    """Return the colour of each step, `(steps, 3)`: that of its middle."""
    count = SIGNED_STEPS if method.signed else UNSIGNED_STEPS
    return _interpolate((np.arange(count) + 0.5) / count, stops(method))


@cache
def palette(signed: bool) -> NDArray[np.uint8]:
    """Return the colours of a scale from its lower to its upper end, `(PALETTE, 3)`; do not change the array."""
    table = _interpolate(np.linspace(0.0, 1.0, PALETTE), SIGNED if signed else UNSIGNED)
    table.flags.writeable = False
    return table


def palette_indices(values: Array, limit: float, signed: bool) -> NDArray[np.uint8]:
    """Return the place of each value in `palette`."""
    share = np.nan_to_num(values / limit) if limit > 0 else np.zeros_like(values)
    share = (share + 1) / 2 if signed else share
    return np.asarray(np.rint(share.clip(0, 1) * (PALETTE - 1)), dtype=np.uint8)


def _share(values: Array, method: Method, limit: float) -> Array:
    low, high = scale(method, limit)
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def _interpolate(share: Array, hexes: Sequence[str]) -> NDArray[np.uint8]:
    anchors = np.array([[int(each[at : at + 2], 16) for at in (1, 3, 5)] for each in hexes], dtype=np.float64)
    places = np.linspace(0.0, 1.0, len(hexes))
    channels = [np.interp(share, places, anchors[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
