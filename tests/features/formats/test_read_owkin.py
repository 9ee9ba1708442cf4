from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mil.errors import FeatureError
from mil.features.formats import Header, Reading, read_owkin, slide_of
from tests.features.formats.reading import claims, header, read

FEATURES = np.random.default_rng(1).standard_normal((90, 6)).astype("f4")
PLACES = np.stack([np.arange(90) % 7, np.arange(90) // 7], axis=1)


def write(
    folder: Path, features: NDArray[np.generic] = FEATURES, places: NDArray[np.int64] = PLACES, level: int = 16
) -> Path:
    """Write features with three address columns before them, in a folder named after the slide."""
    folder.mkdir(parents=True, exist_ok=True)
    address = np.column_stack([np.full(len(features), level), places[: len(features)]])
    np.save(folder / "features.npy", np.hstack([address, features]).astype("f4"))
    return folder / "features.npy"


@pytest.mark.parametrize(("slide_mpp", "factor"), [(0.25, 2), (0.23, 2), (0.5, 1), (0.45, 1), (0.125, 4), (1.0, 1)])
def test_addresses_become_corners(tmp_path: Path, slide_mpp: float, factor: int) -> None:
    path = write(tmp_path / "a.svs")
    assert claims(path) == ["owkin"]
    slide = read(path, Reading(slide_mpp=slide_mpp))
    extent = 224.0 * factor
    expected = Header(90, 6, "float32", None, "Owkin rl_benchmarks", extent, slide_mpp * factor, True, 224.0, slide_mpp)
    assert slide.header == expected
    assert torch.equal(slide.features, torch.from_numpy(FEATURES))
    assert slide.coords is not None
    np.testing.assert_array_equal(slide.coords.numpy(), PLACES * 224 * factor)


def test_no_coordinates_without_the_slide_resolution(tmp_path: Path) -> None:
    slide = read(write(tmp_path / "a.svs"))
    assert slide.header == Header(90, 6, "float32", None, "Owkin rl_benchmarks", None, None, False)
    assert torch.equal(slide.features, torch.from_numpy(FEATURES))


def test_slide_is_named_after_its_folder(tmp_path: Path) -> None:
    assert slide_of(write(tmp_path / "TCGA-A1.3F2A.svs")) == "TCGA-A1.3F2A"
    assert read_owkin.slide(tmp_path / "a" / "b.npy") == ""


@pytest.mark.parametrize("cohort", ["CAMELYON16", "TCGA/TCGA_COAD"])
def test_encoder_is_a_folder_name_of_the_benchmark(tmp_path: Path, cohort: str) -> None:
    benchmark = tmp_path / "preprocessed" / "slides_classification" / "features"
    assert header(write(benchmark / "iBOTViTBasePANCAN" / cohort / "a.svs")).encoder == "iBOTViTBasePANCAN"
    assert header(write(tmp_path / "features" / "mine" / cohort / "a.svs")).encoder is None


def test_matrix_as_wide_as_an_encoder_is_ambiguous(tmp_path: Path) -> None:
    path = write(tmp_path / "a.svs", np.random.default_rng(0).standard_normal((20, 2045)))
    assert claims(path) == ["flamby", "owkin"]
    with pytest.raises(FeatureError, match=r"flamby or owkin, data\.layout=\.\.\. decides"):
        header(path)
    assert header(path, Reading("owkin")).width == 2045
    assert header(path, Reading("flamby")).width == 2048


@pytest.mark.parametrize("width", [768, 1024, 1536, 2048])
def test_three_columns_more_than_an_encoder_are_addresses(tmp_path: Path, width: int) -> None:
    full = write(tmp_path / "a.svs", np.random.default_rng(0).standard_normal((5, width)))
    none = write(tmp_path / "b.svs", np.empty((0, width)))
    assert claims(full) == claims(none) == ["owkin"]
    assert read(none).features.shape == (0, width)


def test_missing_addresses_of_later_tiles_are_refused(tmp_path: Path) -> None:
    """The first tiles have addresses, a later one has none."""
    path = write(tmp_path / "a.svs")
    content = np.load(path)
    content[80, 1] += 0.5
    np.save(path, content)
    with pytest.raises(FeatureError, match="no addresses of one DeepZoom level"):
        read(path, Reading(slide_mpp=0.25))


def test_no_coordinates_for_tiles_on_several_levels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.svs")
    content = np.load(path)
    content[3, 0] = 15
    np.save(path, content)
    assert claims(path) == ["owkin"]
    assert read(path, Reading(slide_mpp=0.25)).coords is None
