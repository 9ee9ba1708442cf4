"""Sections that no table of predictions tells: what `mil explain` and `mil evaluate --instability` left in a run."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from mil import files
from mil.explain.faithfulness import FILE as EXPLAIN
from mil.explain.faithfulness import ExplainResult, Faithfulness
from mil.explain.pages.example_maps import FIGURE as EXAMPLE_MAPS
from mil.report.compact_faithfulness import compact
from mil.report.schema import Report, Section
from mil.report.sections.prediction_instability import FOLDER as INSTABILITY
from mil.report.sections.prediction_instability import Instability, read_instability
from mil.storage import read_bytes

EXPLANATION = "explain"
"""Folder of the explanation of a run."""
KINDS = (Faithfulness, Instability)


def stored_sections(folder: Path) -> list[Section]:
    """Return what was measured of a run, by its folder.

    Raises:
        ReportError: a file is not what it should be.
    """
    path, sections = folder / EXPLANATION / EXPLAIN, list[Section]()
    measured = ExplainResult.model_validate_json(read_bytes(path)).faithfulness if path.is_file() else None
    if measured is not None:
        sections.append(compact(measured))
    if (instability := read_instability(folder)) is not None:
        sections.append(instability)
    return sections


def sections_of(report: Report) -> Iterator[Section]:
    """Yield the measured sections that a report has."""
    yield from (section for kind in KINDS if (section := report.section(kind)) is not None)


def with_sections(report: Report, measured: Iterable[Section]) -> Report:
    """Return a report with measured sections in place of those of the same kind that it may have."""
    added = {section.key: section for section in measured}
    return report.model_copy(update={"sections": {**report.sections, **added}}) if added else report


def copy_figures(folder: Path, figures: Path) -> None:
    """Copy the figures of measured sections of a run to its other figures: example maps, the plot of instability."""
    for place, name in ((EXPLANATION, EXAMPLE_MAPS), (INSTABILITY, INSTABILITY)):
        for path in sorted((folder / place).glob(f"{name}.*g")):
            files.write(figures / path.name, read_bytes(path))
