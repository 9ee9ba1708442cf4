"""Scans are found by the name of the slide and read at the level-0 pixels that features were computed from."""

import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mil.errors import ConfigError, ScanError
from mil.explain.scans import Bounds, Scan, Scans
from tests.explain.drawn_scans import picture, write_scn, write_tiff

pytest.importorskip("openslide")
pytest.importorskip("tifffile")

REAL_SLIDES = os.environ.get("MIL_REAL_SLIDES")
"""Folder with the scans `<slide>.svs` and `<slide>_*.npz`: places of tiles (`xy`, `tile_px`) and their share of white
pixels (`white_frac`), as the program that computed the features measured it."""


def test_a_region_is_the_pixels_at_its_place(tmp_path: Path) -> None:
    scanned = picture(512, 768)
    write_tiff(tmp_path / "a.tiff", scanned)
    with Scan(tmp_path / "a.tiff") as scan:
        assert (scan.width, scan.height) == (768, 512)
        assert scan.mpp == pytest.approx(0.5)
        assert np.array_equal(np.asarray(scan.region(128, 64, 100, 50)), scanned[64:114, 128:228])
        assert scan.region(0, 0, 512, 256, longest=128).size == (128, 64)


def test_without_a_stated_resolution_there_is_none(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tiff", picture(256, 256), mpp=None)
    with Scan(tmp_path / "a.tiff") as scan:
        assert scan.mpp is None


def test_bounds_are_the_scanned_part_and_the_rest_is_white(tmp_path: Path) -> None:
    scanned = picture(512, 768)
    write_scn(tmp_path / "a.scn", scanned, origin=(512, 256), size=(2048, 1024))
    with Scan(tmp_path / "a.scn") as scan:
        assert scan.bounds == Bounds(x=512, y=256, width=768, height=512)
        assert np.array_equal(np.asarray(scan.region(512 + 64, 256, 64, 64)), scanned[:64, 64:128])
        assert (np.asarray(scan.region(0, 0, 64, 64)) == 255).all()
        thumbnail = scan.thumbnail(longest=384)
        assert thumbnail.bounds == scan.bounds
        assert thumbnail.image.size == (384, 256)
        assert np.array_equal(np.asarray(thumbnail.image)[16, 16], scanned[32, 32])


def test_deep_zoom_begins_at_the_bounds_and_halves(tmp_path: Path) -> None:
    scanned = picture(512, 768)
    write_scn(tmp_path / "a.scn", scanned, origin=(512, 256), size=(2048, 1024))
    with Scan(tmp_path / "a.scn") as scan:
        zoom = scan.deep_zoom(tile=256, overlap=0)
        assert zoom.grids[-1] == (3, 2)
        tile = np.asarray(Image.open(BytesIO(zoom.tile(len(zoom.grids) - 1, 1, 0, quality=100))), dtype=np.int64)
        assert np.abs(tile[8:56, 8:56].mean((0, 1)) - scanned[32, 256 + 32]).max() < 3
        descriptor = zoom.write(tmp_path / "zoom", "a", longest=384)
    assert 'Width="384"' in descriptor.read_text(encoding="utf-8")
    assert 'Height="256"' in descriptor.read_text(encoding="utf-8")
    levels = sorted(int(folder.name) for folder in (tmp_path / "zoom" / "a_files").iterdir())
    assert levels == list(range(10))  # 1, 2, 3, 6, ... 384 pixels
    assert len(list((tmp_path / "zoom" / "a_files" / "9").iterdir())) == 2


def test_a_scan_is_found_by_the_name_of_the_slide(tmp_path: Path) -> None:
    (tmp_path / "centre").mkdir()
    write_tiff(tmp_path / "centre" / "TCGA-1.2.tiff", picture(256, 256))
    scans = Scans(tmp_path)
    assert scans.find("TCGA-1.2") == tmp_path / "centre" / "TCGA-1.2.tiff"
    assert scans.find("TCGA-1") is None
    assert scans.open("TCGA-1") is None


def test_two_files_for_one_slide_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for path in (tmp_path / "a.tiff", tmp_path / "old" / "a.svs"):
        path.touch()
    with pytest.raises(ScanError, match=r"slide 'a': 2 files .* may be its scan: a.tiff, old/a.svs"):
        Scans(tmp_path).find("a")


def test_a_file_that_is_no_scan_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_text("nothing", encoding="utf-8")
    with pytest.raises(ScanError, match=r"a\.svs: cannot be read as a whole-slide image"):
        Scans(tmp_path).open("a")
    with pytest.raises(ConfigError, match="no such folder"):
        Scans(tmp_path / "nowhere")


@pytest.mark.skipif(REAL_SLIDES is None, reason="MIL_REAL_SLIDES names no folder")
def test_tiles_of_real_slides_are_cut_where_their_features_come_from() -> None:
    tables = sorted(Path(str(REAL_SLIDES)).glob("*.npz"))
    assert tables
    for table in tables:
        slide = table.stem.rsplit("_", 2)[0]
        features = np.load(table)
        side = int(features["tile_px"])
        scan = Scans(Path(str(REAL_SLIDES))).open(slide)
        assert scan is not None
        with scan:
            tiles = [np.asarray(scan.region(x, y, side, side)) for x, y in features["xy"].tolist()]
        # a pixel counted as white where all channels are above 220; stored in half precision
        white = np.array([(tile.min(axis=-1) > 220).mean() for tile in tiles])
        assert np.abs(white - features["white_frac"].astype(np.float64)).max() < 5e-4
