"""Writing packed files: they hold exactly what the source holds, or nothing is written."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mil import files
from mil.errors import ConfigError
from mil.features.formats import Reading
from mil.features.packed import Packed
from mil.features.packing import Packing, pack
from mil.features.store import FeatureStore
from mil.simulation.layouts import LAYOUTS
from mil.simulation.simulated_cohort import write
from mil.tile_rows import TileRows, blocks
from tests.features.conftest import random_features, write_clam, write_mussel, write_trident
from tests.features.packings import COHORT, SLIDES, refusal, write_six_slides


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_six_slides(tmp_path / "in")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_packed_bit_for_bit(layout: str, tmp_path: Path) -> None:
    write(replace(COHORT, layout=layout), tmp_path / "cohort")
    store = FeatureStore(tmp_path / "cohort" / "features", reading=Reading(slide_mpp=0.25))
    done = pack(store, tmp_path / "out.h5")
    again = FeatureStore(tmp_path / "out.h5")
    assert again.slides == store.slides
    assert done.slides == len(store) >= 4
    assert done.tiles == sum(store.header(slide).tiles for slide in store.slides)
    assert (done.rounding, done.resumed) == (0, 0)
    for slide in store.slides:
        original, packed = store.read(slide), again.read(slide)
        assert replace(original.header, grid=(), step=None) == packed.header
        assert original.features.dtype == packed.features.dtype
        assert torch.equal(original.features.view(torch.uint8), packed.features.view(torch.uint8))
        assert (original.coords is None) == (packed.coords is None)
        assert original.coords is None or (packed.coords is not None and torch.equal(original.coords, packed.coords))
        for source in (store, again):
            check_pieces(source, slide)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cohort", "out.h5"]


def check_pieces(store: FeatureStore, slide: str) -> None:
    """Check that a slide that is read in pieces is the slide that is read whole."""
    read, pieces = store.read(slide), store.pieces(slide)
    bits, rows = read.features.view(torch.uint8), pieces.rows()
    assert isinstance(rows, TileRows)
    assert rows.shape == read.features.shape
    assert rows.dtype == read.features.dtype
    assert torch.equal(torch.cat([block.view(torch.uint8) for block in blocks(rows, 7)]), bits)
    tiles = np.unique(np.r_[0, 3, 4, len(read.features) - 1])
    assert torch.equal(pieces.drawn(tiles).view(torch.uint8), bits[tiles])
    coords = store.coords(slide)
    assert (coords is None) == (read.coords is None)
    assert coords is None or (read.coords is not None and torch.equal(coords, read.coords))


def test_size_before_packing_counts_all_source_files(tmp_path: Path, folder: Path) -> None:
    def total_size(place: Path) -> int:
        return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())

    done = pack(FeatureStore(folder), tmp_path / "a.h5")
    assert (done.before, done.after) == (total_size(folder), (tmp_path / "a.h5").stat().st_size)
    assert pack(FeatureStore(tmp_path / "a.h5"), tmp_path / "b.h5").before == done.after
    write(replace(COHORT, layout="lazyslide"), tmp_path / "cohort")
    zarrs = tmp_path / "cohort" / "features"
    assert pack(FeatureStore(zarrs), tmp_path / "c.h5").before == total_size(zarrs)


def test_packing_again_gives_the_same_bytes(tmp_path: Path, folder: Path) -> None:
    for source, out in ((folder, "a.h5"), (folder, "b.h5"), (tmp_path / "a.h5", "c.h5")):
        pack(FeatureStore(source), tmp_path / out)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes() == (tmp_path / "c.h5").read_bytes()


def test_selected_slides_can_be_packed(tmp_path: Path, folder: Path) -> None:
    done = pack(FeatureStore(folder), tmp_path / "a.h5", ["f", "c"])
    assert (done.slides, done.tiles) == (2, 28)
    assert Packed(tmp_path / "a.h5").slides == ["c", "f"]


def test_unusual_slide_names_are_preserved(tmp_path: Path) -> None:
    names = ["Präparat 1=2, 'π' #%", "TCGA-A1.90E7", os.fsdecode(b"\xff\xfe no text")]
    for name in names:
        write_trident(tmp_path / "in" / "a.h5").rename(tmp_path / "in" / f"{name}.h5")
    pack(FeatureStore(tmp_path / "in"), tmp_path / "Föld, 'a' =b.h5")
    assert set(FeatureStore(tmp_path / "Föld, 'a' =b.h5").slides) == set(names)


# Dtypes


def write_slides_of_each_dtype(folder: Path) -> dict[str, torch.Tensor]:
    """Write a slide of each dtype and return the features expected after packing."""
    wide = random_features(7, dtype="float32")
    halves = torch.from_numpy(wide).bfloat16()
    write_trident(folder / "half.h5", wide.astype("f2"))
    write_clam(folder / "single.h5", wide)
    write_clam(folder / "double.h5", wide.astype("f8") + 1e-12)
    write_mussel(folder / "brain.h5", halves.view(torch.int16).numpy().view("V2"), np.ones((7, 2), int))
    return {
        "half": torch.from_numpy(wide.astype("f2")).float(),
        "single": torch.from_numpy(wide),
        "double": torch.from_numpy((wide.astype("f8") + 1e-12).astype("f4")),
        "brain": halves.float(),
    }


def test_mixed_dtypes_become_float32_without_loss(tmp_path: Path) -> None:
    expected = write_slides_of_each_dtype(tmp_path / "in")
    done = pack(FeatureStore(tmp_path / "in"), tmp_path / "a.h5")
    assert (done.dtype, done.rounding) == ("float32", 0)
    for slide, features in expected.items():
        assert torch.equal(Packed(tmp_path / "a.h5").read(slide).features, features)
        assert Packed(tmp_path / "a.h5").header(slide).dtype == "float32"


@pytest.mark.parametrize(("dtype", "kind"), [("float16", torch.float16), ("bfloat16", torch.bfloat16)])
def test_rounding_to_another_dtype_is_reported(tmp_path: Path, folder: Path, dtype: str, kind: torch.dtype) -> None:
    done = pack(FeatureStore(folder), tmp_path / "a.h5", dtype=dtype)
    largest = 0.0
    for slide in SLIDES[1:]:
        exact, packed = FeatureStore(folder).read(slide).features, Packed(tmp_path / "a.h5").read(slide).features
        assert torch.equal(packed, exact.to(kind))
        largest = max(largest, float((packed.double() - exact.double()).abs().max()))
    assert done.dtype == dtype
    assert done.rounding == pytest.approx(largest, rel=1e-6)
    assert largest > 0


def test_wider_dtype_rounds_nothing(tmp_path: Path) -> None:
    write_trident(tmp_path / "in" / "a.h5")
    done = pack(FeatureStore(tmp_path / "in"), tmp_path / "a.h5", dtype="float32")
    assert (done.dtype, done.rounding) == ("float32", 0)


def test_float16_overflow_error_names_the_slide(tmp_path: Path, folder: Path) -> None:
    rows = np.ones((3, 8), "f4")
    rows[1, 2] = 65_520  # overflows: the largest float16 is 65,504
    write_clam(folder / "high.h5", rows)
    message = refusal(folder, tmp_path / "a.h5", "float16")
    assert f"{folder / 'high.h5'}: slide 'high' holds values beyond float16, expected dtype float32" in message
    assert not (tmp_path / "a.h5").exists()
    assert pack(FeatureStore(folder), tmp_path / "b.h5", dtype="bfloat16").slides == 7


def test_unknown_dtype_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match="dtype is 'int8', expected float16, float32, bfloat16"):
        pack(FeatureStore(folder), tmp_path / "a.h5", dtype="int8")


# What cannot be packed


def test_existing_file_is_never_overwritten(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "a.h5").write_text("mine")
    assert "is there already" in refusal(folder, tmp_path / "a.h5")
    assert (tmp_path / "a.h5").read_text() == "mine"
    assert not list(tmp_path.glob("*.partial"))


def test_output_inside_the_source_folder_is_refused(folder: Path) -> None:
    assert "lies in the folder that is packed" in refusal(folder, folder / "deep" / "all.h5")
    assert sorted(path.stem for path in folder.iterdir()) == SLIDES


def test_unreadable_slides_are_named_before_writing(tmp_path: Path, folder: Path) -> None:
    (folder / "b.h5").write_bytes(b"")
    (folder / "e.h5").write_text("text")
    message = refusal(folder, tmp_path / "a.h5")
    assert f"2 of 6 slides cannot be read: 'b', 'e'; {folder / 'b.h5'} cannot be read as HDF5" in message
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_nonfinite_slide_is_named_and_nothing_is_written(tmp_path: Path, folder: Path) -> None:
    write_clam(folder / "c.h5", np.full((3, 8), np.nan, "f4"))
    assert f"{folder / 'c.h5'}: 3 of 3 tiles have NaN" in refusal(folder, tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()


def test_several_widths_or_no_tiles_are_refused(tmp_path: Path, folder: Path) -> None:
    write_clam(folder / "wide.h5", random_features(3, 16, "float32"))
    assert "several widths: 8 (slide 'f') and 16 (slide 'wide')" in refusal(folder, tmp_path / "a.h5")
    write_clam(tmp_path / "empty" / "a.h5", random_features(0, dtype="float32"))
    assert "no tiles" in refusal(tmp_path / "empty", tmp_path / "a.h5")


def test_second_packing_into_the_same_file_is_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "a.h5.partial").mkdir()
    with files.locked(tmp_path / "a.h5.partial") as acquired:
        assert acquired
        assert "another process packs into" in refusal(folder, tmp_path / "a.h5")


def test_progress_is_reported_for_every_slide_and_step(tmp_path: Path, folder: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    done = pack(FeatureStore(folder), tmp_path / "a.h5", progress=lambda *step: steps.append(step))
    assert steps == [
        (step, count, 6) for step in ("reading headers", "packing", "reading back") for count in range(1, 7)
    ]
    assert isinstance(done, Packing)
