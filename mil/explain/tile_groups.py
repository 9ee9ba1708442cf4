"""Groups of tiles that lie together: a tile with its neighbours, and a bag cut into patches."""

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from mil.bags import Bags
from mil.errors import ConfigError

_FAR = 1e7
"""Pixels between two slides of a bag, so that no tile has neighbours on another slide while its own has any."""


def neighbourhoods(bag: Bags, k: int) -> Tensor:
    """Return each tile with its `k` nearest neighbours on its slide, the tile first, `(n, min(k, n - 1) + 1)`.

    Slides of fewer tiles borrow from the nearest other slide of the bag.

    Raises:
        ConfigError: The bag has no coordinates.
    """
    xy = _places(bag)
    size = min(k + 1, len(xy))
    index = np.asarray(cKDTree(xy).query(xy, k=np.arange(1, size + 1))[1])
    rows = np.arange(len(xy))
    # of several tiles at one place the tree may name another one first
    index[(index == rows[:, None]).sum(1) == 0, -1] = rows[(index == rows[:, None]).sum(1) == 0]
    order = np.argsort(index != rows[:, None], axis=1, kind="stable")
    return torch.from_numpy(np.take_along_axis(index, order, 1).astype(np.int64))


def patches(bag: Bags, most: int) -> Tensor:
    """Return the number of each tile's patch, `(n,)`: at most about `most` patches of tiles that lie together.

    Tiles without coordinates are taken in their order.
    """
    n = len(bag.features)
    if n <= most:
        return torch.arange(n)
    size = -(-n // most)
    if bag.coords is None:
        return torch.arange(n) // size
    xy = _places(bag)
    numbers = np.zeros(n, dtype=np.int64)
    pending, complete = [np.arange(n)], 0
    while pending:
        rows = pending.pop()
        if len(rows) <= size:
            numbers[rows] = complete
            complete += 1
            continue
        axis = int(np.ptp(xy[rows], axis=0).argmax())
        order = rows[np.argsort(xy[rows, axis], kind="stable")]
        pending += [order[: len(order) // 2], order[len(order) // 2 :]]
    return torch.from_numpy(numbers)


def _places(bag: Bags) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    if bag.coords is None:
        raise ConfigError(
            "groups of neighbouring tiles: the bag has no coordinates, expected feature files with places"
        )
    xy = bag.coords.cpu().double().numpy().copy()
    if bag.slide is not None:
        xy[:, 0] += _FAR * bag.slide.cpu().numpy()
    return np.asarray(xy.reshape(-1, 2))
