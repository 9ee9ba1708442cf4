"""A grid of cells keeps the edges of tiles, whatever their extents, and has means where they overlap."""

import numpy as np
import pytest

from mil.explain.tile_grid import tile_grid
from mil.explain.tile_scores import Array, TilePlaces
from tests.explain.drawn_scans import grid_places


def painted(places: TilePlaces, values: Array, x: float, y: float) -> float:
    """Return the mean of the tiles that cover a point."""
    covers = (places.x <= x) & (x < places.x + places.width) & (places.y <= y) & (y < places.y + places.height)
    return float(values[covers].mean()) if covers.any() else float("nan")


@pytest.mark.parametrize(
    "places",
    [
        grid_places(3, 4, 256, x=100, y=37),
        TilePlaces(  # half overlap
            x=np.array([0.0, 128, 256, 0]),
            y=np.array([0.0, 0, 0, 384]),
            width=np.full(4, 256.0),
            height=np.full(4, 256.0),
        ),
        TilePlaces(  # two extents, off each other's grid
            x=np.array([0.0, 256, 520]),
            y=np.array([0.0, 0, 8]),
            width=np.array([256.0, 256, 512]),
            height=np.array([256.0, 256, 512]),
        ),
    ],
    ids=["regular", "overlap", "two extents"],
)
def test_every_cell_has_the_mean_of_the_tiles_over_it(places: TilePlaces) -> None:
    values = np.random.default_rng(1).normal(size=len(places.x))
    grid = tile_grid(places)
    assert grid.exact
    cells = grid.fill(values)
    for row in range(cells.shape[0]):
        for column in range(cells.shape[1]):
            at = (grid.x + (column + 0.5) * grid.dx, grid.y + (row + 0.5) * grid.dy)
            assert cells[row, column] == pytest.approx(painted(places, values, *at), nan_ok=True)


def test_a_regular_grid_has_a_cell_a_tile() -> None:
    grid = tile_grid(grid_places(3, 4, 512, x=1000, y=2000))
    assert (grid.x, grid.y, grid.dx, grid.dy) == (1000, 2000, 512, 512)
    assert grid.covers.shape == (3, 4)
    assert not grid.overlap


def test_a_grid_without_common_divisor_is_coarsened_and_says_so() -> None:
    places = TilePlaces(
        x=np.array([0.0, 100_001]), y=np.array([0.0, 70_003]), width=np.full(2, 224.0), height=np.full(2, 224.0)
    )
    grid = tile_grid(places, most_cells=10_000)
    assert not grid.exact
    assert grid.covers.size <= 12_000
    assert np.nanmax(grid.fill(np.array([1.0, 2.0]))) == 2.0
    assert not tile_grid(grid_places(2, 2, 100.5)).exact
