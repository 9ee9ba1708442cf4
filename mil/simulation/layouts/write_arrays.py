"""Layouts in numpy's files: Owkin's rl_benchmarks, FLamby and torchmil."""

import math
from pathlib import Path

import numpy as np

from mil.simulation.layouts.scan import SCAN, TILE_MPP, Floats, Ints, Scan

DEEPZOOM = 224
"""Pixels a tile of Owkin's, whose places are counted in tiles: the same cells lie closer together than elsewhere."""


def write_owkin(folder: Path, slide: str, features: Floats, cells: Ints, scan: Scan = SCAN) -> None:
    """`.../{extractor}/{cohort}/<slide>.svs/features.npy` `(n, 3 + d)`: DeepZoom level, x and y, then the features.

    Tiles are of 224 pixels, on a grid of their own: a corner is `448 * (cell + 1)` in level-0 pixels, where the other
    layouts, and `phenotypes/`, have `512 * (cell + 1)`.
    """
    side = DEEPZOOM * round(TILE_MPP / scan.mpp)
    cells = cells + np.asarray(scan.bounds) // side
    # the deepest level is the slide itself, and each one above it is half as wide
    deepest = math.ceil(math.log2(side * int(cells.max() + 3)))
    level = deepest - round(math.log2(side / DEEPZOOM))
    address = np.column_stack([np.full(len(cells), level), cells + 1]).astype(np.float32)  # (n, 3)
    root = folder / "slides_classification"
    for kind, name, values in (
        (f"features/{scan.encoder}", "features", np.hstack([address, features])),
        (f"coords/coords_{DEEPZOOM}", "coords", address),
    ):
        place = root / kind / "SIMULATED" / f"{slide}.svs"
        place.mkdir(parents=True)
        np.save(place / f"{name}.npy", values)


def write_flamby(folder: Path, slide: str, features: Floats, cells: Ints, scan: Scan = SCAN) -> None:
    """`<slide>.tif.npy` of features `(n, d)` and nothing else."""
    np.save(folder / f"{slide}.tif.npy", features)


def write_torchmil(folder: Path, slide: str, features: Floats, cells: Ints, scan: Scan = SCAN) -> None:
    """`features/<slide>.npy` `(n, d)` and `coords/<slide>.npy` `(n, 2)`; `write_tables` adds the labels."""
    for name, values in (("features", features), ("coords", scan.corners(cells))):
        (folder / name).mkdir(exist_ok=True)
        np.save(folder / name / f"{slide}.npy", values)
