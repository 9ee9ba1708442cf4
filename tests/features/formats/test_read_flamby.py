from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mil.errors import FeatureError
from mil.features.formats import Header, Reading, slide_of
from tests.features.formats.reading import claims, header, read

FEATURES = np.random.default_rng(1).standard_normal((9, 2048)).astype("f4")


def save_features(path: Path, features: NDArray[np.generic] = FEATURES) -> Path:
    np.save(path, features)
    return path


def test_features_are_read_bit_for_bit(tmp_path: Path) -> None:
    path = save_features(tmp_path / "normal_001.tif.npy")
    assert slide_of(path) == "normal_001"
    assert claims(path) == ["flamby"]
    slide = read(path)
    assert slide.header == Header(9, 2048, "float32", None, "FLamby or plain numpy", None, None, False)
    assert torch.equal(slide.features, torch.from_numpy(FEATURES))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_zeros_after_a_relu_are_not_taken_for_addresses(tmp_path: Path, value: float) -> None:
    features = FEATURES.copy()
    features[:, :3] = value
    assert claims(save_features(tmp_path / "a.npy", features)) == ["flamby"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonfinite_values_are_not_taken_for_addresses(tmp_path: Path, value: float) -> None:
    features = FEATURES.copy()
    features[:, :3] = value
    assert claims(save_features(tmp_path / "a.npy", features)) == ["flamby"]


@pytest.mark.parametrize("width", [6, 2048])
def test_empty_slide_has_a_header(tmp_path: Path, width: int) -> None:
    path = save_features(tmp_path / "a.npy", np.empty((0, width), "f4"))
    assert claims(path) == ["flamby"]
    assert read(path).features.shape == (0, width)


def test_batch_axis_is_refused_unless_declared(tmp_path: Path) -> None:
    path = save_features(tmp_path / "a.npy", FEATURES[None])
    with pytest.raises(FeatureError, match=r"data\.batch_axis=true"):
        header(path)
    assert torch.equal(read(path, Reading(batch_axis=True)).features, torch.from_numpy(FEATURES))


@pytest.mark.parametrize("features", [np.ones((3, 4), "i4"), np.ones(4, "f4"), np.ones((3, 0), "f4"), np.float32(1)])
def test_anything_but_a_float_matrix_is_refused(tmp_path: Path, features: NDArray[np.generic]) -> None:
    with pytest.raises(FeatureError, match="expected"):
        header(save_features(tmp_path / "a.npy", features))
