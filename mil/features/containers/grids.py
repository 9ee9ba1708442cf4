"""The grid on which tiles lie."""

import numpy as np
from numpy.typing import NDArray

_LOWEST = 128


def lowest(positions: NDArray[np.float64]) -> tuple[float, ...]:
    """Return the lowest different positions along both axes of tiles at `positions` `(n, 2)`, ascending."""
    return tuple(np.unique(positions)[:_LOWEST].tolist())


def grid_step(coords: NDArray[np.number]) -> float | None:
    """Return the step of the grid of tiles at `coords` `(n, 2)`, in their unit; None for a single tile.

    Where no two tiles are neighbours in a row or a column, it is the usual distance of their rows or columns.
    """
    step = neighbour_step(coords)
    return step or _usual(np.concatenate([np.diff(np.unique(axis)) for axis in coords.T]))


def neighbour_step(coords: NDArray[np.number]) -> float | None:
    """Return the usual distance of neighbours in a row or a column of tiles at `coords` `(n, 2)`; None without any."""
    return _usual(np.concatenate([_neighbour_steps(coords), _neighbour_steps(coords[:, ::-1])]))


def _usual(steps: NDArray[np.number]) -> float | None:
    """Return the median of the small steps: gaps of the tissue are several, and grids of two pieces may come close."""
    if not len(steps):
        return None
    return float(np.median(steps[steps < 1.5 * np.percentile(steps, 10, method="lower")]))


def _neighbour_steps(coords: NDArray[np.number]) -> NDArray[np.number]:
    order = np.lexsort((coords[:, 0], coords[:, 1]))
    steps = np.diff(coords[order], axis=0)  # (n - 1, 2), along the rows
    along: NDArray[np.number] = steps[(steps[:, 1] == 0) & (steps[:, 0] > 0), 0]
    return along
