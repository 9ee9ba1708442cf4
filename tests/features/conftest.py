"""Writers of feature files in each producer's layout; every test writes its own files."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

Write = Callable[..., Path]


def grid(tiles: int, step: int = 512) -> NDArray[np.int64]:
    """Return level-0 corners of `tiles` tiles in rows of seven."""
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
    """Write a TRIDENT file: chunks of one row, attributes on both datasets; `encoder=None` as before August 2025."""
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
    """Write a CLAM file: chunks of 32 rows, no attributes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.asarray(random_features(dtype="float32") if features is None else features)
    where = np.asarray(grid(len(rows)) if coords is None else coords, dtype=np.int32)
    with h5py.File(path, "w") as file:
        for name, values in (("features", rows), ("coords", where)):
            chunks, most = (32, *values.shape[1:]), (None, *values.shape[1:])
            file.create_dataset(name, data=values, chunks=chunks, maxshape=most)
    return path


def write_patches(path: Path, size: int = 256, downsample: tuple[float, float] = (4.0, 4.0)) -> Path:
    """Write CLAM's patches file, the only one of its files that gives the extent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        coords = file.create_dataset("coords", data=grid(5), chunks=(1, 2), maxshape=(None, 2))
        coords.attrs.update({"patch_size": size, "patch_level": 1, "downsample": downsample, "name": path.stem})
    return path


def write_mussel(
    path: Path,
    features: ArrayLike | None = None,
    coords: ArrayLike | None = None,
    extent: int = 512,
    mpp: float = 0.5,
    tile_px: int = 256,
) -> Path:
    """Write a Mussel file: CLAM's schema with gzip and attributes on `coords`; `patch_size` is in level-0 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.asarray(random_features(dtype="float32") if features is None else features)
    where = np.asarray(grid(len(rows)) if coords is None else coords, dtype=np.int64)
    packing = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
    with h5py.File(path, "w") as file:
        for name, values in (("features", rows), ("coords", where)):
            chunks = (max(128, len(values)), *values.shape[1:])
            file.create_dataset(name, data=values, chunks=chunks, maxshape=(None, *values.shape[1:]), **packing)
        attributes = file["coords"].attrs
        attributes.update({"seg_level": 2, "patch_size": extent, "step_size": extent, "patch_level": 0, "mpp": mpp})
        attributes.update({"patch_size_to_resize_to_for_desired_mpp": tile_px, "native_mpp": 0.25, "overlap": 0})
        attributes.update({"level_dim": (40_000, 30_000), "name": path.stem, "use_otsu": False})
    return path


def write_stamp(
    path: Path, features: ArrayLike | None = None, um: ArrayLike | None = None, version: str = "2.1", **changes: object
) -> Path:
    """Write a STAMP file: contiguous `feats` and `coords`, the attributes of its version with `changes` applied."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.asarray(random_features() if features is None else features)
    step = 224 if version == "1" else 256
    where = np.asarray(grid(len(rows), step) if um is None else um, dtype=np.float32)
    tile = {"tile_size_um": 256.0, "tile_size_px": 224, "feat_type": "tile", "code_hash": "3f29c1ab"}
    attributes: dict[str, dict[str, object]] = {
        "1": {},
        "2.0": {"stamp_version": "2.0.0", "extractor": "ctranspath", "unit": "um", "tile_size": 256.0},
        "2.1": {"stamp_version": "2.1.0", "extractor": "virchow2-3f29c1ab", "unit": "um"} | tile,
    }
    with h5py.File(path, "w") as file:
        file["feats"], file["coords"] = rows, where
        file.attrs.update(attributes[version] | changes)
    return path


def write_multiplex(path: Path, features: ArrayLike | None = None) -> Path:
    """Write STAMP's features of a multiplex image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["patch_embeddings"] = np.asarray(random_features() if features is None else features)
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


@pytest.fixture(scope="session")
def mussel() -> Write:
    return write_mussel


@pytest.fixture(scope="session")
def stamp() -> Write:
    return write_stamp
