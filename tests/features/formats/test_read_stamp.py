from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mil.errors import FeatureError
from mil.features.formats import Header, Reading, examine
from tests.features.conftest import grid, random_features, write_multiplex
from tests.features.formats.reading import read

Write = Callable[..., Path]
FEATURES = random_features(9, 6)
AT_40X = Reading(slide_mpp=0.25)
GRID = tuple(float(i) for i in range(7))
"""The lowest positions, in tiles."""


def test_version_2_1_states_all_but_the_slide_resolution(tmp_path: Path, stamp: Write) -> None:
    slide = read(stamp(tmp_path / "a.h5", FEATURES))
    expected = Header(9, 6, "float16", "virchow2", "STAMP 2.1.0", None, 256 / 224, False, 224.0)
    assert slide.header == expected
    assert slide.coords is None
    np.testing.assert_array_equal(slide.features.numpy(), FEATURES)


def test_slide_resolution_converts_micrometres_to_pixels(tmp_path: Path, stamp: Write) -> None:
    slide = read(stamp(tmp_path / "a.h5", FEATURES), AT_40X)
    assert (slide.header.extent, slide.header.has_coords) == (1024.0, True)
    assert slide.coords is not None
    assert slide.coords.dtype is torch.int64
    np.testing.assert_array_equal(slide.coords.numpy(), grid(9, 1024))


def test_version_2_0_states_the_tile_size_in_micrometres_only(tmp_path: Path, stamp: Write) -> None:
    slide = read(stamp(tmp_path / "a.h5", FEATURES, version="2.0"), AT_40X)
    assert slide.header == Header(
        9, 6, "float16", "ctranspath", "STAMP 2.0.0", 1024.0, None, True, None, 0.25, grid=GRID
    )
    assert slide.coords is not None
    np.testing.assert_array_equal(slide.coords.numpy(), grid(9, 1024))


def test_version_1_states_no_unit_and_has_256_micrometre_tiles(tmp_path: Path, stamp: Write) -> None:
    slide = read(stamp(tmp_path / "a.h5", FEATURES, version="1"), AT_40X)
    assert slide.header == Header(9, 6, "float16", None, "STAMP 1", 1024.0, 256 / 224, True, 224.0, 0.25)
    assert slide.coords is not None
    np.testing.assert_array_equal(slide.coords.numpy(), grid(9, 1024))


@pytest.mark.parametrize(("step", "fits"), [(224, True), (448, True), (225, True), (256, False), (300, False)])
def test_coordinates_without_a_unit_need_the_grid_of_version_1(
    tmp_path: Path, stamp: Write, step: int, fits: bool
) -> None:
    path = stamp(tmp_path / "a.h5", FEATURES, grid(9, step), version="1")
    if fits:
        assert read(path, AT_40X).coords is not None
        return
    with pytest.raises(FeatureError, match=rf"name no unit and stand {step} apart, expected 224"):
        read(path, AT_40X)


def test_coordinates_in_another_unit_are_not_used(tmp_path: Path, stamp: Write) -> None:
    slide = read(stamp(tmp_path / "a.h5", unit="px"), AT_40X)
    assert slide.coords is None
    assert not slide.header.has_coords


@pytest.mark.parametrize(
    ("extractor", "name"),
    [
        ("uni", "uni"),
        ("chief-ctranspath", "chief-ctranspath"),
        ("chief-ctranspath-6a02ef91", "chief-ctranspath"),
        ("h-optimus-0", "h-optimus-0"),
        ("h-optimus-0-ABCDEF", "h-optimus-0"),
        ("None", None),
    ],
)
def test_code_hash_is_removed_from_the_encoder_name(
    tmp_path: Path, stamp: Write, extractor: str, name: str | None
) -> None:
    assert examine(stamp(tmp_path / "a.h5", extractor=extractor))[1].encoder == name


def test_multiplex_file_has_features_without_coordinates(tmp_path: Path) -> None:
    slide = read(write_multiplex(tmp_path / "a.h5", FEATURES), AT_40X)
    assert slide.header == Header(9, 6, "float16", None, "STAMP multiplex", None, None, False, None, 0.25)
    np.testing.assert_array_equal(slide.features.numpy(), FEATURES)


@pytest.mark.parametrize("shape", [(6,), (1, 6)])
@pytest.mark.parametrize("attributes", [{"feat_type": "slide"}, {"feat_type": "patient"}, {"encoder": "titan"}])
def test_vectors_of_slides_and_patients_are_one_row(
    tmp_path: Path, shape: tuple[int, ...], attributes: dict[str, str]
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["feats"] = np.arange(6, dtype="f4").reshape(shape)
        file.attrs.update({"encoder": "titan"} | attributes | {"stamp_version": "2.1.0", "precision": "float32"})
    slide = read(tmp_path / "a.h5", AT_40X)
    level = attributes.get("feat_type", "slide")
    assert slide.header == Header(1, 6, "float32", "titan", "STAMP 2.1.0", None, None, False, level=level)
    np.testing.assert_array_equal(slide.features.numpy(), np.arange(6, dtype="f4")[None])
    assert slide.coords is None


@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        ((3, 6), "slide", r"\(3, 6\), expected one vector"),
        ((6,), "region", "feat_type is 'region', expected tile, slide"),
    ],
)
def test_several_vectors_and_kinds_that_are_not_known_are_refused(
    tmp_path: Path, shape: tuple[int, ...], kind: str, message: str
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["feats"] = np.ones(shape, "f4")
        file.attrs.update({"encoder": "titan", "feat_type": kind, "stamp_version": "2.1.0"})
    with pytest.raises(FeatureError, match=message):
        examine(tmp_path / "a.h5")


def test_batch_axis_of_one_is_accepted_if_declared(tmp_path: Path, stamp: Write) -> None:
    path = stamp(tmp_path / "a.h5", FEATURES[None], grid(9, 256)[None])
    with pytest.raises(FeatureError, match=r"data.batch_axis=true"):
        examine(path)
    slide = read(path, Reading(batch_axis=True, slide_mpp=0.25))
    np.testing.assert_array_equal(slide.features.numpy(), FEATURES)
    assert slide.coords is not None
    np.testing.assert_array_equal(slide.coords.numpy(), grid(9, 1024))


@settings(max_examples=30, deadline=None)
@given(mpp=st.floats(0.1, 2), cells=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1))
def test_pixels_are_recovered_from_micrometres(
    tmp_path_factory: pytest.TempPathFactory, stamp: Write, mpp: float, cells: list[tuple[int, int]]
) -> None:
    pixels = np.array(cells) * round(256 / mpp)
    path = stamp(tmp_path_factory.mktemp("um") / "a.h5", np.ones((len(cells), 2), "f2"), pixels * mpp)
    slide = read(path, Reading(slide_mpp=mpp))
    assert slide.coords is not None
    np.testing.assert_array_equal(slide.coords.numpy(), pixels)
