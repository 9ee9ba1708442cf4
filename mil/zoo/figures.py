"""The figures of a release: drawn small, and bound to the numbers that they show.

Every PNG holds, as text, the digest of the report that it was drawn from, the digest of its own pixels, and what drew
it. On the platform that made them figures are drawn again and compared pixel by pixel; elsewhere, where fonts and
rounding differ, and for real patients, whose predictions are not released, the digests are compared.
"""

import hashlib
import json
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import PIL
from PIL import Image, PngImagePlugin

from mil.explain.pages.example_maps import FIGURE as EXAMPLE_MAPS
from mil.report.figures import Course, draw, draw_learning
from mil.report.schema import Report
from mil.runs.describe import FIGURES, best_epochs, evaluation, tables_of_fold
from mil.runs.measured_sections import copy_figures
from mil.runs.run import Run

EPOCHS = "epochs.csv"
"""Losses and metrics by epoch, from which the learning curve of a release is drawn; it holds nothing of patients."""
SCALE, COLOURS = 0.5, 24
"""Released figures have half the size of a run's (100 dots per inch) and few colours."""
NOT_REDRAWN = frozenset({f"{EXAMPLE_MAPS}.png"})
"""Figures of scores of tiles, which no released table holds: their digests are compared, but they cannot be redrawn."""
NUMBERS, PIXELS, DRAWN_BY = "mil-numbers", "mil-pixels", "mil-drawn-by"
"""Keys of the text in a PNG."""


def draw_figures(run: Run, report: Report, folder: Path, fold: int) -> None:
    """Draw the figures of a release into `folder/figures`, from the tables of a run and from `epochs.csv`.

    Args:
        run: The run, or the released folder.
        report: Report of the checkpoint.
        folder: The release.
        fold: Fold of the checkpoint.
    """
    place = folder / FIGURES
    _draw(run, report, folder / EPOCHS, fold, place)
    if run.simulated:  # a map or a prediction of a real patient stays where the patient's data are
        copy_figures(run.folder, place)
    for path in sorted(place.glob("*.svg")):  # of the copied
        path.unlink()
    numbers = digest(report)
    for path in sorted(place.glob("*.png")):
        _store(path, numbers)


def _draw(run: Run, report: Report, epochs: Path, fold: int, place: Path) -> None:
    """Draw the figures of the predictions and of the epochs as PNG files of full size."""
    if report.metrics:
        draw(evaluation(run, tables_of_fold(run.tables, fold)), report, place, ["png"])
    if epochs.is_file():
        draw_learning([Course(epochs, best_epochs(report, fold))], run.endpoint.metric, place, ["png"])


def _store(path: Path, numbers: str) -> None:
    """Store a figure as a small PNG file of few colours, since git and hubs keep every version of it.

    Args:
        path: The figure of full size, which is replaced.
        numbers: Digest of the report that it shows.
    """
    small = _small(path)
    text = PngImagePlugin.PngInfo()
    for key, value in ((NUMBERS, numbers), (PIXELS, pixels_digest(small)), (DRAWN_BY, drawn_by())):
        text.add_text(key, value)
    small.save(path, optimize=True, pnginfo=text)


def _small(path: Path) -> Image.Image:
    """Return the released picture of a figure of full size."""
    with Image.open(path) as image:
        size = round(image.width * SCALE), round(image.height * SCALE)
        return image.convert("RGB").resize(size, Image.Resampling.BOX).quantize(COLOURS)


def digest(report: Report) -> str:
    """Return the digest of everything in a report but the verdicts of its gates, which no figure shows."""
    numbers = report.model_copy(update={"gates": ()}).model_dump(mode="json")
    return hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()


def drawn_by() -> str:
    """Describe what decides the pixels of a figure here."""
    return f"matplotlib {mpl.__version__}, pillow {PIL.__version__}, {platform.machine()}"


def figure_problems(folder: Path, report: Report) -> Iterator[str]:
    """Yield each released figure that is not bound to this report or whose pixels were changed, one line each."""
    numbers = digest(report)
    for path in sorted((folder / FIGURES).glob("*")):
        name, stored = f"{FIGURES}/{path.name}", _read(path)
        if stored is None:
            yield f"{name} is not a figure of a release"
            continue
        text, pixels = stored
        if text.get(NUMBERS) != numbers:
            yield f"{name} was not drawn from the numbers of report.json"
        if text.get(PIXELS) != pixels:
            yield f"{name}: pixels are not those that were drawn"


def redrawn_problems(run: Run, report: Report, folder: Path, fold: int) -> Iterator[str]:
    """Draw the figures again and yield each that differs; nothing where other software drew them.

    Args:
        run: The released folder, with its tables.
        report: Its report.
        folder: The release.
        fold: Fold of the checkpoint.
    """
    stored = {name: figure for name, figure in _figures(folder).items() if name not in NOT_REDRAWN}
    if any(text.get(DRAWN_BY) != drawn_by() for text, _ in stored.values()):
        return
    with tempfile.TemporaryDirectory() as scratch:
        _draw(run, report, folder / EPOCHS, fold, Path(scratch))
        drawn = {path.name: pixels_digest(_small(path)) for path in Path(scratch).glob("*.png")}
    for name in sorted(stored.keys() | drawn.keys()):
        if name not in stored:
            yield f"{FIGURES}/{name} is missing, the report has it"
        elif name not in drawn:
            yield f"{FIGURES}/{name}: the report has no such figure"
        elif stored[name][1] != drawn[name]:
            yield f"{FIGURES}/{name} is not what the stored predictions give"


def _figures(folder: Path) -> dict[str, tuple[dict[str, str], str]]:
    """Return text and digest of every figure that can be read, by file name."""
    figures = {path.name: _read(path) for path in sorted((folder / FIGURES).glob("*.png"))}
    return {name: figure for name, figure in figures.items() if figure is not None}


def _read(path: Path) -> tuple[dict[str, str], str] | None:
    """Return the text in a PNG and the digest of its pixels; None if it is not a picture."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.load()
            text = {str(key): str(value) for key, value in getattr(image, "text", {}).items()}
            return text, pixels_digest(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def pixels_digest(image: Image.Image) -> str:
    """Return the digest of the size and the decoded pixels of an image."""
    return hashlib.sha256(f"{image.size}".encode() + image.convert("RGB").tobytes()).hexdigest()
