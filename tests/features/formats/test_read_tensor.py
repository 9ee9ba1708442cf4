from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mil.errors import FeatureError
from mil.features.formats import Header, Reading
from tests.features.formats.reading import claims, header, read

Write = Callable[..., Path]
FEATURES = np.random.default_rng(1).standard_normal((9, 6))


def save_tensor(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_clam_tensor_is_read_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    expected = torch.from_numpy(FEATURES).to(dtype)
    path = save_tensor(tmp_path / "pt_files" / "a.pt", expected)
    assert claims(path) == ["tensor"]
    slide = read(path)
    assert slide.header == Header(9, 6, str(dtype).removeprefix("torch."), None, "CLAM", None, None, False)
    assert torch.equal(slide.features, expected)


@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_trident_array_is_read_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    path = save_tensor(tmp_path / "a.pt", FEATURES.astype(dtype))
    assert claims(path) == ["tensor"]
    slide = read(path)
    assert slide.header.producer == "TRIDENT"
    assert torch.equal(slide.features, torch.from_numpy(FEATURES.astype(dtype)))


def test_extent_comes_from_the_clam_patches_file(tmp_path: Path, patches: Write) -> None:
    patches(tmp_path / "patches" / "a.b.h5", size=256, downsample=(2.0, 2.0))
    slide_header = header(save_tensor(tmp_path / "pt_files" / "a.b.pt", torch.ones(3, 4)))
    assert (slide_header.extent, slide_header.tile_px) == (512.0, 256.0)


@pytest.mark.parametrize("content", [torch.empty(0, 6), np.empty((0, 6), "f4"), np.empty(0, "f4")])
def test_empty_slide_has_a_header(tmp_path: Path, content: object) -> None:
    assert read(save_tensor(tmp_path / "a.pt", content)).header.tiles == 0


def test_batch_axis_is_refused_unless_declared(tmp_path: Path) -> None:
    path = save_tensor(tmp_path / "a.pt", torch.ones(1, 9, 6))
    with pytest.raises(FeatureError, match=r"data\.batch_axis=true"):
        header(path)
    assert read(path, Reading(batch_axis=True)).features.shape == (9, 6)


def test_slide_embedding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="embedding of a whole slide"):
        header(save_tensor(tmp_path / "a.pt", torch.ones(768)))


def test_integer_features_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="int64, expected float16"):
        header(save_tensor(tmp_path / "a.pt", torch.ones(3, 4).long()))


@pytest.mark.parametrize("content", [[torch.ones(4)] * 3, {"weights": torch.ones(3, 4)}, "text", None])
def test_other_content_matches_no_layout(tmp_path: Path, content: object) -> None:
    with pytest.raises(FeatureError, match="no known layout"):
        header(save_tensor(tmp_path / "a.pt", content))
