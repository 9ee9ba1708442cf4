from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import pytest

from mil.errors import FeatureError
from mil.explain.scan_resolutions import SizedScan, place_by_scans
from mil.features.formats import Reading
from mil.features.store import FeatureStore
from tests.features.test_producers import MPPS, PRODUCERS, SCANS, SMALL, TCGA


@dataclass
class OpenedScan:
    width: int
    height: int
    mpp: float | None


@contextmanager
def opened(scan: OpenedScan) -> Iterator[SizedScan]:
    yield scan


class Folder:
    def __init__(self, **scans: OpenedScan) -> None:
        self.scans = scans

    def open(self, slide: str) -> AbstractContextManager[SizedScan] | None:
        return opened(self.scans[slide]) if slide in self.scans else None


def store(slide_mpp: float | None = None) -> FeatureStore:
    return FeatureStore(PRODUCERS / "stamp_2.5_two_resolutions", reading=Reading(slide_mpp=slide_mpp))


def test_each_slide_has_the_resolution_of_its_scan() -> None:
    features = store(0.25)
    place_by_scans(features, Folder(**{slide: OpenedScan(*SCANS[slide], MPPS[slide]) for slide in SCANS}), SCANS)
    for slide, extent in ((SMALL, 514), (TCGA, 1024)):
        places = features.places(slide)
        assert places is not None
        assert (set(places.width), places.mpp) == ({extent}, MPPS[slide])


def test_tiles_off_the_scan_are_refused_where_the_scan_states_no_resolution() -> None:
    with pytest.raises(FeatureError, match=f"slide '{SMALL}': 11 of 18 tiles lie outside its 2220 x 2967"):
        place_by_scans(store(0.25), Folder(**{SMALL: OpenedScan(*SCANS[SMALL], None)}), [SMALL, TCGA])


def test_resolution_of_a_table_stays_and_slides_without_a_scan_too() -> None:
    features = store()
    features.set_resolutions({SMALL: 0.5})
    place_by_scans(features, Folder(**{SMALL: OpenedScan(9000, 9000, 0.499)}), [SMALL, TCGA])
    assert features.slide_mpps == {SMALL: 0.5}
    assert features.places(TCGA) is None
