"""Files that the producers' own code wrote (see producers/README.md), read as their scans demand."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from mil.features.formats import Reading
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
