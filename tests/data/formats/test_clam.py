from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mil.data.formats import Header
from mil.data.formats import clam as layout
from mil.errors import FeatureError

Write = Callable[..., Path]
FEATURES = np.random.default_rng(1).standard_normal((70, 6)).astype("f4")
COORDS = np.random.default_rng(2).integers(0, 90_000, (70, 2))


def test_features_and_coordinates_are_read_and_nothing_is_made_up(tmp_path: Path, clam: Write) -> None:
    slide = layout.read(clam(tmp_path / "h5_files" / "a.h5", FEATURES, COORDS))
    assert slide.header == Header(70, 6, "float32", None, "CLAM", None, None, True)
    assert torch.equal(slide.features, torch.from_numpy(FEATURES))
    assert slide.coords is not None
    assert torch.equal(slide.coords, torch.from_numpy(COORDS))


@pytest.mark.parametrize("where", ["features/patches", "patches"])
def test_the_extent_comes_from_the_patches_file(tmp_path: Path, clam: Write, patches: Write, where: str) -> None:
    path = clam(tmp_path / "features" / "h5_files" / "a.b.h5")
    patches(tmp_path / where / "a.b.h5", size=256, downsample=(2.0, 2.0))
    assert layout.header(path).extent == 512.0


def test_a_patches_file_without_its_attributes_says_nothing(tmp_path: Path, clam: Write) -> None:
    path = clam(tmp_path / "h5_files" / "a.h5")
    clam(tmp_path / "patches" / "a.h5")
    assert layout.header(path).extent is None


def test_a_broken_patches_file_is_named(tmp_path: Path, clam: Write) -> None:
    path = clam(tmp_path / "h5_files" / "a.h5")
    (tmp_path / "patches").mkdir()
    (tmp_path / "patches" / "a.h5").write_text("no")
    with pytest.raises(FeatureError, match="patches"):
        layout.header(path)


def test_features_alone_have_no_coordinates(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("features", data=FEATURES)
    slide = layout.read(tmp_path / "a.h5")
    assert slide.coords is None
    assert not slide.header.has_coords
