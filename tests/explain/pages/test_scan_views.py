"""Case pages over scans: thumbnails, pictures of tiles and deep zoom from files beside the page."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mil.explain.pages.case_page import case_page
from mil.explain.pages.map_picture import Extent
from mil.explain.pages.scan_views import FOLDER, scan_views
from mil.explain.scans import Scans
from mil.explain.tile_scores import SlideScores, TilePlaces
from tests.browser import needs_chromium
from tests.devtools import Browser
from tests.explain.drawn_scans import picture, write_scn

from .synthetic import case

ORIGIN, TILE = (512, 1024), 64
pytest.importorskip("openslide")
pytest.importorskip("tifffile")


def slide() -> SlideScores:
    """The tiles of the scanned part; the hottest is that of row 3 and column 5."""
    rows, columns = (axis.ravel().astype(float) for axis in np.mgrid[0:8, 0:12])
    scores = np.where((rows == 3) & (columns == 5), 2.0, -1.0)
    size = np.full(len(rows), float(TILE))
    grid = TilePlaces(x=ORIGIN[0] + columns * TILE, y=ORIGIN[1] + rows * TILE, width=size, height=size)
    both = np.stack([scores, scores], axis=1)
    return SlideScores(slide="S1", places=grid, scores={"single": both, "attention": np.abs(both)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of one slide whose scanned part begins at `ORIGIN`."""
    place = tmp_path_factory.mktemp("scan")
    (place / "slides").mkdir()
    write_scn(place / "slides" / "S1.scn", picture(512, 768), ORIGIN, (2048, 2048))
    shown = case(slides=(slide(),), tissue={})
    views = scan_views(shown.scores, Scans(place / "slides"), place)
    (place / "page.html").write_text(case_page(replace(shown, scans=views)), encoding="utf-8")
    return place


def test_the_picture_of_the_hottest_tile_has_its_colour(folder: Path) -> None:
    view = scan_views(case(slides=(slide(),)).scores, Scans(folder / "slides"), folder / "again")["S1"]
    assert view.bounds == Extent(512, 1024, 512 + 768, 1024 + 512)
    assert view.zoom_size == (768, 512)
    drawn = np.asarray(Image.open(BytesIO(view.tiles[3 * 12 + 5])), dtype=float).mean(axis=(0, 1))
    assert drawn == pytest.approx(picture(512, 768)[3 * TILE + 9, 5 * TILE + 9].astype(float), abs=8)


@needs_chromium
def test_deep_zoom_opens_from_files_beside_the_page(folder: Path) -> None:
    with Browser() as browser:
        browser.open(folder / "page.html")
        browser.run("document.querySelector('.zooming').click()")
        browser.run("new Promise(done => setTimeout(done, 1500))")
        assert browser.run("document.querySelector('#viewer canvas').width") > 100
        assert browser.complaints == []
        addresses = [address for address in browser.requests if not address.endswith("page.html")]
        assert addresses
        assert all(address.startswith((folder / FOLDER / "S1_files").resolve().as_uri()) for address in addresses)
