"""A hot tile planted in the feature files of each producer lies at its pixel in every file of an explanation."""

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mil.explain.tile_scores import TilePlaces
from mil.explain.writers import ExplanationFiles
from mil.features.formats import Reading
from mil.features.store import FeatureStore
from mil.simulation.layouts import EXTENT, LAYOUTS, require
from mil.simulation.layouts.scan import SLIDE_MPP
from mil.simulation.layouts.write_arrays import DEEPZOOM
from tests.explain.drawn_scans import explained

WITHOUT_PLACES = {"trident_pt", "clam_pt", "flamby"}
"""Layouts whose files hold no coordinates."""
PRODUCERS = Path(__file__).parents[1] / "features" / "producers"
"""Files that the producers' own code wrote for two real slides, see its README."""
REAL = [
    ("lazyslide_0.13", None),
    ("trident_a91fa84/10x_256px_0px_overlap", None),
    ("trident_a91fa84/20x_224px_32px_overlap", None),
    ("mussel_1.5/float16", None),
    ("stamp_2.5_two_resolutions", {"CMU-1-Small-Region": 0.499, "TCGA-CR-7395-01A-01-TS1": 0.25}),
]
"""Folder, and the resolution of each slide where the files do not state it: extents from 224 to 1024 level-0 pixels."""


def check_every_file(features: FeatureStore, slide: str, folder: Path) -> tuple[TilePlaces, int]:
    """Explain a slide whose last tile but two is hot, write every file, and find the tile at its pixel."""
    from mil.explain.writers.dsa import FOLDER as DSA

    tiles = features.places(slide)
    assert tiles is not None
    places = TilePlaces(x=tiles.x, y=tiles.y, width=tiles.width, height=tiles.height)
    hot = len(tiles) - 3
    scores = np.full((len(tiles), 2), -0.1)
    scores[hot] = (2.0, -2.0)
    with ExplanationFiles(folder, ("csv", "geojson", "dsa", "top")) as files:
        files.write(explained({slide: (places, scores)}, mpp=tiles.mpp))
    stem = next((folder / "geojson").iterdir()).name.removesuffix(".geojson.gz")
    expected = (tiles.x[hot], tiles.y[hot], tiles.width[hot], tiles.height[hot])
    content = json.loads(gzip.decompress((folder / "geojson" / f"{stem}.geojson.gz").read_bytes()))
    feature = max(content["features"], key=lambda each: each["properties"]["measurements"]["single:MSI-H"])
    ring = np.array(feature["geometry"]["coordinates"][0])
    assert (*ring.min(axis=0), *np.ptp(ring, axis=0)) == pytest.approx(expected)
    top = next((folder / "top_tiles").glob("*single.MSI-H*"))
    for table, score in ((folder / "tiles.csv", "single:MSI-H"), (top, "score")):
        rows = pd.read_csv(table)
        best = rows.iloc[int(rows[score].argmax())]
        assert tuple(best[["x", "y", "width", "height"]]) == pytest.approx(expected)
    grid = json.loads((folder / DSA / f"{stem}.single.MSI-H.json").read_text(encoding="utf-8"))["elements"][0]
    row, column = divmod(int(np.argmax(grid["values"])), grid["gridWidth"])
    x, y = grid["origin"][0] + (column + 0.5) * grid["dx"], grid["origin"][1] + (row + 0.5) * grid["dy"]
    assert expected[0] <= x <= expected[0] + expected[2]
    assert expected[1] <= y <= expected[1] + expected[3]
    return places, hot


@pytest.mark.parametrize(("folder", "mpps"), REAL)
def test_the_hot_tile_of_a_real_slide_lies_at_its_pixel(
    folder: str, mpps: dict[str, float] | None, tmp_path: Path
) -> None:
    features = FeatureStore(PRODUCERS / folder, slide_mpps=mpps)
    extents = set()
    for slide in sorted(features.slides):
        places, hot = check_every_file(features, slide, tmp_path / slide)
        extents.add(places.width[hot])
    assert len(features.slides) > 0
    if folder.startswith("stamp"):
        assert extents == {514, 1024}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_hot_tile_of_every_layout_lies_at_its_pixel(layout: str, tmp_path: Path) -> None:
    require(layout)
    rng = np.random.default_rng(5)
    cells = np.array([(column, row) for row in range(4) for column in range(5) if rng.random() < 0.8], dtype=np.int64)
    vectors = rng.normal(size=(len(cells), 8)).astype(np.float32)
    (tmp_path / "features").mkdir()
    LAYOUTS[layout](tmp_path / "features", "S1", vectors, cells)
    features = FeatureStore(tmp_path / "features", reading=Reading(slide_mpp=SLIDE_MPP))
    if features.places("S1") is None:
        assert layout in WITHOUT_PLACES
        return
    assert layout not in WITHOUT_PLACES
    places, hot = check_every_file(features, "S1", tmp_path / "out")
    read = features.read("S1").features.float().numpy()
    tile = int(np.argmin(((vectors - read[hot]) ** 2).sum(axis=1)))
    column, row = cells[tile] + 1
    extent = 2 * DEEPZOOM if layout == "owkin" else EXTENT
    assert (places.x[hot], places.y[hot]) == (column * extent, row * extent)
    assert (places.width[hot], places.height[hot]) == (extent, extent)
