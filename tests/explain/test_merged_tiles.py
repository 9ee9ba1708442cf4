"""Merged polygons cover the cells of one value exactly and are valid."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from mil.explain.writers.merged_tiles import Ring, cell_regions


def inside(rings: list[Ring], x: float, y: float) -> bool:
    """Whether a point lies within the outline and in no hole: by the number of sides above it."""
    crossings = 0
    for ring in rings:
        for (first, row), (second, next_row) in pairwise(ring):
            crossings += row == next_row and row < y and min(first, second) < x < max(first, second)
    return crossings % 2 == 1


@pytest.mark.parametrize("seed", range(20))
def test_polygons_cover_the_cells_of_their_value_and_no_others(seed: int) -> None:
    values = np.random.default_rng(seed).integers(-1, 3, (7, 9))
    covered = np.full(values.shape, -1)
    for region in cell_regions(values):
        for row in range(values.shape[0]):
            for column in range(values.shape[1]):
                if inside(region.rings, column + 0.5, row + 0.5):
                    assert covered[row, column] == -1
                    covered[row, column] = region.value
        for ring in region.rings:
            assert ring[0] == ring[-1]
            assert len(set(ring[:-1])) == len(ring) - 1  # no ring touches itself
    assert np.array_equal(covered, values)


RING: NDArray[np.int64] = np.array([[-1, 0, 0], [0, -1, 0], [0, 0, 0]])


def test_a_hole_that_meets_the_outline_at_a_corner_stays_a_hole() -> None:
    (region,) = cell_regions(RING)
    outline, hole = region.rings
    assert set(hole) == {(1, 1), (2, 1), (2, 2), (1, 2)}
    assert (1, 1) in outline
    assert len(region.rows) == 7
