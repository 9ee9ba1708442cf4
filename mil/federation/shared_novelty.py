"""Novelty limits from moments of the mean features of all hospitals' training bags."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from mil.errors import PredictionsError
from mil.federation.measures import Grid
from mil.federation.state_sums import ANY
from mil.fitted.novelty import LEAST_BAGS, Novelty, Reference, Space, reference_of, space_of_moments, suffices
from mil.fitted.options import NoveltyOptions

Floats = NDArray[np.float64]
Ask = Callable[[str, str, Mapping[str, Floats]], dict[str, Floats]]
WIDEST = 512
"""Width of features up to which products of channels are summed: 1,536 channels would take 190 MB a site."""


def fit_novelty(ask: Ask, options: NoveltyOptions, has_select: bool) -> Novelty:
    """Return the limits of `mil.fitted.novelty.fit`, fitted to sums over hospitals.

    Args:
        ask: Returns the totals of sums, as `StateQuestions.ask`.
        options: As the tool states them.
        has_select: Whether there are patients of model selection.
    """
    tiles = _values(ANY, ask("tiles", "train", {})["counts tiles"])
    min_tiles, on = options.min_tiles, "stated beforehand"
    if min_tiles is None:
        least = float(np.quantile(tiles, 1 - options.quantile, method="lower"))
        min_tiles, on = max(1, int(least)), "train"
    features = _reference(ask, options.quantile, has_select) if len(tiles) >= LEAST_BAGS else None
    return Novelty(min_tiles=min_tiles, min_tiles_on=on, train=len(tiles), features=features)


def _reference(ask: Ask, quantile: float, has_select: bool) -> Reference:
    moments = ask("moments", "train", {})["moments"]  # (parts, 1 + d + d * d)
    spaces = [_space(moments.sum(0)), *(_space(moments.sum(0) - part) for part in moments)]
    most = min(len(space.variance) for space in spaces)
    spaces = [Space(each.mean, each.scale, each.basis[:most], each.variance[:most]) for each in spaces]
    arrays = _stacked(spaces)
    number, total, squares = ask("left out", "train", arrays)["sums"]
    middle = total / number
    spread = np.maximum(np.sqrt(np.maximum(squares / number - middle**2, 0)), 1e-6)
    role = "select" if has_select else "train"
    counts = ask("distances", role, {**arrays, "middle": middle, "spread": spread})
    distances, on = _values(ANY, counts["counts select"]), "select"
    if not suffices(len(distances), quantile):
        on = "select and left-out train" if len(distances) else "left-out train"
        distances = np.concatenate([distances, _values(ANY, counts["counts train"])])
    return reference_of(spaces[0], middle, spread, distances, on, quantile)


def _space(moments: Floats) -> Space:
    bags = float(moments[0])
    width = int((np.sqrt(4 * len(moments) - 3) - 1) / 2)
    if width > WIDEST:
        raise PredictionsError(
            f"features of width {width}: products of channels are summed up to {WIDEST}, no novelty is fitted together"
        )
    mean = moments[1 : 1 + width] / bags
    covariance = moments[1 + width :].reshape(width, width) / bags - np.outer(mean, mean)
    return space_of_moments(round(bags), mean, covariance)


def _stacked(spaces: list[Space]) -> dict[str, Floats]:
    """Return spaces of as many components each as arrays."""
    return {
        "means": np.stack([space.mean for space in spaces]),
        "scales": np.stack([space.scale for space in spaces]),
        "bases": np.stack([space.basis for space in spaces]),
        "variances": np.stack([space.variance for space in spaces]),
    }


def _values(grid: Grid, counts: Floats) -> Floats:
    cells = np.flatnonzero(counts)
    return np.repeat(grid.upper(cells), counts[cells].round().astype(np.int64))
