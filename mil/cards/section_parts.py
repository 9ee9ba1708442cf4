"""How sections of a report appear on a card: their sentences, a table of their estimates, and their figures."""

from collections.abc import Iterable, Iterator

from mil.cards.card_facts import Facts
from mil.cards.content import Figure, Subsection
from mil.report.page.html import caption, figure_section, figure_text
from mil.report.report_parts import EndpointReport, reports_by_endpoint
from mil.report.schema import Confusion, Estimate, Row, Section, Table

HEADS = ("Measure", "Value (95% interval)", "Patients", "Source")
TRAINING_FIGURE = "learning_curve"


def endpoint_reports(facts: Facts) -> Iterator[EndpointReport]:
    """Yield the report of all folds; for a tool of several endpoints the report of each endpoint."""
    return reports_by_endpoint(facts.report)


def section_part(facts: Facts, part: EndpointReport, section: Section) -> Subsection:
    """Return a section with its explanation, sentences, estimates and figures."""
    table = estimates_table(section.card_rows(), part.section_source(section))
    sentences = [section.explanation, *section.card_sentences()]
    figures = [] if part.name else figures_of(facts, type(section))
    return Subsection(part.headed(section.title), sentences, [table] if table else [], figures)


def estimates_table(rows: Iterable[Row], source: str) -> Table | None:
    """Return estimates as a table; None if there are none.

    Args:
        rows: Estimates with their labels.
        source: File and key that the sources of the rows start from.
    """
    rows = list(rows)
    if not rows:
        return None
    cells = tuple(
        (row.label, str(row.estimate), row.estimate.population or "–", f"{source}.{row.source}") for row in rows
    )
    return Table(columns=HEADS, rows=cells, note=methods_note(row.estimate for row in rows))


def methods_note(estimates: Iterable[Estimate]) -> str:
    """Say how the intervals were made."""
    methods = dict.fromkeys(estimate.method for estimate in estimates if estimate.method)
    return f"95% intervals: {'; '.join(methods)}." if methods else ""


def confusion_table(matrix: Confusion, source: str) -> Table:
    """Return true classes by calls."""
    rows = [
        (f"truly {name}", *map(str, counts), f"{source}.rows[{at}]")
        for at, (name, counts) in enumerate(zip(matrix.classes, matrix.rows, strict=True))
    ]
    return Table(columns=("Patients", *(f"called {name}" for name in matrix.calls), "Source"), rows=tuple(rows))


def figures_of(facts: Facts, section: type[Section]) -> list[Figure]:
    """Return the figures of a section."""
    return [_figure(facts, file) for file in facts.figures if _section_of(facts, file) is section]


def training_figures(facts: Facts) -> list[Figure]:
    """Return the figure of losses and metrics by epoch, if there is one."""
    return [_figure(facts, file) for file in facts.figures if _stem(file) == TRAINING_FIGURE]


def further_figures(facts: Facts) -> list[Subsection]:
    """Return the figures that belong neither to a section nor to the training."""
    figures = [
        _figure(facts, file)
        for file in facts.figures
        if _section_of(facts, file) is None and _stem(file) != TRAINING_FIGURE
    ]
    return [Subsection("Further figures", figures=figures)] if figures else []


def _section_of(facts: Facts, file: str) -> type[Section] | None:
    return figure_section(_stem(file), facts.report.sections)


def _figure(facts: Facts, file: str) -> Figure:
    fold = f" (fold {facts.manifest.data.split.fold}, the report patients of these weights)"
    fold = fold if facts.report.run else ""
    return Figure(file, caption(_stem(file)) + fold, figure_text(_stem(file), facts.report) + fold)


def _stem(file: str) -> str:
    return file.rpartition(".")[0]
