from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from mil.errors import FeatureError
from mil.features.formats import Header, Reading, examine
from tests.features.formats.reading import read

Write = Callable[..., Path]
FEATURES = np.random.default_rng(1).standard_normal((9, 6))
SIZE = (40_000.0, 30_000.0)
COORDS = np.random.default_rng(2).integers(0, 90_000, (9, 2))


def test_all_metadata_of_the_file_is_read(tmp_path: Path, trident: Write) -> None:
    slide = read(trident(tmp_path / "a.h5", FEATURES.astype("f2"), COORDS, encoder="uni_v1", extent=448))
    assert slide.header == Header(9, 6, "float16", "uni_v1", "TRIDENT", 448.0, 0.5, True, 256.0, slide_size=SIZE)
    assert slide.features.dtype is torch.float16
    assert slide.coords is not None
    assert slide.coords.dtype is torch.int64
    np.testing.assert_array_equal(slide.features.numpy(), FEATURES.astype("f2"))
    np.testing.assert_array_equal(slide.coords.numpy(), COORDS)


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4"])
def test_features_keep_their_dtype_in_any_byte_order(tmp_path: Path, trident: Write, dtype: str) -> None:
    slide = read(trident(tmp_path / "a.h5", FEATURES.astype(dtype)))
    assert slide.features.dtype is {"f2": torch.float16, "f4": torch.float32}[dtype[1:]]
    np.testing.assert_array_equal(slide.features.numpy(), FEATURES.astype(dtype[1:]))


def test_contiguous_chunked_and_compressed_files_read_alike(tmp_path: Path, trident: Write) -> None:
    chunked = trident(tmp_path / "a.h5", FEATURES.astype("f2"))
    options: list[dict[str, Any]] = [{}, {"compression": "gzip", "shuffle": True}, {"compression": "lzf"}]
    for number, packing in enumerate(options):
        variant = trident(tmp_path / f"{number}.h5", FEATURES.astype("f2"))
        with h5py.File(variant, "r+") as file:
            del file["features"]
            file.create_dataset("features", data=FEATURES.astype("f2"), **packing)
        assert torch.equal(read(variant).features, read(chunked).features)


def test_float64_is_read_as_float32(tmp_path: Path, trident: Write) -> None:
    slide = read(trident(tmp_path / "a.h5", FEATURES))
    assert slide.header.dtype == "float64"
    np.testing.assert_array_equal(slide.features.numpy(), FEATURES.astype("f4"))


def test_two_byte_void_dtype_is_read_as_bfloat16(tmp_path: Path, trident: Write) -> None:
    expected = torch.from_numpy(FEATURES).to(torch.bfloat16)
    slide = read(trident(tmp_path / "a.h5", expected.view(torch.int16).numpy().view("V2")))
    assert slide.header.dtype == "bfloat16"
    assert torch.equal(slide.features, expected)


def test_float_coordinates_of_older_files_are_rounded(tmp_path: Path, trident: Write) -> None:
    slide = read(trident(tmp_path / "a.h5", FEATURES, COORDS + np.where(COORDS % 2, 0.4, -0.4)))
    assert slide.coords is not None
    np.testing.assert_array_equal(slide.coords.numpy(), COORDS)


def test_coordinates_that_are_not_pixels_are_refused(tmp_path: Path, trident: Write) -> None:
    path = trident(tmp_path / "a.h5", FEATURES, np.where(COORDS[3, 1] == COORDS, np.nan, COORDS))
    with pytest.raises(FeatureError, match="no pixels"):
        read(path)


@pytest.mark.parametrize("shape", [(0,), (0, 1024)])
def test_empty_slide_has_a_header(tmp_path: Path, trident: Write, shape: tuple[int, ...]) -> None:
    path = trident(tmp_path / "a.h5", coords=np.empty((0, 2), "i8"))
    with h5py.File(path, "r+") as file:
        del file["features"]
        file.create_dataset("features", data=np.empty(shape, "f4"))
    assert examine(path)[1].tiles == 0
    assert examine(path)[1].width == shape[-1]
    assert len(read(path).features) == 0


@pytest.mark.parametrize("encoder", [None, "None", ""])
def test_missing_encoder_is_taken_from_the_job_folder(tmp_path: Path, trident: Write, encoder: str | None) -> None:
    job = tmp_path / "20x_256px_0px_overlap"
    assert examine(trident(job / "features_conch_v15" / "a.h5", encoder=encoder))[1].encoder == "conch_v15"
    assert examine(trident(tmp_path / "features_final" / "a.h5", encoder=encoder))[1].encoder is None


def test_encoder_of_the_file_overrides_that_of_the_folder(tmp_path: Path, trident: Write) -> None:
    path = trident(tmp_path / "20x_256px_0px_overlap" / "features_conch_v15" / "a.h5", encoder="uni_v1")
    assert examine(path)[1].encoder == "uni_v1"


@pytest.mark.parametrize(("magnification", "mpp"), [(20, 0.5), (40, 0.25), (10.0, 1.0), ("None", None), (0, None)])
def test_resolution_follows_from_the_magnification(
    tmp_path: Path, trident: Write, magnification: object, mpp: float | None
) -> None:
    path = trident(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file["coords"].attrs["target_magnification"] = magnification
        file["coords"].attrs["config"] = '{"patch_size": 1}'
    assert examine(path)[1].mpp == mpp
    assert examine(path)[1].tile_px == 256.0


def test_batch_axis_of_one_is_accepted_if_declared(tmp_path: Path, trident: Write) -> None:
    path = trident(tmp_path / "a.h5", FEATURES.astype("f2")[None], COORDS[None] + 0.2)
    with pytest.raises(FeatureError, match=r"data.batch_axis=true"):
        read(path)
    slide = read(path, Reading(batch_axis=True))
    np.testing.assert_array_equal(slide.features.numpy(), FEATURES.astype("f2"))
    assert slide.coords is not None
    np.testing.assert_array_equal(slide.coords.numpy(), COORDS)
    assert slide.header.extent == 512.0


def test_batch_axis_of_several_is_refused(tmp_path: Path, trident: Write) -> None:
    path = trident(tmp_path / "a.h5", np.ones((2, 9, 6), "f4"), np.ones((2, 9, 2), "i8"))
    with pytest.raises(FeatureError, match=r"\(2, 9, 6\), expected \(tiles, width\)$"):
        examine(path, Reading(batch_axis=True))


@pytest.mark.parametrize("moved", [False, True])
def test_a_slide_s_vector_is_one_row_of_the_encoder_that_wrote_its_folder(
    tmp_path: Path, trident: Write, moved: bool
) -> None:
    path = trident(tmp_path / "slide_features_titan" / "a.h5", np.arange(768, dtype="f4"), COORDS, encoder=None)
    if moved:
        path = path.rename(tmp_path / "a.h5")
    slide = read(path)
    assert slide.header == Header(1, 768, "float32", "titan", "TRIDENT", None, None, False, level="slide")
    np.testing.assert_array_equal(slide.features.numpy(), np.arange(768, dtype="f4")[None])
    assert slide.coords is None


@pytest.mark.parametrize("length", [513, 60_000, 200_000])
def test_encoder_s_name_is_bounded_however_it_is_stored(tmp_path: Path, trident: Write, length: int) -> None:
    path = trident(tmp_path / "a.h5", encoder="uni")
    with h5py.File(path, "r+", libver="latest") as file:
        file["features"].attrs["encoder"] = "u" * length
    reason = rf"attribute 'encoder' has {length} characters, expected at most 512"
    with pytest.raises(FeatureError, match=reason) as error:
        examine(path)
    assert len(str(error.value)) < 400
