import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike

from mil.errors import FeatureError
from mil.features.formats import Header, Reading
from tests.features.formats.reading import claims, header, read

FEATURES = torch.from_numpy(np.random.default_rng(1).standard_normal((9, 6)).astype("f4"))
CORNERS = np.random.default_rng(2).integers(0, 90_000, (9, 2))
CLASS = "slideflow.model.extractors.ctranspath.CTransPathFeatures"


def write(
    folder: Path,
    centres: ArrayLike | None = None,
    tile_um: object = 112,
    tile_px: object = 224,
    ending: str = ".index.npz",
    features: torch.Tensor = FEATURES,
) -> Path:
    """Write a bag as slideflow does: an index of tile centres, and one configuration per folder."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(features, folder / "a.b.pt")
    if centres is not None:
        save = np.savez if ending.endswith("z") else np.save
        save(folder / f"a.b{ending}", np.asarray(centres))
    config = {"extractor": {"class": CLASS, "kwargs": {}}, "normalizer": None, "num_features": 6}
    (folder / "bags_config.json").write_text(json.dumps({**config, "tile_px": tile_px, "tile_um": tile_um}))
    return folder / "a.b.pt"


@pytest.mark.parametrize("ending", [".index.npz", ".index.npy"])
@pytest.mark.parametrize(
    ("tile_um", "slide_mpp", "extent"), [(112, 0.25, 448), (112, 0.5, 224), ("20x", 0.25, 448), ("40X", 0.25, 224)]
)
def test_centres_become_corners(tmp_path: Path, ending: str, tile_um: object, slide_mpp: float, extent: int) -> None:
    path = write(tmp_path, CORNERS + extent // 2, tile_um, ending=ending)
    assert claims(path) == ["slideflow"]
    slide = read(path, Reading(slide_mpp=slide_mpp))
    mpp = 0.25 if tile_um == "40X" else 0.5
    expected = Header(9, 6, "float32", "CTransPathFeatures", "slideflow", extent, mpp, True, 224.0, slide_mpp)
    assert slide.header == expected
    assert torch.equal(slide.features, FEATURES)
    assert slide.coords is not None
    np.testing.assert_array_equal(slide.coords.numpy(), CORNERS)


def test_step_is_that_of_neighbours_in_tiles(tmp_path: Path) -> None:
    centres = np.array([[100, 100], [356, 100], [1124, 100], [100, 612], [700, 4000]])
    assert header(write(tmp_path, centres, features=FEATURES[:5]), Reading(slide_mpp=0.25)).step == 256 / 448


def test_no_coordinates_without_the_slide_resolution(tmp_path: Path) -> None:
    slide_header = read(write(tmp_path, CORNERS)).header
    assert (slide_header.extent, slide_header.mpp, slide_header.tile_px) == (None, 0.5, 224.0)


def test_no_coordinates_without_an_index(tmp_path: Path) -> None:
    assert read(write(tmp_path), Reading(slide_mpp=0.25)).coords is None


def test_missing_configuration_leaves_the_geometry_unknown(tmp_path: Path) -> None:
    path = write(tmp_path, CORNERS)
    (tmp_path / "bags_config.json").unlink()
    assert claims(path) == ["slideflow"]
    slide_header = read(path, Reading(slide_mpp=0.25)).header
    assert slide_header == Header(9, 6, "float32", None, "slideflow", None, None, False, None, 0.25)


@pytest.mark.parametrize(
    ("tile_um", "tile_px"),
    [("20", 224), ("x", 224), ("0x", 224), (None, 224), (112, None), (112, 0), (-1, 224), (True, 1)],
)
def test_invalid_tile_sizes_are_ignored(tmp_path: Path, tile_um: object, tile_px: object) -> None:
    assert header(write(tmp_path, CORNERS, tile_um, tile_px), Reading(slide_mpp=0.25)).extent is None


def test_empty_slide_has_a_header(tmp_path: Path) -> None:
    path = write(tmp_path, CORNERS[:0], features=FEATURES[:0])
    assert read(path, Reading(slide_mpp=0.25)).header.tiles == 0


def test_index_of_another_length_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, CORNERS[1:])
    with pytest.raises(FeatureError, match=r"a\.b\.index\.npz: coordinates have shape \(8, 2\), expected \(9, 2\)"):
        read(path, Reading(slide_mpp=0.25))


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"a": ' * 50_000, "\udcff", '{"a": 1}' + " " * 2**20])
def test_damaged_configuration_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = write(tmp_path, CORNERS)
    (tmp_path / "bags_config.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(FeatureError, match=r"bags_config\.json: ") as raised:
        header(path)
    assert "\n" not in str(raised.value)


def test_extractor_s_name_is_bounded(tmp_path: Path) -> None:
    path = write(tmp_path, CORNERS)
    (tmp_path / "bags_config.json").write_text(json.dumps({"extractor": {"class": "a" * 100_000}}))
    with pytest.raises(FeatureError, match=r"the extractor of bags_config\.json has 100000 characters"):
        header(path)
