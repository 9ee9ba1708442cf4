"""Top and bottom tiles of a patient: a table with coordinates, and a sheet of images where the scan is there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from mil.explain.file_names import file_name
from mil.explain.scans import Scan
from mil.explain.tile_scores import ExplainedOutput, Method, PatientScores
from mil.explain.writers.writing_options import WritingOptions
from mil.files import write
from mil.report.figures.style import WIDTH, minus, save_figure, short, styled
from mil.tables import csv_text

FOLDER = "top_tiles"
_COLUMNS = 5
_PIXELS = 224
"""Longest side of a tile's picture on a sheet."""
_GAP, _HEADING = 0.1, 0.3
_CELL, _ROW = (WIDTH - _GAP) / _COLUMNS, 1.55
_SIDE = _CELL - _GAP
"""Inches: between pictures, of a heading, from picture to picture across and down, and of a picture."""
_LETTERS = 85
"""Of the title."""


@dataclass(frozen=True, kw_only=True)
class RankedTile:
    """A tile among the highest or lowest of its patient.

    Attributes:
        side: "top" or "bottom".
        rank: From 1.
        slide: Name of the slide.
        tile: Row of the tile in its feature file.
        score: Score of the tile.
        place: x, y, width, height in level-0 pixels; None without coordinates.
    """

    side: str
    rank: int
    slide: str
    tile: int
    score: float
    place: tuple[float, float, float, float] | None


def ranked_tiles(patient: PatientScores, method: Method, output: ExplainedOutput, most: int) -> list[RankedTile]:
    """Return the tiles with the highest scores, highest first, then those with the lowest, lowest first.

    No tile is in both; unsigned methods have no bottom. Equal scores keep the order of the tiles.

    Args:
        patient: The patient; tiles of all slides are ranked together.
        method: Method of the scores.
        output: Output of the scores.
        most: Tiles on each side.
    """
    values = patient.values(method.name, output.name)
    order = np.argsort(-values, kind="stable")
    tops = order[:most]
    bottoms = order[len(tops) :][::-1][:most] if method.signed else order[:0]
    slides = np.repeat(np.arange(len(patient.slides)), [len(slide) for slide in patient.slides])
    firsts = np.cumsum([0, *(len(slide) for slide in patient.slides)])
    ranked = list[RankedTile]()
    for side, tiles in (("top", tops), ("bottom", bottoms)):
        for rank, tile in enumerate(tiles.tolist(), start=1):
            slide = patient.slides[slides[tile]]
            row = tile - int(firsts[slides[tile]])
            places = slide.places
            place = (
                None
                if places is None
                else (
                    float(places.x[row]),
                    float(places.y[row]),
                    float(places.width[row]),
                    float(places.height[row]),
                )
            )
            ranked.append(
                RankedTile(side=side, rank=rank, slide=slide.slide, tile=row, score=float(values[tile]), place=place)
            )
    return ranked


def write_top_tiles(patient: PatientScores, options: WritingOptions) -> list[Path]:
    """Write a table of the top and bottom tiles for each method and output, and a sheet where scans are there."""
    paths = list[Path]()
    scans = {slide.slide: scan for slide in patient.slides if (scan := options.open_scan(slide.slide)) is not None}
    try:
        for method in patient.methods:
            for output in patient.outputs:
                tiles = ranked_tiles(patient, method, output, options.top)
                stem = ".".join(file_name(name) for name in (patient.patient, method.name, output.name))
                path = options.folder / FOLDER / f"{stem}.csv"
                write(path, csv_text(_table(tiles)))
                paths.append(path)
                if pictures := dict(_pictures(tiles, scans)):
                    paths.append(_write_sheet(path.with_suffix(".jpg"), patient, method, output, tiles, pictures))
    finally:
        for scan in scans.values():
            scan.close()
    return paths


def _table(tiles: list[RankedTile]) -> pd.DataFrame:
    nowhere = (np.nan,) * 4
    rows = [(tile.side, tile.rank, tile.slide, tile.tile, *(tile.place or nowhere), tile.score) for tile in tiles]
    return pd.DataFrame(rows, columns=["side", "rank", "slide", "tile", "x", "y", "width", "height", "score"])


def _pictures(tiles: list[RankedTile], scans: Mapping[str, Scan]) -> Iterator[tuple[RankedTile, Image.Image]]:
    for tile in tiles:
        if tile.place is not None and tile.slide in scans:
            yield tile, scans[tile.slide].region(*tile.place, longest=_PIXELS)


def _write_sheet(
    path: Path,
    patient: PatientScores,
    method: Method,
    output: ExplainedOutput,
    tiles: list[RankedTile],
    pictures: Mapping[RankedTile, Image.Image],
) -> Path:
    with styled():
        figure = _sheet(patient, method, output, tiles, pictures)
        return save_figure(figure, path, pil_kwargs={"quality": 90})


def _sheet(
    patient: PatientScores,
    method: Method,
    output: ExplainedOutput,
    tiles: list[RankedTile],
    pictures: Mapping[RankedTile, Image.Image],
) -> Figure:
    sides = [shown for side in ("top", "bottom") if (shown := [tile for tile in tiles if tile.side == side])]
    height = 0.35 + sum(_HEADING + _ROW * -(-len(shown) // _COLUMNS) for shown in sides)
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))  # in inches from the top left corner
    axes.set_axis_off()
    text = output.meaning if method.signed else output.name
    heading = f"{patient.patient}: {method.title}, {text} ({method.unit or output.unit})"
    axes.text(_GAP, 0.12, short(heading, _LETTERS), va="top", fontsize=9.5)
    down = 0.35
    for shown in sides:
        title = "Highest scores" if shown[0].side == "top" else "Lowest scores"
        axes.text(_GAP, down + 0.1, title, va="top", fontsize=8.5)
        down += _HEADING
        for at, tile in enumerate(shown):
            _draw_tile(axes, tile, pictures.get(tile), _GAP + at % _COLUMNS * _CELL, down + at // _COLUMNS * _ROW)
        down += _ROW * -(-len(shown) // _COLUMNS)
    axes.set(xlim=(0, WIDTH), ylim=(height, 0), aspect="auto")
    return figure


def _draw_tile(axes: Axes, tile: RankedTile, picture: Image.Image | None, x: float, y: float) -> None:
    """Draw a tile at a place in inches, with its score, its coordinates and its slide below."""
    if picture is None:
        axes.text(x + _SIDE / 2, y + _SIDE / 2, "no scan", ha="center", va="center", fontsize=7)
    else:
        longest = max(picture.size)
        width, height = (_SIDE * side / longest for side in picture.size)
        axes.imshow(picture, extent=(x, x + width, y + height, y), interpolation="nearest")
    where = "" if tile.place is None else f"x {tile.place[0]:.0f}, y {tile.place[1]:.0f}\n"
    text = f"{tile.rank}.  {minus(f'{tile.score:.3g}')}\n{where}{short(tile.slide, 24)}"
    axes.text(x, y + _SIDE + 0.04, text, va="top", fontsize=6)
