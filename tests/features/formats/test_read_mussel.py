from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch

from mil.features.formats import Header, examine
from tests.features.formats.reading import read

Write = Callable[..., Path]
FEATURES = np.random.default_rng(1).standard_normal((9, 6)).astype("f4")
SIZE = (40_000.0, 30_000.0)
COORDS = np.random.default_rng(2).integers(0, 90_000, (9, 2))


def test_all_metadata_of_the_file_is_read(tmp_path: Path, mussel: Write) -> None:
    slide = read(mussel(tmp_path / "a.h5", FEATURES, COORDS, extent=506, mpp=0.5, tile_px=256))
    assert slide.header == Header(9, 6, "float32", None, "Mussel", 506.0, 0.5, True, 256.0, 0.25, SIZE)
    assert torch.equal(slide.features, torch.from_numpy(FEATURES))
    assert slide.coords is not None
    assert torch.equal(slide.coords, torch.from_numpy(COORDS))


def test_two_byte_void_dtype_is_read_as_bfloat16(tmp_path: Path, mussel: Write) -> None:
    expected = torch.from_numpy(FEATURES).to(torch.bfloat16)
    slide = read(mussel(tmp_path / "a.h5", expected.view(torch.int16).numpy().view("V2")))
    assert slide.header.dtype == "bfloat16"
    assert torch.equal(slide.features, expected)


def test_missing_tile_size_stays_unknown(tmp_path: Path, mussel: Write) -> None:
    path = mussel(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file["coords"].attrs["patch_size_to_resize_to_for_desired_mpp"]
    layout, header = examine(path)
    assert (layout, header.tile_px, header.mpp) == ("mussel", None, 0.5)


def test_empty_slide_has_a_header(tmp_path: Path, mussel: Write) -> None:
    slide = read(mussel(tmp_path / "a.h5", np.empty((0, 6), "f4"), np.empty((0, 2), "i8")))
    assert (slide.header.tiles, slide.header.width, len(slide.features)) == (0, 6, 0)
