"""A case page: one file for one patient, which needs nothing else and asks nothing from outside."""

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as package_files

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mil.explain.map_colours import SIGNED, UNSIGNED
from mil.explain.pages.case import Case, Tissue, Verdict
from mil.explain.pages.map_layers import Layer, extremes, layers
from mil.explain.pages.map_picture import Extent, data_uri, extent, kinds_png, overlap, scores_png
from mil.explain.pages.page_data import page_data, script_json
from mil.explain.tile_scores import SlideScores
from mil.report.page.templates import page_environment
from mil.report.schema import Table

MOST_TILES = 10
"""Tiles that a list of the highest or lowest scores has."""
TISSUE = {
    "tumour": "#d8a48f",
    "normal epithelium": "#8d9fd1",
    "stroma": "#b9dbe0",
    "lymphocytes": "#9b7fb5",
    "necrosis": "#7d7d7d",
    "mucin": "#e3cfa8",
    "muscle": "#d9c2d6",
    "artefact": "#333333",
}
FURTHER_TISSUE = "#a3b8a0"
TELLING = ("#ffd400", "#00a06b", "#ff7f0e", "#7b2f77", "#17becf", "#c2185b", "#222222")
"""Colours of kinds of tissue, of one without a colour of its own, and of those that carry what is predicted."""
SCALE_BARS = (20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05)
"""Lengths of scale bars in millimetres; the longest that takes at most a third of the width is drawn."""
PLACELESS = "The feature files hold no coordinates: there is no map, and tiles are listed by their number."
LIMITS = (
    "The map shows which tiles move the model's number. It cannot show that the call is right, and pale tiles are not "
    "normal tissue: they move the number little."
)
OPENSEADRAGON = "vendor/openseadragon-6.1.1.min.js"
AS_MISSED = (Verdict.MISSED, Verdict.FALSE, Verdict.WRONG, Verdict.EVENT_LOW, Verdict.FREE_HIGH)
"""Verdicts that are to be looked at before all others."""


@dataclass(frozen=True)
class TileRow:
    """A tile in a list."""

    slide: str
    place: str
    score: str
    image: str = ""
    """address of its picture within the page; empty without a scan"""


@dataclass(frozen=True)
class TissueKind:
    """A kind of tissue in the legend."""

    name: str
    colour: str
    telling: bool


@dataclass(frozen=True)
class SlideView:
    """A slide as the page shows it without a script."""

    name: str
    facts: str
    """number of tiles and size of the tissue"""
    ratio: float = 0.0
    """width by height of what is drawn; 0 without coordinates"""
    map: str = ""
    """address of the map within the page"""
    map_place: str = ""
    """where the map lies in the frame, as CSS"""
    under: str = ""
    """address of what lies under the map: the scan, or the true tissue of a simulated slide"""
    tissue: str = ""
    """address of the picture of the true tissue"""
    bar: tuple[str, str] = ("", "")
    """scale bar: its length in words, its width as CSS"""
    zoom: bool = False
    overlaps: bool = False


def case_page(case: Case, back: str = "") -> str:
    """Return the page of a case; every word is escaped, and only the scripts of this package can run.

    Args:
        case: What is shown.
        back: Address of the index of cases; empty without one.
    """
    listed = layers(case.scores)
    first, kinds = listed[0], tissue_kinds(list(case.tissue.values()))
    zoom = any(scan.zoom for scan in case.scans.values())
    scripts = [_text(OPENSEADRAGON), _text("case.js"), _text("deep_zoom.js")] if zoom else [_text("case.js")]
    output = case.first_output
    highest, lowest = extremes(np.concatenate(first.values)[:, output], MOST_TILES, first.signed)
    return (
        page_environment("mil.explain.pages")
        .get_template("case.html.j2")
        .render(
            case=case,
            banner=case.banner,
            back=back,
            layers=listed,
            first=first,
            limit=signed_text(first.limit(output), False),
            output=case.scores.outputs[output],
            start=output,
            belief=case.belief(first.method, case.scores.outputs[output].name),
            said=lambda method: _by_sentence(case, method),
            slides=[_view(slide, at, case, first, kinds) for at, slide in enumerate(case.scores.slides)],
            kinds=kinds,
            gradient=f"linear-gradient(to right, {', '.join(SIGNED if first.signed else UNSIGNED)})",
            lists={"for": _rows(highest, case, first), "against": _rows(lowest, case, first)},
            pictures=any(scan.tiles for scan in case.scans.values()),
            missed=AS_MISSED,
            limits=LIMITS,
            data=script_json(page_data(case, listed)),
            scripts=[Markup(script) for script in scripts],
            policy=policy(scripts, outside=zoom),
            numbers=Table(columns=("Number", "Value"), rows=tuple(case.numbers.items())),
            placeless=PLACELESS if all(slide.places is None for slide in case.scores.slides) else "",
            zoom=zoom,
            under=bool(case.scans or case.tissue),
        )
    )


def policy(scripts: Sequence[str], outside: bool = False) -> Markup:
    """Return the security policy of a page: these scripts, pictures within it, and nothing else.

    Args:
        scripts: Texts of the scripts.
        outside: Whether pictures may lie in files beside the page.
    """
    allowed = " ".join(f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts)
    pictures = "data: 'self' file:" if outside else "data:"
    style = "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return Markup(f"default-src 'none'; img-src {pictures}; script-src {allowed}; {style}")


def tissue_kinds(tissues: Sequence[Tissue]) -> list[TissueKind]:
    """Return the kinds of tissue that there are on some slides, those that carry what is predicted first."""
    names = dict.fromkeys(name for tissue in tissues for name in tissue.names)
    telling = frozenset[str]().union(*(tissue.telling for tissue in tissues))
    carrying, plain = [name for name in names if name in telling], [name for name in names if name not in telling]
    listed = [(name, TELLING[at % len(TELLING)], True) for at, name in enumerate(carrying)]
    listed += [(name, TISSUE.get(name, FURTHER_TISSUE), False) for name in plain]
    return [TissueKind(*each) for each in listed]


def tissue_png(slide: SlideScores, tissue: Tissue, kinds: Sequence[TissueKind], longest: int = 560) -> bytes:
    """Return the true tissue of a slide as a PNG; empty without coordinates."""
    if slide.places is None:
        return b""
    colour_of = {kind.name: [int(kind.colour[at : at + 2], 16) for at in (1, 3, 5)] for kind in kinds}
    colours = np.array([colour_of[name] for name in tissue.names], dtype=np.uint8)
    return kinds_png(slide.places, tissue.kinds, colours, longest)


def signed_text(value: float, signed: bool) -> str:
    """Return a score with three digits, with its sign where it has one, as the script of the page writes it."""
    text = f"{value:.3g}" if abs(value) >= 1e-4 or value == 0 else f"{value:.1e}"
    return ("+" if signed and value > 0 else "") + text.replace("-", "\N{MINUS SIGN}")


def _by_sentence(case: Case, method: str) -> dict[str, list[str]]:
    """Return what is to be believed of a method, with the outputs that a sentence is about; none if about all."""
    names: dict[str, list[str]] = {}
    for output in case.scores.outputs:
        names.setdefault(case.belief(method, output.name).sentence, []).append(output.name)
    return names if len(names) > 1 else {sentence: [] for sentence in names}


def _view(slide: SlideScores, at: int, case: Case, layer: Layer, kinds: Sequence[TissueKind]) -> SlideView:
    tiles = f"{len(slide):,} tiles"
    if slide.places is None:
        return SlideView(slide.slide, tiles)
    scan, tissue, around = case.scans.get(slide.slide), case.tissue.get(slide.slide), extent(slide.places)
    frame = around if scan is None else scan.bounds
    drawn = scores_png(
        slide.places, layer.values[at][:, case.first_output], layer.limit(case.first_output), layer.signed
    )
    picture = "" if tissue is None else data_uri(tissue_png(slide, tissue, kinds))
    return SlideView(
        name=slide.slide,
        facts=f"{tiles}, {_size(around, slide.mpp)}" if slide.mpp else tiles,
        ratio=frame.width / frame.height,
        map=data_uri(drawn),
        map_place=_place(around, frame),
        under=picture if scan is None else data_uri(scan.thumbnail),
        tissue=picture,
        bar=_bar(frame, slide.mpp),
        zoom=scan is not None and scan.zoom is not None,
        overlaps=overlap(slide.places),
    )


def _size(around: Extent, mpp: float) -> str:
    return f"{around.width * mpp / 1000:.1f} × {around.height * mpp / 1000:.1f} mm"


def _place(around: Extent, frame: Extent) -> str:
    left, top = (around.left - frame.left) / frame.width, (around.top - frame.top) / frame.height
    width, height = around.width / frame.width, around.height / frame.height
    return f"left:{left:.4%};top:{top:.4%};width:{width:.4%};height:{height:.4%}"


def _bar(frame: Extent, mpp: float | None) -> tuple[str, str]:
    if not mpp:
        return "", ""
    width = frame.width * mpp / 1000
    length = next((bar for bar in SCALE_BARS if bar <= width / 3), None)
    return ("", "") if length is None else (f"{length:g} mm", f"{length / width:.3%}")


def _rows(tiles: NDArray[np.int64], case: Case, layer: Layer) -> list[TileRow]:
    """Return tiles, numbered over all slides, as rows of a list."""
    slides = case.scores.slides
    starts = np.cumsum([0, *(len(slide) for slide in slides)])
    rows = []
    for number in tiles.tolist():
        at = int(np.searchsorted(starts, number, side="right")) - 1
        tile, slide, scan = int(number - starts[at]), slides[at], case.scans.get(slides[at].slide)
        image = b"" if scan is None else scan.tiles.get(tile, b"")
        score = signed_text(float(layer.values[at][tile, case.first_output]), layer.signed)
        rows.append(TileRow(slide.slide, tile_place(slide, tile), score, data_uri(image) if image else ""))
    return rows


def tile_place(slide: SlideScores, tile: int) -> str:
    """Return where a tile lies, as the script of the page writes it: level-0 pixels of its top left corner."""
    if slide.places is None:
        return f"tile {tile + 1}"
    return f"x {slide.places.x[tile]:.0f}, y {slide.places.y[tile]:.0f}"


@cache
def _text(name: str) -> str:
    return (package_files("mil.explain.pages") / name).read_text(encoding="utf-8")
