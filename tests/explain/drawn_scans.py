"""Small scans that tests draw, and explanations of their tiles."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mil.explain.tile_scores import ExplainedOutput, Method, PatientScores, SlideScores, TilePlaces

SINGLE = Method(name="single", title="tile alone", signed=True, sentence="What the model says of this tile alone.")
ATTENTION = Method(name="attention", title="attention", signed=False, sentence="How much it looks.", unit="share")
MSI = ExplainedOutput(name="MSI-H", meaning="speaks for MSI-H", unit="logit", value=1.2)
MSS = ExplainedOutput(name="MSS", meaning="speaks for MSS", unit="logit", value=-1.2)

_SCN = """<?xml version="1.0"?>
<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="urn:uuid:0">
<collection name="c" uuid="urn:uuid:1" sizeX="{width}" sizeY="{height}"><barcode>Zg==</barcode>{images}</collection>
</scn>"""
_SCN_IMAGE = """<image name="{ifd}" uuid="urn:uuid:{ifd}"><creationDate>2020-01-01T00:00:00Z</creationDate>
<device model="Leica SCN400" version="1"/><pixels sizeX="{columns}" sizeY="{rows}">
<dimension sizeX="{columns}" sizeY="{rows}" r="0" ifd="{ifd}"/></pixels>
<view sizeX="{width}" sizeY="{height}" offsetX="{x}" offsetY="{y}" spacingZ="0"/><scanSettings><objectiveSettings>
<objective>20</objective></objectiveSettings><illuminationSettings><numericalAperture>0.4</numericalAperture>
<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image>"""


def picture(rows: int, columns: int, tile: int = 64) -> NDArray[np.uint8]:
    """Return an RGB picture in which every tile has a colour of its own."""
    rng = np.random.default_rng(7)
    shades = rng.integers(30, 230, (-(-rows // tile), -(-columns // tile), 3), dtype=np.uint8)
    return np.repeat(np.repeat(shades, tile, axis=0), tile, axis=1)[:rows, :columns]


def write_scn(path: Path, scanned: NDArray[np.uint8], origin: tuple[int, int], size: tuple[int, int]) -> None:
    """Write a scan of Leica's format: a scanned part at `origin` in a slide of `size` pixels of 0.5 micrometres.

    OpenSlide states the scanned part as bounds, as it does for MIRAX.
    """
    import tifffile

    nanometres = 500
    width, height = size[0] * nanometres, size[1] * nanometres
    rows, columns = scanned.shape[:2]
    macro = _SCN_IMAGE.format(ifd=0, columns=256, rows=256, width=width, height=height, x=0, y=0)
    main = _SCN_IMAGE.format(
        ifd=1,
        columns=columns,
        rows=rows,
        width=columns * nanometres,
        height=rows * nanometres,
        x=origin[0] * nanometres,
        y=origin[1] * nanometres,
    )
    description = _SCN.format(width=width, height=height, images=macro + main)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        overview = np.full((256, 256, 3), 200, np.uint8)
        file.write(overview, tile=(256, 256), photometric="rgb", description=description, metadata=None)
        file.write(scanned, tile=(256, 256), photometric="rgb", metadata=None)


def write_tiff(path: Path, scanned: NDArray[np.uint8], mpp: float | None = 0.5) -> None:
    """Write a pyramidal tiled TIFF of two levels."""
    import tifffile

    resolution = None if mpp is None else (1e4 / mpp, 1e4 / mpp)
    with tifffile.TiffWriter(path) as file:
        file.write(scanned, tile=(256, 256), photometric="rgb", metadata=None, resolution=resolution, resolutionunit=3)
        file.write(scanned[::2, ::2], tile=(256, 256), photometric="rgb", metadata=None, subfiletype=1)


def grid_places(rows: int, columns: int, extent: float, x: float = 0, y: float = 0) -> TilePlaces:
    """Return the places of touching tiles, row after row."""
    down, across = np.divmod(np.arange(rows * columns), columns)
    sides = np.full(rows * columns, float(extent))
    return TilePlaces(x=x + across * extent, y=y + down * extent, width=sides, height=sides.copy())


def hot_scores(places: TilePlaces, hot: int, score: float = 2.0) -> NDArray[np.float64]:
    """Return scores of two outputs, small ones but for one tile, which speaks for the first output."""
    scores = np.random.default_rng(3).normal(0, 0.1, (len(places.x), 2))
    scores[hot] = (score, -score)
    return scores


def explained(
    slides: Mapping[str, tuple[TilePlaces | None, NDArray[np.float64]]],
    methods: tuple[Method, ...] = (SINGLE, ATTENTION),
    mpp: float | None = 0.5,
    patient: str = "P1",
) -> PatientScores:
    """Return a patient with these slides: places, and scores `(n, 2)` of the outputs `MSI` and `MSS`."""
    scored = []
    for slide, (places, scores) in slides.items():
        share = np.exp(scores) / np.exp(scores).sum(axis=0)
        by_method = {method.name: scores if method.signed else share for method in methods}
        scored.append(SlideScores(slide=slide, places=places, scores=by_method, mpp=mpp))
    return PatientScores(patient=patient, outputs=(MSI, MSS), methods=methods, slides=tuple(scored))
