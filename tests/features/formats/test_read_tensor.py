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


def saved(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_clams_tensor_is_read_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    expected = torch.from_numpy(FEATURES).to(dtype)
    path = saved(tmp_path / "pt_files" / "a.pt", expected)
    assert claims(path) == ["tensor"]
    slide = read(path)
    assert slide.header == Header(9, 6, str(dtype).removeprefix("torch."), None, "CLAM", None, None, False)
    assert torch.equal(slide.features, expected)


@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_tridents_array_is_read_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    path = saved(tmp_path / "a.pt", FEATURES.astype(dtype))
    assert claims(path) == ["tensor"]
    slide = read(path)
    assert slide.header.producer == "TRIDENT"
    assert torch.equal(slide.features, torch.from_numpy(FEATURES.astype(dtype)))


def test_the_extent_comes_from_clams_patches_file(tmp_path: Path, patches: Write) -> None:
    patches(tmp_path / "patches" / "a.b.h5", size=256, downsample=(2.0, 2.0))
    slide_header = header(saved(tmp_path / "pt_files" / "a.b.pt", torch.ones(3, 4)))
    assert (slide_header.extent, slide_header.tile_px) == (512.0, 256.0)


@pytest.mark.parametrize("content", [torch.empty(0, 6), np.empty((0, 6), "f4"), np.empty(0, "f4")])
def test_an_empty_slide_has_a_header(tmp_path: Path, content: object) -> None:
    assert read(saved(tmp_path / "a.pt", content)).header.tiles == 0


def test_a_batch_axis_needs_the_users_word(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", torch.ones(1, 9, 6))
    with pytest.raises(FeatureError, match=r"data\.batch_axis=true"):
        header(path)
    assert read(path, Reading(batch_axis=True)).features.shape == (9, 6)


def test_the_embedding_of_a_whole_slide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="embedding of a whole slide"):
        header(saved(tmp_path / "a.pt", torch.ones(768)))


def test_integers_are_no_features(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="int64, expected float16"):
        header(saved(tmp_path / "a.pt", torch.ones(3, 4).long()))


@pytest.mark.parametrize("content", [[torch.ones(4)] * 3, {"weights": torch.ones(3, 4)}, "text", None])
def test_anything_else_is_of_no_layout(tmp_path: Path, content: object) -> None:
    with pytest.raises(FeatureError, match="no known layout"):
        header(saved(tmp_path / "a.pt", content))
