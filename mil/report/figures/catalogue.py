"""The figures of a report, each as PNG and as SVG."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from mil.progress import counted
from mil.report.evaluation import Evaluation
from mil.report.figures.learning_curve import Course, learning_curve
from mil.report.figures.style import FORMATS, save, styled
from mil.report.schema import Report


def draw(evaluation: Evaluation, report: Report, folder: Path, formats: Iterable[str] = FORMATS) -> list[Path]:
    """Draw the figures of every section, and return the files that were written.

    Args:
        evaluation: What the report was made from.
        report: Of several endpoints each has its own figures, whose names begin with the endpoint's.
        folder: Is made where it does not exist.
        formats: Endings of the files of each figure.
    """
    formats = tuple(formats)
    with styled():
        paths = _drawn(evaluation, report, folder, "", formats)
        for name, part in evaluation.parts().items():
            paths += _drawn(part, report.parts[name], folder, f"{name}_", formats)
        return paths


def _drawn(evaluation: Evaluation, report: Report, folder: Path, prefix: str, formats: Iterable[str]) -> list[Path]:
    paths = list[Path]()
    sections = report.ordered_sections()
    for section in counted(sections, "drawing figures", len(sections)):
        for drawing in section.drawings(evaluation, report):
            if drawing.figure is not None:
                paths += save(drawing.figure, folder, f"{prefix}{drawing.name}", formats)
    return paths


def draw_learning(courses: Sequence[Course], metric: str, folder: Path, formats: Iterable[str] = FORMATS) -> list[Path]:
    """Draw `learning_curve.png` and `.svg`, or nothing where no epoch was logged.

    Args:
        courses: Of each fold's training.
        metric: `Endpoint.metric`.
        folder: Is made where it does not exist.
        formats: Endings of the files.
    """
    with styled():
        figure = learning_curve(courses, metric)
        return [] if figure is None else save(figure, folder, "learning_curve", formats)
