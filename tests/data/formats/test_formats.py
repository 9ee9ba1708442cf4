"""What holds for every layout, and how a file finds its own."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from mil.data.formats import detect, formats, suffixes
from mil.errors import FeatureError

Write = Callable[..., Path]


def test_every_layout_is_found_by_its_module() -> None:
    modules = {path.stem for path in Path(detect.__code__.co_filename).parent.glob("*.py")} - {"__init__"}
    assert set(formats()) == modules >= {"clam", "trident"}
    assert ".h5" in suffixes()


@pytest.mark.parametrize("producer", ["trident", "clam"])
def test_a_file_is_claimed_by_its_own_layout_alone(
    producer: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(producer)(tmp_path / "a.h5")
    assert [name for name, layout in formats().items() if layout.matches(path)] == [producer]
    assert detect(path) is formats()[producer]


@pytest.mark.parametrize("producer", ["trident", "clam"])
def test_the_header_of_a_slide_is_the_header(producer: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(producer)(tmp_path / "a.h5")
    layout = detect(path)
    slide = layout.read(path)
    assert slide.header == layout.header(path)
    assert slide.features.shape == (slide.header.tiles, slide.header.width)
    assert str(slide.features.dtype) == f"torch.{slide.header.dtype}"
    assert (slide.coords is not None) == slide.header.has_coords


def test_a_file_that_two_layouts_claim_is_refused_naming_both(
    tmp_path: Path, trident: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trident(tmp_path / "a.h5")
    monkeypatch.setattr(formats()["clam"], "matches", lambda path: True)
    with pytest.raises(FeatureError, match="clam, trident"):
        detect(path)


def test_features_with_somebody_elses_attributes_are_nobodys(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("features", data=np.ones((3, 4), "f4")).attrs["magic"] = 1
    with pytest.raises(FeatureError, match="no known layout"):
        detect(tmp_path / "a.h5")


def test_a_name_with_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match=r"ending in \.h5"):
        detect(tmp_path / "a.parquet")
