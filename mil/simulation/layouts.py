"""Feature files as their producers lay them out."""

from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

EXTENT = 512
"""Level-0 pixels a tile: 256 at 20x, of a slide scanned at 40x."""


def write_trident(folder: Path, slide: str, features: Floats, cells: Ints) -> None:
    """`<slide>.h5` of features `(n, d)` at the grid's cells `(n, 2)`, as TRIDENT writes them under fp16 autocast."""
    width, height = (int(size) for size in EXTENT * (cells.max(axis=0) + 3))
    with h5py.File(folder / f"{slide}.h5", "w") as file:
        dataset = file.create_dataset("features", data=features.astype(np.float16))
        # the real `savetodir` is an absolute path; a relative one keeps the bytes alike wherever the cohort lies
        dataset.attrs.update({"name": slide, "savetodir": folder.name, "encoder": "simulated"})
        file.create_dataset("coords", data=_corners(cells)).attrs.update(
            {
                "patch_size": EXTENT // 2,
                "patch_size_level0": EXTENT,
                "level0_magnification": 40,
                "target_magnification": 20,
                "overlap": 0,
                "name": slide,
                "savetodir": folder.name,
                "level0_width": width,
                "level0_height": height,
            }
        )


def write_clam(folder: Path, slide: str, features: Floats, cells: Ints) -> None:
    """`h5_files/<slide>.h5` of features `(n, d)` at the grid's cells `(n, 2)`, as CLAM writes them."""
    (folder / "h5_files").mkdir(exist_ok=True)
    width = features.shape[1]
    with h5py.File(folder / "h5_files" / f"{slide}.h5", "w") as file:
        file.create_dataset("features", data=features, chunks=(32, width), maxshape=(None, width))
        file.create_dataset("coords", data=_corners(cells).astype(np.int32), chunks=(32, 2), maxshape=(None, 2))


LAYOUTS: Mapping[str, Callable[[Path, str, Floats, Ints], None]] = {"trident": write_trident, "clam": write_clam}


def _corners(cells: Ints) -> Ints:
    """Level-0 pixels of the tiles' top-left corners, one tile in from the slide's border."""
    return EXTENT * (cells + 1)
