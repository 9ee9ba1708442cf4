"""Colours of scores: two hues around zero for signed scores, one for shares; safe for colour-blind readers."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from mil.explain.map_colours import SIGNED, UNSIGNED

STEPS = 255
"""Colours of a scale; an odd number, so that zero has a colour of its own."""


@cache
def palette(signed: bool) -> NDArray[np.uint8]:
    """Return the colours of a scale from its lower to its upper end, `(STEPS, 3)`; do not change the array."""
    stops = np.array([[int(text[at : at + 2], 16) for at in (1, 3, 5)] for text in (SIGNED if signed else UNSIGNED)])
    at = np.linspace(0, len(stops) - 1, STEPS)
    channels = [np.interp(at, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    colours = np.stack(channels, axis=1).round().astype(np.uint8)
    colours.flags.writeable = False
    return colours


def steps(values: NDArray[np.float64], limit: float, signed: bool) -> NDArray[np.uint8]:
    """Return the place of each value on the scale from `-limit` (or zero) to `limit`, as an index into `palette`."""
    share = values / limit if limit > 0 else np.zeros_like(values)
    if signed:
        share = (share + 1) / 2
    return np.asarray(np.nan_to_num(share).clip(0, 1) * (STEPS - 1)).round().astype(np.uint8)


def gradient(signed: bool) -> str:
    """Return the scale as a gradient of CSS, from left to right."""
    return f"linear-gradient(to right, {', '.join(SIGNED if signed else UNSIGNED)})"
