"""report.html: one file that needs nothing else, read from top to bottom."""

from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import quote

from mil.report.first_screen import first_screen
from mil.report.page.figure_numbers import figure_numbers
from mil.report.page.outline import FACTS, block_of, estimate_table, is_filled, listing
from mil.report.page.templates import page_environment
from mil.report.page.words import named
from mil.report.schema import Block, Report, Section, Table, section_classes
from mil.report.shortfalls import NOTHING_MISSED, shortfalls

FURTHER_CAPTIONS: Mapping[str, str] = {
    "learning_curve": "Loss and metric by epoch",
    "leaderboard": "The metric of each run, with its interval",
}
"""Captions of figures that belong to no section."""
_NUMBERS = 4
"""Estimates in the text of a figure."""
FURTHER = "figures"
"""Key of the chapter of figures that belong to no other."""
LINKED = {"report.json": "the numbers of this page", "predictions.csv": "the predictions that they are computed from"}
"""Files that the page links to, in words."""


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it."""

    name: str
    caption: str
    text: str
    """the caption with the numbers, for who cannot see the figure"""
    uri: str


@dataclass(frozen=True)
class Chapter:
    """A part of the page."""

    key: str
    introduction: str
    content: Block
    pictures: tuple[Picture, ...] = ()


def html(
    report: Report,
    figures: Mapping[str, bytes | Path],
    title: str,
    banner: str,
    linked: Sequence[str] = (),
    embedded: bool = True,
) -> str:
    """Return the page: no script, nothing from outside, every word of the report escaped.

    Args:
        report: What is shown.
        figures: SVG or PNG by name; they become images, in which nothing can run.
        title: Of the page.
        banner: What stands above everything: simulated data, research use.
        linked: Names of files in the page's folder that the page links to.
        embedded: Whether the page holds the pictures; otherwise paths stay links to the folder `figures` beside it.
    """
    names = sorted(figures, key=lambda name: _reading_order(_of_part(name, report)[1]))
    pictures = [
        Picture(name, caption(_of_part(name, report)[1]), figure_text(name, report), _uri(figures[name], embedded))
        for name in names
    ]
    absent = [cls for cls in section_classes() if cls.key not in report.sections and not report.parts]
    return (
        page_environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            banner=banner,
            warnings=report.all_warnings(),
            first=first_screen(report),
            short=shortfalls(report),
            nothing_missed=NOTHING_MISSED,
            embedded=embedded,
            chapters=chapters(report, pictures),
            linked=[(name, LINKED.get(name, name)) for name in linked],
            absent=[(cls.title, cls.not_applicable) for cls in absent if cls.not_applicable],
        )
    )


def caption(figure: str) -> str:
    """Return the caption of a figure by its name."""
    captions = [cls.captions for cls in section_classes()] + [FURTHER_CAPTIONS]
    return next((texts[figure] for texts in captions if figure in texts), named(figure))


def figure_text(figure: str, report: Report) -> str:
    """Return the caption of a figure with the numbers that it shows, for who cannot see it.

    A figure of no known kind has the first estimates of its section.
    """
    part, name = _of_part(figure, report)
    shown = report if part is None else report.parts[part]
    numbers = figure_numbers(name, shown) or _first_estimates(name, shown)
    return f"{caption(name)}: {numbers}" if numbers else caption(name)


def _first_estimates(figure: str, report: Report) -> str:
    kind = figure_section(figure, report.sections)
    section = None if kind is None else report.section(kind)
    rows = [] if section is None else list(islice(section.card_rows(), _NUMBERS))
    return "; ".join(f"{row.label} {row.estimate.described}" for row in rows if row.estimate.value is not None)


def _reading_order(figure: str) -> int:
    """Return the place of a figure in the order in which sections declare theirs; others come last."""
    declared = [name for cls in section_classes() for name in cls.captions]
    return declared.index(figure) if figure in declared else len(declared)


def figure_section(figure: str, sections: Collection[str]) -> type[Section] | None:
    """Return the section that a figure belongs to, of the sections with these keys."""
    declaring = [cls for cls in section_classes() if figure in cls.captions and cls.key in sections]
    return declaring[-1] if declaring else None


def chapters(report: Report, pictures: Sequence[Picture]) -> list[Chapter]:
    """Return everything that has content, with every figure in one chapter."""
    homes = {picture.name: _home(picture.name, report) for picture in pictures}
    at_home = {home: tuple(picture for picture in pictures if homes[picture.name] == home) for home in homes.values()}
    drafts = [
        Chapter("predicted", "", block_of("What is predicted", report.about)),
        Chapter("headline", "", Block(heading="Main result", tables=_metrics(report))),
        *(
            Chapter(section.key, section.explanation, section.block(), at_home.get(section.key, ()))
            for section in report.ordered_sections()
        ),
        *(
            Chapter(f"part-{name}", "", _part(name, part), at_home.get(f"part-{name}", ()))
            for name, part in report.parts.items()
        ),
        Chapter("design", "", _design(report)),
        Chapter("fitted", "What was fitted, and on which patients.", listing("Fitted parts", report.fitted)),
        Chapter("run", "", Block(heading="All folds of the run", tables=_metrics(report.run) if report.run else ())),
        Chapter("gates", "", listing("Gates of the release", report.gates)),
        Chapter(FURTHER, "", Block(heading="Further figures"), at_home.get(FURTHER, ())),
    ]
    return [chapter for chapter in drafts if is_filled(chapter.content) or chapter.pictures]


def _home(figure: str, report: Report) -> str:
    """Return the key of the chapter that shows a figure."""
    part, _ = _of_part(figure, report)
    if part is not None:
        return f"part-{part}"
    section = figure_section(figure, report.sections)
    return FURTHER if section is None else section.key


def _of_part(figure: str, report: Report) -> tuple[str | None, str]:
    """Return the endpoint that a figure is about, where there are several, and the figure's name without it."""
    part = next((name for name in report.parts if figure.startswith(f"{name}_")), None)
    return part, figure if part is None else figure.removeprefix(f"{part}_")


def _part(name: str, part: Report) -> Block:
    """Return the report of one of several endpoints."""
    blocks = tuple(section.block() for section in part.ordered_sections())
    return Block(heading=name, tables=_metrics(part), blocks=blocks)


def _metrics(report: Report) -> tuple[Table, ...]:
    return (estimate_table({named(name): metric for name, metric in report.metrics.items()}),) if report.metrics else ()


def _design(report: Report) -> Block:
    facts = {
        "Patients": ", ".join(f"{name} {count}" for name, count in report.patients.items()),
        "Folds": str(report.folds),
        "Looks at the report patients": "" if report.looks is None else str(report.looks),
        "Bootstrap resamples": str(report.resamples),
        "Seed": str(report.seed),
    }
    rows = tuple((label, text) for label, text in facts.items() if text)
    return Block(heading="Design", tables=(Table(columns=FACTS, rows=rows),))


def _uri(image: bytes | Path, embedded: bool) -> str:
    if isinstance(image, Path) and not embedded:
        return f"{image.parent.name}/{quote(image.name)}"
    content = image.read_bytes() if isinstance(image, Path) else image
    kind = "image/png" if content.startswith(b"\x89PNG") else "image/svg+xml"
    return f"data:{kind};base64,{b64encode(content).decode()}"
