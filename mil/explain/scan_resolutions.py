"""The resolution of slides from their scans, for feature files whose positions depend on it."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from mil.features.store import FeatureStore


class SizedScan(Protocol):
    """What is asked of an opened scan; `mil.explain.scans.Scan` is one."""

    width: int
    height: int
    mpp: float | None


class ScanFolder(Protocol):
    """Scans by slide; `mil.explain.scans.Scans` is one."""

    def open(self, slide: str) -> AbstractContextManager[SizedScan] | None:
        """Open the scan of a slide; None where there is none."""


def place_by_scans(store: FeatureStore, scans: ScanFolder, slides: Iterable[str]) -> None:
    """Give each slide the resolution of its scan, and check that its tiles lie on the scan.

    The scan's resolution is taken before that of `data.slide_mpp`, not before that of a table of slides. Slides without
    a scan, or whose scan states no resolution, stay as they are. Call it before features are read.

    Raises:
        FeatureError: Tiles lie outside the scan of their slide.
    """
    resolutions, sizes = dict(store.slide_mpps), dict[str, tuple[int, int]]()
    for slide in slides:
        opened = scans.open(slide)
        if opened is None:
            continue
        with opened as scan:
            sizes[slide] = scan.width, scan.height
            if scan.mpp is not None:
                resolutions.setdefault(slide, scan.mpp)
    store.set_resolutions(resolutions)
    for slide, (width, height) in sizes.items():
        places = store.places(slide)
        if places is not None:
            places.check_within(width, height, slide)
