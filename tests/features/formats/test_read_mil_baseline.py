from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mil.errors import FeatureError
from mil.features.formats import Header, Reading
from tests.features.formats.reading import claims, header, read

FEATURES = torch.from_numpy(np.random.default_rng(1).standard_normal((9, 6)).astype("f4"))
COORDS = torch.from_numpy(np.random.default_rng(2).integers(0, 90_000, (9, 2)))


def save_dictionary(path: Path, **content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("key", ["feats", "features"])
def test_all_entries_of_the_dictionary_are_read(tmp_path: Path, key: str) -> None:
    path = save_dictionary(tmp_path / "a.pt", **{key: FEATURES}, coords=COORDS, label=1)
    assert claims(path) == ["mil_baseline"]
    slide = read(path)
    assert slide.header == Header(9, 6, "float32", None, "MIL_BASELINE", None, None, True)
    assert torch.equal(slide.features, FEATURES)
    assert slide.coords is not None
    assert torch.equal(slide.coords, COORDS)


def test_numpy_arrays_and_float_coordinates_are_read(tmp_path: Path) -> None:
    slide = read(save_dictionary(tmp_path / "a.pt", feats=FEATURES.numpy(), coords=COORDS.numpy() + 0.25))
    assert torch.equal(slide.features, FEATURES)
    assert slide.coords is not None
    assert torch.equal(slide.coords, COORDS)


@pytest.mark.parametrize("extra", [{}, {"coords": None}])
def test_missing_coordinates_are_none(tmp_path: Path, extra: dict[str, None]) -> None:
    assert read(save_dictionary(tmp_path / "a.pt", feats=FEATURES, **extra)).coords is None


def test_batch_axis_is_refused_unless_declared(tmp_path: Path) -> None:
    path = save_dictionary(tmp_path / "a.pt", feats=FEATURES[None], coords=COORDS[None])
    with pytest.raises(FeatureError, match=r"data\.batch_axis=true"):
        header(path)
    slide = read(path, Reading(batch_axis=True))
    assert torch.equal(slide.features, FEATURES)
    assert slide.coords is not None
    assert torch.equal(slide.coords, COORDS)


def test_empty_slide_has_a_header(tmp_path: Path) -> None:
    assert read(save_dictionary(tmp_path / "a.pt", feats=FEATURES[:0], coords=COORDS[:0])).header.tiles == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"feats": FEATURES, "features": FEATURES}, "both 'feats' and 'features'"),
        ({"feats": FEATURES, "coords": COORDS[1:]}, r"\(8, 2\), expected \(9, 2\)"),
        ({"feats": FEATURES, "coords": "none"}, "'coords' is a str"),
        ({"feats": FEATURES, "coords": COORDS * torch.nan}, "no pixels"),
        ({"feats": FEATURES.int()}, "int32"),
        ({"feats": FEATURES[0]}, "shape"),
        ({"feats": [1.0]}, "no known layout"),
    ],
)
def test_inconsistent_content_is_refused(tmp_path: Path, content: dict[str, Any], reason: str) -> None:
    with pytest.raises(FeatureError, match=reason):
        read(save_dictionary(tmp_path / "a.pt", **content))
