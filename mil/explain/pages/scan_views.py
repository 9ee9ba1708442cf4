"""What a case page shows of the scans: a thumbnail, pictures of the strongest tiles, and pictures for deep zoom."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from mil.explain.file_names import file_names
from mil.explain.pages.case import Scan as ScanView
from mil.explain.pages.case_page import MOST_TILES
from mil.explain.pages.map_layers import extremes, layers
from mil.explain.pages.map_picture import Extent
from mil.explain.scans import Scan, Scans
from mil.explain.tile_scores import PatientScores, SlideScores

FOLDER = "scans"
"""Folder of the pictures for deep zoom, beside the pages."""
THUMBNAIL, PICTURE, ZOOM, ZOOM_TILE = 1200, 112, 16384, 512
"""Pixels: longer side of a thumbnail, of a tile's picture and of the finest level of a deep zoom; side of its tiles."""

SPARE = 2
"""Further tiles with a picture: the page rounds scores, so that the last of its list may be another of equal score."""


def scan_views(scores: PatientScores, scans: Scans, folder: Path) -> dict[str, ScanView]:
    """Return what is shown of the scans of a patient, by slide, and write the pictures for deep zoom.

    Args:
        scores: The explanation; slides without coordinates or without a scan are left out.
        scans: The scans.
        folder: Folder of the pages, below which `scans/` is written.

    Raises:
        ScanError: A scan cannot be read.
    """
    views = dict[str, ScanView]()
    strongest = _strongest(scores)
    for at, slide in enumerate(scores.slides):
        scan = None if slide.places is None else scans.open(slide.slide)
        if scan is not None:
            with scan:
                views[slide.slide] = _view(scan, slide, strongest[at], folder)
    return views


def _view(scan: Scan, slide: SlideScores, tiles: list[int], folder: Path) -> ScanView:
    thumbnail = scan.thumbnail(THUMBNAIL)
    name = file_names([slide.slide])[slide.slide]
    pyramid = scan.deep_zoom(ZOOM_TILE, 0)
    pyramid.write(folder / FOLDER, name, ZOOM)
    box = thumbnail.bounds
    shrink = 1
    while max(box.width, box.height) / shrink > ZOOM:
        shrink *= 2
    return ScanView(
        thumbnail=_jpeg(thumbnail.image),
        bounds=Extent(box.x, box.y, box.x + box.width, box.y + box.height),
        tiles={tile: _tile(scan, slide, tile) for tile in tiles},
        zoom=f"{FOLDER}/{name}_files",
        zoom_size=(-(-box.width // shrink), -(-box.height // shrink)),
    )


def _strongest(scores: PatientScores) -> list[list[int]]:
    """Return the tiles that a page may list, by slide: the strongest of every method and output."""
    starts = np.cumsum([0, *(len(slide) for slide in scores.slides)])
    chosen = list[set[int]](set() for _ in scores.slides)
    for layer in layers(scores):
        for output in range(len(scores.outputs)):
            values = np.concatenate(layer.values)[:, output]
            for number in np.concatenate(extremes(values, MOST_TILES + SPARE, layer.signed)).tolist():
                at = int(np.searchsorted(starts, number, side="right")) - 1
                chosen[at].add(int(number - starts[at]))
    return [sorted(tiles) for tiles in chosen]


def _tile(scan: Scan, slide: SlideScores, tile: int) -> bytes:
    places = slide.places
    if places is None:
        return b""
    x, y, width, height = (float(each[tile]) for each in (places.x, places.y, places.width, places.height))
    return _jpeg(scan.region(x, y, width, height, PICTURE))


def _jpeg(image: Image.Image) -> bytes:
    content = BytesIO()
    image.convert("RGB").save(content, "JPEG", quality=80)
    return content.getvalue()
