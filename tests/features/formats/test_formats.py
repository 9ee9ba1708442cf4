"""Properties of every layout, and how the layout of a file is detected."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import h5py
import numpy as np
import pytest

from mil.errors import ConfigError, FeatureError
from mil.features import formats as package
from mil.features.formats import DETECTED, Reading, examine, formats, opened, slide_of, suffixes
from mil.slide_names import slide_id
from tests.features.formats.reading import claims, read

Write = Callable[..., Path]
HDF5 = ["trident", "clam", "mussel", "stamp"]


def test_every_layout_module_is_discovered() -> None:
    modules = {path.stem.removeprefix("read_") for path in Path(package.__path__[0]).glob("*.py")} - {"__init__"}
    assert set(formats()) == modules >= set(HDF5)
    assert {".h5", ".hdf5"} <= set(suffixes()) <= set(package.CONTAINERS)


@pytest.mark.parametrize("producer", HDF5)
def test_only_its_own_layout_accepts_a_file(producer: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(producer)(tmp_path / "a.h5")
    assert claims(path) == [producer]
    assert examine(path)[0] == producer
    assert examine(path, Reading(layout=producer)) == examine(path)


@pytest.mark.parametrize("producer", HDF5)
def test_header_matches_the_slide(producer: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(producer)(tmp_path / "a.h5")
    for reading in (DETECTED, Reading(slide_mpp=0.5)):
        slide = read(path, reading)
        assert str(slide.features.dtype) == f"torch.{slide.header.dtype}"


@pytest.mark.parametrize("producer", HDF5)
def test_examining_a_file_opens_it_once(
    producer: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = request.getfixturevalue(producer)(tmp_path / "a.h5")
    opens: list[Path] = []

    def counted(path: Path, bulk: bool = False) -> AbstractContextManager[object]:
        opens.append(path)
        return opened(path, bulk)

    monkeypatch.setattr(package, "opened", counted)
    examine(path)
    assert opens == [path]


def test_ambiguous_layout_error_asks_for_a_choice(
    tmp_path: Path, trident: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trident(tmp_path / "a.h5")
    monkeypatch.setattr(formats()["clam"], "matches", lambda path, content: True)
    with pytest.raises(FeatureError, match=r"can be read as clam or trident, data.layout=... decides"):
        examine(path)
    assert examine(path, Reading(layout="clam"))[1].producer != examine(path, Reading(layout="trident"))[1].producer


def test_wrong_layout_error_names_the_detected_one(tmp_path: Path, trident: Write) -> None:
    with pytest.raises(FeatureError, match=r"is not of data.layout=clam: it is of trident"):
        examine(trident(tmp_path / "a.h5"), Reading(layout="clam"))


def test_unknown_layout_is_refused(tmp_path: Path, trident: Write) -> None:
    with pytest.raises(ConfigError, match=r"data.layout=tridnet, expected one of clam, "):
        examine(trident(tmp_path / "a.h5"), Reading(layout="tridnet"))


@pytest.mark.parametrize("on", ["features", "/"])
def test_features_with_foreign_attributes_match_no_layout(tmp_path: Path, on: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = np.ones((3, 4), "f4")
        file[on].attrs["magic"] = 1
    message = r"no known layout \(clam, moozy, mussel, stamp, trident\): it holds 'features'"
    with pytest.raises(FeatureError, match=message):
        examine(tmp_path / "a.h5")


def test_unknown_file_extension_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match=r"ending in .*\.h5"):
        examine(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("a.h5", "a"),
        ("a.H5", "a"),
        ("a.svs", "a"),
        ("a.svs.h5", "a"),
        ("normal_001.tif.npy", "normal_001"),
        ("b.ome.tiff.zarr", "b"),
        ("sub/deep/a.h5", "a"),
        ("sub\\a.NDPI", "a"),
        ("TCGA-3L-AA1B-01Z-00-DX1.8923A151-A690.svs", "TCGA-3L-AA1B-01Z-00-DX1.8923A151-A690"),
        ("001", "001"),
        ("1E5", "1E5"),
        ("12.5", "12.5"),
        ("a.svs.note", "a.svs.note"),
        (".svs", ".svs"),
        ("svs", "svs"),
    ],
)
def test_slide_id_drops_folder_and_extension_and_keeps_dots(name: str, bare: str) -> None:
    assert slide_id(name) == bare
    assert slide_id(bare) == bare


def test_layout_may_name_slides_after_their_folder() -> None:
    assert slide_of(Path("x/normal_001.tif/features.npy")) == "normal_001"
    assert slide_of(Path("x/normal_001.tif.npy")) == "normal_001"
    assert slide_of(Path("x/features.h5")) == "features"
