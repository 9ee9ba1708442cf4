from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mil.errors import FeatureError
from mil.features.formats import Header, Reading, examine
from tests.features.formats.reading import read

Write = Callable[..., Path]
FEATURES = np.random.default_rng(1).standard_normal((70, 6)).astype("f4")
COORDS = np.random.default_rng(2).integers(0, 90_000, (70, 2))


def test_features_and_coordinates_are_read_without_guesses(tmp_path: Path, clam: Write) -> None:
    slide = read(clam(tmp_path / "h5_files" / "a.h5", FEATURES, COORDS))
    assert slide.header == Header(70, 6, "float32", None, "CLAM", None, None, True)
    assert torch.equal(slide.features, torch.from_numpy(FEATURES))
    assert slide.coords is not None
    assert torch.equal(slide.coords, torch.from_numpy(COORDS))


@pytest.mark.parametrize("where", ["features/patches", "patches"])
def test_extent_comes_from_the_patches_file(tmp_path: Path, clam: Write, patches: Write, where: str) -> None:
    path = clam(tmp_path / "features" / "h5_files" / "a.b.h5")
    patches(tmp_path / where / "a.b.h5", size=256, downsample=(2.0, 2.0))
    assert examine(path)[1].extent == 512.0
    assert examine(path)[1].tile_px == 256.0


def test_patches_file_without_attributes_is_ignored(tmp_path: Path, clam: Write) -> None:
    path = clam(tmp_path / "h5_files" / "a.h5")
    clam(tmp_path / "patches" / "a.h5")
    assert examine(path)[1].extent is None


def test_damaged_patches_file_is_named(tmp_path: Path, clam: Write) -> None:
    path = clam(tmp_path / "h5_files" / "a.h5")
    (tmp_path / "patches").mkdir()
    (tmp_path / "patches" / "a.h5").write_text("no")
    with pytest.raises(FeatureError, match="patches"):
        examine(path)


def test_features_alone_have_no_coordinates(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("features", data=FEATURES)
    slide = read(tmp_path / "a.h5")
    assert slide.coords is None
    assert not slide.header.has_coords


def test_same_schema_in_other_chunks_is_not_clam(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["features"], file["coords"] = FEATURES, COORDS
    slide = read(tmp_path / "a.hdf5")
    assert slide.header.producer == "plain HDF5 (CLAM's schema)"
    assert torch.equal(slide.features, torch.from_numpy(FEATURES))
    assert slide.coords is not None
    assert torch.equal(slide.coords, torch.from_numpy(COORDS))


def test_batch_axis_of_one_is_accepted_if_declared(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"], file["coords"] = FEATURES[None], COORDS[None]
    with pytest.raises(FeatureError, match=r"\(1, 70, 6\).*data.batch_axis=true"):
        read(tmp_path / "a.h5")
    slide = read(tmp_path / "a.h5", Reading(batch_axis=True))
    assert (slide.header.tiles, slide.header.width) == (70, 6)
    assert torch.equal(slide.features, torch.from_numpy(FEATURES))
    assert slide.coords is not None
    assert torch.equal(slide.coords, torch.from_numpy(COORDS))
