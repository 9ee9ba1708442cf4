"""Files that the producers' own code wrote (see producers/README.md), read as their scans demand."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from mil.errors import EncoderError, FeatureError
from mil.features.formats import Reading
from mil.features.packing import pack
from mil.features.places import SlidePlaces
from mil.features.store import FeatureStore

PRODUCERS = Path(__file__).parent / "producers"
SMALL, TCGA = "CMU-1-Small-Region", "TCGA-CR-7395-01A-01-TS1"
SCANS = {SMALL: (2220, 2967), TCGA: (4443, 3567)}
MPPS = {SMALL: 0.499, TCGA: 0.25}
"""Size in pixels and micrometres a pixel of the two scans."""


def store(name: str, slide_mpps: Mapping[str, float] | None = None, reading: Reading | None = None) -> FeatureStore:
    return FeatureStore(PRODUCERS / name, reading=reading or Reading(), slide_mpps=slide_mpps)


def places(features: FeatureStore, slide: str) -> SlidePlaces:
    tiles = features.places(slide)
    assert tiles is not None
    tiles.check_within(*SCANS[slide], slide)
    return tiles


FOLDERS: list[tuple[str, str, str | None, int, int, float]] = [
    ("lazyslide_0.13", SMALL, "uni", 38, 224, 0.499),
    ("lazyslide_0.13", TCGA, "uni", 31, 512, 0.25),
    ("trident_a91fa84/10x_256px_0px_overlap", SMALL, "uni_v1", 30, 512, 0.5),
    ("trident_a91fa84/10x_256px_0px_overlap", TCGA, "uni_v1", 20, 1024, 0.25),
    ("trident_a91fa84/20x_224px_32px_overlap", TCGA, "uni_v1", 120, 448, 0.25),
    ("mussel_1.5/float16", SMALL, None, 59, 257, 0.499),
    ("mussel_1.5/float16", TCGA, None, 40, 512, 0.25),
]
"""Folder, slide, encoder as named, tiles, level-0 extent and level-0 resolution (nominal for TRIDENT)."""


@pytest.mark.parametrize(("folder", "slide", "encoder", "tiles", "extent", "mpp"), FOLDERS)
def test_positions_and_extents_are_those_of_the_scan(
    folder: str, slide: str, encoder: str | None, tiles: int, extent: int, mpp: float
) -> None:
    features = store(folder)
    at = places(features, slide)
    assert (features.header(slide).encoder, len(at), at.extent_source) == (encoder, tiles, "file")
    assert set(at.width) == set(at.height) == {extent}
    assert at.mpp == pytest.approx(mpp)
    assert at.slide_size == SCANS[slide]
    assert features.read(slide).features.shape == (tiles, 192)


def test_stamp_s_slides_of_two_resolutions_lie_where_each_has_its_own() -> None:
    features = store("stamp_2.5_two_resolutions", MPPS)
    small, large = places(features, SMALL), places(features, TCGA)
    assert (len(small), set(small.width), small.x.max(), small.y.max()) == (18, {514}, 1542, 2570)
    assert (len(large), set(large.width), large.x.max(), large.y.max()) == (16, {1024}, 4096, 3072)
    assert (small.mpp, large.mpp) == (0.499, 0.25)
    assert (small.x % 514 == 0).all()
    features.resolve([SMALL, TCGA])


@pytest.mark.parametrize("mpp", [0.25, 0.499])
def test_one_resolution_for_stamp_s_slides_of_two_is_refused(mpp: float, tmp_path: Path) -> None:
    features = store("stamp_2.5_two_resolutions", reading=Reading(slide_mpp=mpp))
    reason = rf"'{SMALL}' and '{TCGA}' .* are both taken at {mpp:g} .* resolutions differ: .*data\.columns\.mpp"
    with pytest.raises(EncoderError, match=reason):
        features.resolve([SMALL, TCGA])
    with pytest.raises(EncoderError, match=reason):
        pack(features, tmp_path / "packed.h5")


def test_tiles_beyond_the_scan_are_an_error() -> None:
    at = store("stamp_2.5_two_resolutions", reading=Reading(slide_mpp=0.25)).places(SMALL)
    assert at is not None
    with pytest.raises(FeatureError, match=r"11 of 18 tiles lie outside its 2220 x 2967 pixels at 0\.25"):
        at.check_within(*SCANS[SMALL], SMALL)


def test_packed_slides_keep_their_places_and_resolutions(tmp_path: Path) -> None:
    features = store("stamp_2.5_two_resolutions", MPPS)
    pack(features, tmp_path / "packed.h5")
    packed = FeatureStore(tmp_path / "packed.h5")
    for slide in features.slides:
        before, after = places(features, slide), places(packed, slide)
        for name in ("x", "y", "width", "height"):
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
        assert after.mpp == MPPS[slide]


@pytest.mark.parametrize("slide", [SMALL, TCGA])
def test_owkin_s_script_writes_into_a_folder_of_its_own_name(slide: str) -> None:
    features = store("owkin", MPPS)
    at = places(features, slide)
    extent = {SMALL: 224, TCGA: 448}[slide]
    assert features.header(slide).encoder == "iBOTViTBasePANCAN"
    assert (set(at.width), at.mpp) == ({extent}, MPPS[slide])
    assert ((at.x % extent == 0) & (at.y % extent == 0)).all()


def test_owkin_s_tiles_at_a_wrong_resolution_leave_the_scan() -> None:
    at = store("owkin", reading=Reading(slide_mpp=0.25)).places(SMALL)
    assert at is not None
    with pytest.raises(FeatureError, match="lie outside its 2220 x 2967 pixels"):
        at.check_within(*SCANS[SMALL], SMALL)


def test_clam_s_extent_is_that_of_the_patches_file() -> None:
    features = FeatureStore(PRODUCERS / "clam_53e2409")
    at = places(features, SMALL)
    assert features.path(SMALL).parent.name == "h5_files"
    assert (set(at.width), at.mpp, len(at)) == ({256}, None, 49)


def test_lazyslide_s_row_belongs_to_the_box_of_its_tile_id(tmp_path: Path) -> None:
    path = tmp_path / f"{TCGA}.zarr"
    shutil.copytree(PRODUCERS / "lazyslide_0.13" / path.name, path)
    before = places(FeatureStore(tmp_path), TCGA)
    file = path / "shapes" / "tiles" / "shapes.parquet"
    shapes = parquet.read_table(file)
    parquet.write_table(shapes.take(np.arange(len(shapes))[::-1]), file)
    after = places(FeatureStore(tmp_path), TCGA)
    np.testing.assert_array_equal(after.x, before.x)
    np.testing.assert_array_equal(after.y, before.y)
