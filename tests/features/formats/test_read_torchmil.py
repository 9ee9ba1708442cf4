from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike, NDArray

from mil.errors import FeatureError
from mil.features.formats import Header, read_torchmil
from tests.features.formats.reading import claims, header, read

FEATURES = np.random.default_rng(1).standard_normal((9, 6)).astype("f4")
GRID = np.stack([np.arange(9) % 4, np.arange(9) // 4], axis=1)


def write(
    root: Path,
    coords: ArrayLike | None = None,
    features: NDArray[np.generic] = FEATURES,
    folder: str = "features",
    companion: str = "labels",
) -> Path:
    """Write a processed dataset: several folders, each with one array per bag."""
    for name in (folder, companion, "coords"):
        (root / name).mkdir(parents=True, exist_ok=True)
    np.save(root / folder / "a.npy", features)
    np.save(root / companion / "a.npy", np.array(1))
    if coords is not None:
        np.save(root / "coords" / "a.npy", np.asarray(coords))
    return root / folder / "a.npy"


@pytest.mark.parametrize("folder", ["features", "features/features_UNI"])
@pytest.mark.parametrize("dtype", ["i4", "i8", "f4"])
def test_pixel_coordinates_on_a_grid_are_tile_corners(tmp_path: Path, folder: str, dtype: str) -> None:
    path = write(tmp_path, (GRID * 512 + [70, 30]).astype(dtype), folder=folder)
    assert claims(path) == ["torchmil"]
    slide = read(path)
    assert slide.header == Header(9, 6, "float32", None, "torchmil", None, None, True)
    assert torch.equal(slide.features, torch.from_numpy(FEATURES))
    assert slide.coords is not None
    np.testing.assert_array_equal(slide.coords.numpy(), GRID * 512 + [70, 30])


@pytest.mark.parametrize("coords", [GRID, GRID * 512 + 0.5, GRID / 3, GRID * 0, None])
def test_coordinates_of_unknown_meaning_are_ignored(tmp_path: Path, coords: ArrayLike | None) -> None:
    assert read(write(tmp_path, coords)).coords is None


def test_single_tile_leaves_the_grid_unknown(tmp_path: Path) -> None:
    assert read(write(tmp_path, [[512, 512]], FEATURES[:1])).coords is None


@pytest.mark.parametrize("companion", ["labels", "inst_labels", "patch_labels", "adj_mats"])
def test_any_torchmil_companion_folder_identifies_the_layout(tmp_path: Path, companion: str) -> None:
    assert claims(write(tmp_path, companion=companion)) == ["torchmil"]
    assert companion in read_torchmil.COMPANIONS


def test_features_with_address_columns_are_still_torchmil(tmp_path: Path) -> None:
    features = np.hstack([np.full((9, 1), 16), GRID, FEATURES]).astype("f4")
    assert claims(write(tmp_path, features=features)) == ["torchmil"]


def test_empty_slide_has_a_header(tmp_path: Path) -> None:
    assert read(write(tmp_path, GRID[:0], FEATURES[:0])).header.tiles == 0


@pytest.mark.parametrize("coords", [GRID[1:], np.full((9, 2), np.nan), np.full((9, 2), "x")])
def test_coordinates_of_another_length_are_refused_by_name(tmp_path: Path, coords: ArrayLike) -> None:
    with pytest.raises(FeatureError, match=r"coords/a\.npy: "):
        header(write(tmp_path, coords))
