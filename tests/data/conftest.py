"""Writers of the producers' layouts, as `formats.md` tells them; each test makes its own files."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

Write = Callable[..., Path]


def grid(tiles: int, step: int = 512) -> NDArray[np.int64]:
    """Level-0 corners of `tiles` tiles in rows of seven."""
    return np.stack([np.arange(tiles) % 7, np.arange(tiles) // 7], axis=1) * step


def random_features(tiles: int = 5, width: int = 8, dtype: str = "float16") -> NDArray[np.generic]:
    return np.random.default_rng(tiles).standard_normal((tiles, width)).astype(dtype)


def write_trident(
    path: Path,
    features: ArrayLike | None = None,
    coords: ArrayLike | None = None,
    encoder: str | None = "uni",
    extent: int = 512,
) -> Path:
    """One chunk a row, attributes on both datasets; `encoder=None` is a file from before August 2025."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.asarray(random_features() if features is None else features)
    where = np.asarray(grid(len(rows)) if coords is None else coords)
    with h5py.File(path, "w") as file:
        chunks = (1, *rows.shape[1:])
        stored = file.create_dataset("features", data=rows, chunks=chunks, maxshape=(None, *rows.shape[1:]))
        stored.attrs.update({"name": path.stem, "savetodir": str(path.parent)})
        if encoder is not None:
            stored.attrs["encoder"] = encoder
        placed = file.create_dataset("coords", data=where)
        placed.attrs.update({"patch_size": 256, "patch_size_level0": extent, "level0_magnification": 40})
        placed.attrs.update({"target_magnification": 20, "overlap": 0, "name": path.stem, "savetodir": "None"})
        placed.attrs.update({"level0_width": 40_000, "level0_height": 30_000})
    return path


def write_clam(path: Path, features: ArrayLike | None = None, coords: ArrayLike | None = None) -> Path:
    """Chunks of 32 rows, no attribute."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.asarray(random_features(dtype="float32") if features is None else features)
    where = np.asarray(grid(len(rows)) if coords is None else coords, dtype=np.int32)
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=rows, chunks=(32, rows.shape[1]), maxshape=(None, rows.shape[1]))
        file.create_dataset("coords", data=where, chunks=(32, 2), maxshape=(None, 2))
    return path


def write_patches(path: Path, size: int = 256, downsample: tuple[float, float] = (4.0, 4.0)) -> Path:
    """CLAM's patches file, which alone knows the extent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        coords = file.create_dataset("coords", data=grid(5), chunks=(1, 2), maxshape=(None, 2))
        coords.attrs.update({"patch_size": size, "patch_level": 1, "downsample": downsample, "name": path.stem})
    return path


@pytest.fixture(scope="session")
def trident() -> Write:
    return write_trident


@pytest.fixture(scope="session")
def clam() -> Write:
    return write_clam


@pytest.fixture(scope="session")
def patches() -> Write:
    return write_patches
