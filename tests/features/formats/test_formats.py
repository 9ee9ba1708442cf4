"""What holds for every layout, and how a file finds its own."""

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


def test_every_layout_is_found_by_its_module() -> None:
    modules = {path.stem.removeprefix("read_") for path in Path(package.__path__[0]).glob("*.py")} - {"__init__"}
    assert set(formats()) == modules >= set(HDF5)
    assert {".h5", ".hdf5"} <= set(suffixes()) <= set(package.CONTAINERS)


@pytest.mark.parametrize("producer", HDF5)
def test_a_file_is_claimed_by_its_own_layout_alone(
    producer: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(producer)(tmp_path / "a.h5")
    assert claims(path) == [producer]
    assert examine(path)[0] == producer
    assert examine(path, Reading(layout=producer)) == examine(path)


@pytest.mark.parametrize("producer", HDF5)
def test_the_header_tells_what_is_read(producer: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(producer)(tmp_path / "a.h5")
    for reading in (DETECTED, Reading(slide_mpp=0.5)):
        slide = read(path, reading)
        assert str(slide.features.dtype) == f"torch.{slide.header.dtype}"


@pytest.mark.parametrize("producer", HDF5)
def test_a_file_is_opened_once_to_be_examined(
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


def test_a_file_that_two_layouts_claim_asks_for_a_decision(
    tmp_path: Path, trident: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trident(tmp_path / "a.h5")
    monkeypatch.setattr(formats()["clam"], "matches", lambda path, content: True)
    with pytest.raises(FeatureError, match=r"can be read as clam or trident, data.layout=... decides"):
        examine(path)
    assert examine(path, Reading(layout="clam"))[1].producer != examine(path, Reading(layout="trident"))[1].producer


def test_a_file_of_another_layout_than_asked_for_is_refused_naming_its_own(tmp_path: Path, trident: Write) -> None:
    with pytest.raises(FeatureError, match=r"is not of data.layout=clam: it is of trident"):
        examine(trident(tmp_path / "a.h5"), Reading(layout="clam"))


def test_a_layout_that_nobody_knows_is_refused(tmp_path: Path, trident: Write) -> None:
    with pytest.raises(ConfigError, match=r"data.layout=tridnet, expected one of clam, "):
        examine(trident(tmp_path / "a.h5"), Reading(layout="tridnet"))


@pytest.mark.parametrize("on", ["features", "/"])
def test_features_with_somebody_elses_attributes_are_nobodys(tmp_path: Path, on: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = np.ones((3, 4), "f4")
        file[on].attrs["magic"] = 1
    with pytest.raises(FeatureError, match=r"no known layout \(clam, mussel, stamp, trident\): it holds 'features'"):
        examine(tmp_path / "a.h5")


def test_a_name_with_an_unknown_ending_is_refused(tmp_path: Path) -> None:
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
def test_an_id_has_neither_folder_nor_ending_and_keeps_its_dots(name: str, bare: str) -> None:
    assert slide_id(name) == bare
    assert slide_id(bare) == bare


def test_a_layout_may_name_its_slides_by_their_folder() -> None:
    assert slide_of(Path("x/normal_001.tif/features.npy")) == "normal_001"
    assert slide_of(Path("x/normal_001.tif.npy")) == "normal_001"
    assert slide_of(Path("x/features.h5")) == "features"
