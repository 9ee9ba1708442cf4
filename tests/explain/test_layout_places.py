"""A hot tile in the feature files of each producer lies at its pixel in every file of an explanation."""

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mil.explain.tile_scores import Array, TilePlaces
from mil.explain.writers import ExplanationFiles
from mil.features.places import SlidePlaces
from mil.features.store import FeatureStore
from mil.simulation.layouts import LAYOUTS
from tests.explain.drawn_scans import explained
from tests.simulation.test_planted_tile import SCANS, WITHOUT_PLACES, planted
from tests.simulation.test_planted_tile import expected as planted_place

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


def check_every_file(tiles: SlidePlaces, scores: Array, expected: tuple[float, ...], slide: str, folder: Path) -> None:
    """Explain a slide, write every file, and find the tile with the highest score at its pixels.

    Args:
        tiles: As the feature files have them.
        scores: `(n,)`, of which one is far above the others.
        expected: Left, top, width and height of that tile.
        slide: Name of the slide.
        folder: Where files are written.
    """
    places = TilePlaces(x=tiles.x, y=tiles.y, width=tiles.width, height=tiles.height)
    with ExplanationFiles(folder, ("csv", "geojson", "dsa", "top")) as files:
        files.write(explained({slide: (places, np.stack([scores, -scores], axis=1))}, mpp=tiles.mpp))
    stem = next((folder / "geojson").iterdir()).name.removesuffix(".geojson.gz")
    content = json.loads(gzip.decompress((folder / "geojson" / f"{stem}.geojson.gz").read_bytes()))
    feature = max(content["features"], key=lambda each: each["properties"]["measurements"]["single:MSI-H"])
    ring = np.array(feature["geometry"]["coordinates"][0])
    assert (*ring.min(axis=0), *np.ptp(ring, axis=0)) == pytest.approx(expected)
    top = next((folder / "top_tiles").glob("*single.MSI-H*"))
    for table, score in ((folder / "tiles.csv", "single:MSI-H"), (top, "score")):
        rows = pd.read_csv(table)
        best = rows.iloc[int(rows[score].argmax())]
        assert tuple(best[["x", "y", "width", "height"]]) == pytest.approx(expected)
    grid = json.loads((folder / "dsa" / f"{stem}.single.MSI-H.json").read_text(encoding="utf-8"))["elements"][0]
    row, column = divmod(int(np.argmax(grid["values"])), grid["gridWidth"])
    x, y = grid["origin"][0] + (column + 0.5) * grid["dx"], grid["origin"][1] + (row + 0.5) * grid["dy"]
    assert expected[0] <= x <= expected[0] + expected[2]
    assert expected[1] <= y <= expected[1] + expected[3]


@pytest.mark.parametrize(("folder", "mpps"), REAL)
def test_the_hot_tile_of_a_real_slide_lies_at_its_pixel(
    folder: str, mpps: dict[str, float] | None, tmp_path: Path
) -> None:
    features = FeatureStore(PRODUCERS / folder, slide_mpps=mpps)
    extents = set()
    for slide in features.slides:
        tiles = features.places(slide)
        assert tiles is not None
        hot = len(tiles) - 3
        scores = np.full(len(tiles), -0.1)
        scores[hot] = 2.0
        expected = (tiles.x[hot], tiles.y[hot], tiles.width[hot], tiles.height[hot])
        check_every_file(tiles, scores, expected, slide, tmp_path / slide)
        extents.add(expected[2])
    assert len(features.slides) > 0
    if folder.startswith("stamp"):
        assert extents == {514, 1024}


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - WITHOUT_PLACES))
def test_the_hot_tile_of_every_layout_lies_at_its_pixel(layout: str, tmp_path: Path) -> None:
    features = planted(tmp_path / "features", layout)
    for slide in SCANS:  # 256 and 512 level-0 pixels, overlap, and scans with bounds
        tiles = features.places(slide)
        assert tiles is not None
        left, top, side = planted_place(layout, slide)
        scores = features.read(slide).features.float().mean(1).numpy().astype(np.float64)
        check_every_file(tiles, scores, (left, top, side, side), slide, tmp_path / slide)
