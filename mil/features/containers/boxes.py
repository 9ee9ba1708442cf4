"""Rectangles in OGC's well-known binary form, in which GeoParquet stores the outlines of tiles."""

import struct
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mil.features.containers.matrices import RefusalError

_POLYGON = 3
_HEAD = struct.calcsize("<BIII")
_POINT = 16


def boxes(geometries: Iterable[object]) -> NDArray[np.float64]:
    """Return left, top, right and bottom of polygons of one ring, `(n, 4)`.

    Raises:
        RefusalError: A geometry is no such polygon, or not finite.
    """
    edges = [_edges(geometry) for geometry in geometries]
    return np.array(edges, np.float64).reshape(-1, 4)


def _edges(geometry: object) -> tuple[float, float, float, float]:
    if not isinstance(geometry, bytes) or len(geometry) < _HEAD or geometry[0] not in (0, 1):
        raise RefusalError("a tile's geometry is not in well-known binary form")
    order = "<" if geometry[0] == 1 else ">"
    _, kind, rings, points = struct.unpack_from(f"{order}BIII", geometry)
    if kind != _POLYGON or rings != 1 or len(geometry) != _HEAD + _POINT * points or not points:
        raise RefusalError(f"a tile's geometry is of kind {kind} with {rings} rings, expected a box")
    ring = np.frombuffer(geometry, f"{order}f8", offset=_HEAD).reshape(points, 2)
    low, high = ring.min(axis=0), ring.max(axis=0)
    if not (np.abs([low, high]) < 2**53).all():
        raise RefusalError("a tile's geometry holds values that are no pixels (not finite, or beyond 2^53)")
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])
