"""A tile with a marker is planted in a slide of every layout, and found at its pixels by whoever reads it."""

from pathlib import Path

import numpy as np
import pytest

from mil.features.packing import pack
from mil.features.places import SlidePlaces
from mil.features.store import FeatureStore
from mil.simulation.layouts import LAYOUTS
from mil.simulation.layouts.scan import Scan

SCANS = {
    "at_40x": Scan(),
    "at_20x": Scan(mpp=0.5),
    "overlap": Scan(overlap=128),
    "bounds": Scan(bounds=(26 * 448 + 100, 13 * 448 + 7)),
    "bounds_at_20x": Scan(mpp=0.5, bounds=(7 * 224, 14 * 224)),
}
"""Slides of one cohort: two scanners, tiles that overlap, and slides whose OpenSlide bounds do not begin at zero."""
EXTENTS = {"at_40x": 512, "at_20x": 256, "overlap": 512, "bounds": 512, "bounds_at_20x": 256}
STEPS = EXTENTS | {"overlap": 256}
WITHOUT_PLACES = {"trident_pt", "clam_pt", "flamby"}
EXTENT_FROM_GRID = {"clam", "nnmil", "mil_baseline", "torchmil"}
"""Layouts whose files do not state the size of tiles: it is the step, too small where tiles overlap."""
CELLS = np.array([[x, y] for y in range(6) for x in range(7) if (x, y) not in {(2, 1), (5, 4), (0, 0)}])
HOT = 23
MARKER = 9.0


def planted(folder: Path, layout: str) -> FeatureStore:
    """Return a cohort with one slide for each scan, in which tile `HOT` is marked."""
    folder.mkdir()
    for number, (slide, scan) in enumerate(SCANS.items()):
        features = np.random.default_rng(number).uniform(-1, 1, (len(CELLS), 8)).astype("f4")
        features[HOT] = MARKER
        LAYOUTS[layout](folder, slide, features, CELLS, scan)
    return FeatureStore(folder, slide_mpps={slide: scan.mpp for slide, scan in SCANS.items()})


def expected(layout: str, slide: str) -> tuple[float, float, float]:
    """Return left, top and side of the marked tile, from the numbers of this file."""
    (x, y), (left, top) = CELLS[HOT] + 1, SCANS[slide].bounds
    if layout in ("owkin", "stamp"):  # a grid that begins at the corner of the slide, without overlap; Owkin's of 224
        side = EXTENTS[slide] * (224 if layout == "owkin" else 256) // 256
        return left // side * side + x * side, top // side * side + y * side, side
    side = STEPS[slide] if layout in EXTENT_FROM_GRID else EXTENTS[slide]
    return left + x * STEPS[slide], top + y * STEPS[slide], side


def marked(store: FeatureStore, slide: str, places: SlidePlaces) -> tuple[float, float, float]:
    """Return left, top and width of the tile whose features carry the marker."""
    scores = store.read(slide).features.float().mean(1).numpy()
    hot = int(scores.argmax())
    assert scores[hot] == pytest.approx(MARKER, rel=0.01)
    assert places.width[hot] == places.height[hot]
    return places.x[hot], places.y[hot], places.width[hot]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_planted_tile_is_found_at_its_pixels(layout: str, tmp_path: Path) -> None:
    store = planted(tmp_path / "slides", layout)
    assert store.slides == sorted(SCANS)
    for slide, scan in SCANS.items():
        places = store.places(slide)
        if layout in WITHOUT_PLACES:
            assert places is None
            continue
        assert places is not None
        assert len(places) == len(CELLS)
        assert marked(store, slide, places) == expected(layout, slide)
        assert places.extent_source == ("grid" if layout in EXTENT_FROM_GRID else "file")
        assert places.mpp == scan.mpp
        if layout in ("trident", "mussel", "lazyslide"):
            assert places.slide_size == scan.size(CELLS)


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - WITHOUT_PLACES))
def test_planted_tile_is_found_in_a_packed_cohort(layout: str, tmp_path: Path) -> None:
    store = planted(tmp_path / "slides", layout)
    slides = [slide for slide in SCANS if layout != "slideflow" or slide != "overlap"]  # one overlap a folder
    pack(store, tmp_path / "packed.h5", slides, dtype="float32")
    packed = FeatureStore(tmp_path / "packed.h5")
    for slide in slides:
        places = packed.places(slide)
        assert places is not None
        assert marked(packed, slide, places) == expected(layout, slide)
        assert places.mpp == SCANS[slide].mpp


@pytest.mark.parametrize("layout", ["trident", "mussel", "lazyslide"])
def test_resolution_that_the_file_implies_is_given_without_the_user_s(layout: str, tmp_path: Path) -> None:
    folder = planted(tmp_path / "slides", layout).folder
    for slide, scan in SCANS.items():
        places = FeatureStore(folder).places(slide)
        assert places is not None
        assert places.mpp == pytest.approx(scan.mpp)
