"""The model card: generated from manifest, report and card.yaml, never edited by hand.

The front matter follows Hugging Face (`model-index`). The first page is for everybody; 25 numbered blocks follow in
folds, then where the items of TRIPOD+AI are answered and what nobody has stated. Every number has its interval, its
patients, and a footnote with the file and key that it comes from. `model_card.html` is the same card as a page.
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mil.cards import markdown
from mil.cards.card_content import BLOCKS, ITEMS, OPEN, READERS, SOURCES, card_content
from mil.cards.card_facts import RESEARCH, SIMULATED, Facts
from mil.cards.content import Reference
from mil.cards.external_validation import ExternalValidation
from mil.cards.footnotes import Footnotes
from mil.cards.front_matter import front_matter
from mil.cards.licence import licence_text
from mil.cards.purpose import LICENCE_FILE
from mil.cards.statements import CardStatements
from mil.endpoints.endpoint import Endpoint
from mil.manifest import Manifest
from mil.report.page.templates import page_environment
from mil.report.schema import Report, Table
from mil.report.shortfalls import NOTHING_MISSED

__all__ = ["BLOCKS", "RESEARCH", "SIMULATED", "Facts", "card", "card_page", "card_texts"]

CARD, CARD_PAGE = "README.md", "model_card.html"
_SOURCE = "Source"


class SourcedTable(NamedTuple):
    """A table without its column of sources, and the source of each row."""

    table: Table
    sources: Sequence[str]


def card_texts(
    manifest: Manifest,
    endpoint: Endpoint,
    report: Report,
    figures: Sequence[str],
    changelog: str = "",
    statements: CardStatements | None = None,
    external: Sequence[ExternalValidation] = (),
) -> dict[str, str]:
    """Return the card as Markdown and as a page, and the licence of the weights, by file name.

    The same arguments give the same bytes.

    Args:
        manifest: Manifest of the checkpoint, with the tool's yaml.
        endpoint: What is predicted.
        report: Report of the checkpoint.
        figures: Names of the files in `figures/`.
        changelog: What changed in each version, one line each.
        statements: What people state in card.yaml.
        external: Validations of these weights on other cohorts.
    """
    facts = Facts(manifest, report, endpoint, figures, changelog, external, statements or CardStatements())
    return {CARD: _markdown(facts), CARD_PAGE: card_page(facts), LICENCE_FILE: licence_text(facts)}


def card(
    manifest: Manifest,
    endpoint: Endpoint,
    report: Report,
    figures: Sequence[str],
    changelog: str = "",
    statements: CardStatements | None = None,
    external: Sequence[ExternalValidation] = (),
) -> str:
    """Return the README.md of a checkpoint; the arguments are those of `card_texts`."""
    return card_texts(manifest, endpoint, report, figures, changelog, statements, external)[CARD]


def card_page(facts: Facts) -> str:
    """Return the card as a page: no script, nothing from outside but the pictures in `figures/`."""
    environment = page_environment("mil.cards")
    notes = Footnotes()
    environment.filters |= {"line": _html_line, "sourced": _sourced}
    environment.tests |= {"lines": lambda text: not isinstance(text, str)}
    template = environment.get_template("card.html.j2")
    return template.render(
        content=card_content(facts),
        facts=facts,
        notes=notes,
        readers=READERS,
        headings=(ITEMS, OPEN, SOURCES),
        nothing_missed=NOTHING_MISSED,
        banner=facts.banner,
    )


@cache
def _markdown_environment() -> Environment:
    """Return the environment of the card in Markdown; a process compiles its template once."""
    environment = Environment(
        loader=PackageLoader("mil.cards", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "md": markdown.escaped,
        "code": markdown.code,
        "anchor": markdown.anchor,
        "line": _markdown_line,
        "sourced": _sourced,
    }
    environment.tests |= {"lines": lambda text: not isinstance(text, str)}
    return environment


def _markdown(facts: Facts) -> str:
    text = (
        _markdown_environment()
        .get_template("card.md.j2")
        .render(
            front_matter=front_matter(facts),
            facts=facts,
            content=card_content(facts),
            notes=Footnotes(),
            readers=READERS,
            headings=(ITEMS, OPEN, SOURCES),
            nothing_missed=NOTHING_MISSED,
        )
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _markdown_line(line: str | Reference) -> str:
    return markdown.link(line.text, line.address) if isinstance(line, Reference) else markdown.escaped(line)


def _html_line(line: str | Reference) -> Markup:
    """Return a line of a field; an address becomes a link only if it is a DOI or https."""
    if not isinstance(line, Reference):
        return Markup.escape(line)
    target = markdown.target(line.address)
    if target is None:
        return Markup.escape(f"{line.text} ({line.address})" if line.address else line.text)
    label, address = target
    return Markup('{} <a href="{}">{}</a>').format(line.text, address, label)


def _sourced(table: Table) -> SourcedTable:
    """Return a table without its last column if that holds sources."""
    if not table.columns or table.columns[-1] != _SOURCE:
        return SourcedTable(table, [""] * len(table.rows))
    rows = tuple(row[:-1] for row in table.rows)
    return SourcedTable(
        table.model_copy(update={"columns": table.columns[:-1], "rows": rows}), [row[-1] for row in table.rows]
    )
