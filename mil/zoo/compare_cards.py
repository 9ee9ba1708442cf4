"""Two versions of a tool side by side: every item of their cards, and which of them differ."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mil import checkpoint
from mil.cards import Facts
from mil.cards.card_content import CardContent, card_content, lines_of
from mil.cards.content import CardBlock, Field
from mil.cards.statements import read_statements
from mil.errors import CheckpointError, ConfigError
from mil.report.page.templates import page_environment
from mil.report.report_files import read_report
from mil.report.schema import Table
from mil.runs.describe import REPORT, figure_names
from mil.zoo.attach import read_external
from mil.zoo.versions import CHANGELOG, HEAD, Change, change

ABSENT = "not there"
_SHOWN = 160
"""Characters of an item in a terminal."""
_NEEDS = {
    Change.MAJOR: "The scores mean something else",
    Change.MINOR: "The same question, answered by other weights",
    Change.PATCH: "The same weights",
}
_SOURCE = "Source"


@dataclass(frozen=True)
class ComparedItem:
    """An item of two cards."""

    name: str
    first: str | None
    second: str | None

    @property
    def difference(self) -> str:
        """`changed`, `new`, `gone`, or nothing where both say the same."""
        if self.first == self.second:
            return ""
        return "new" if self.first is None else "gone" if self.second is None else "changed"


@dataclass(frozen=True)
class ComparedPart:
    """A part of two cards, such as a numbered block."""

    title: str
    items: Sequence[ComparedItem]

    @property
    def differing(self) -> Sequence[ComparedItem]:
        """The items that differ."""
        return [item for item in self.items if item.difference]

    @property
    def equal(self) -> Sequence[ComparedItem]:
        """The items that are the same."""
        return [item for item in self.items if not item.difference]


@dataclass(frozen=True)
class CardComparison:
    """Two cards of a tool.

    Attributes:
        tool: Name of the tool.
        title: Its title, of the second card.
        versions: Version of the first card and of the second.
        banner: What stands above the cards.
        meaning: Whether the scores of both mean the same, and what says so.
        parts: The parts of the cards in their order.
    """

    tool: str
    title: str
    versions: tuple[str, str]
    banner: str
    meaning: str
    parts: Sequence[ComparedPart]

    @property
    def differing(self) -> int:
        """Number of items that differ."""
        return sum(len(part.differing) for part in self.parts)

    def lines(self) -> Iterator[str]:
        """Yield what differs, for a terminal."""
        first, second = self.versions
        yield f"{self.tool}: {first} beside {second}: {self.differing} of {self._count} items differ"
        yield f"{self.meaning}."
        for part in self.parts:
            for item in part.differing:
                yield f"{part.title} / {item.name} ({item.difference})"
                yield f"  {first}: {_shortened(item.first)}"
                yield f"  {second}: {_shortened(item.second)}"

    @property
    def _count(self) -> int:
        return sum(len(part.items) for part in self.parts)


def compare_cards(first: Path, second: Path) -> CardComparison:
    """Compare the cards of two folders of a tool: releases, or checkpoints of runs.

    Raises:
        ConfigError: The folders are of two tools.
        CheckpointError: A folder does not match its manifest, or has no report.
    """
    facts = [_facts(folder) for folder in (first, second)]
    names = [each.tool.name for each in facts]
    if names[0] != names[1]:
        raise ConfigError(f"{second}: is of the tool {names[1]}, expected another version of {names[0]}")
    kind, what = change(facts[0].manifest, facts[1].manifest)
    because = "" if kind is Change.PATCH else f" ({what} differs)"
    return CardComparison(
        tool=names[1],
        title=facts[1].text("title"),
        versions=_versions(facts),
        banner=" · ".join(dict.fromkeys(each.banner for each in facts)),
        meaning=f"{_NEEDS[kind]}{because}",
        parts=_merged(*(dict(_parts(card_content(each))) for each in facts)),
    )


def comparison_page(comparison: CardComparison) -> str:
    """Return the comparison as a page: no script, nothing from outside, one file."""
    environment = page_environment("mil.zoo")
    environment.globals["side_by_side"] = _table
    return environment.get_template("compare_cards.html.j2").render(shown=comparison, banner=comparison.banner)


def _facts(folder: Path) -> Facts:
    loaded = checkpoint.load(folder)
    if not (folder / REPORT).is_file():
        raise CheckpointError(f"{folder}: holds no {REPORT}, expected a release or a checkpoint of an evaluated run")
    changes = folder / CHANGELOG
    return Facts(
        loaded.manifest,
        read_report(folder / REPORT),
        loaded.endpoint,
        figure_names(folder),
        changes.read_text(encoding="utf-8").removeprefix(HEAD) if changes.is_file() else "",
        read_external(folder),
        read_statements(folder),
    )


def _versions(facts: Sequence[Facts]) -> tuple[str, str]:
    """Return both versions, told apart where they are the same."""
    first, second = (each.tool.version for each in facts)
    return (first, second) if first != second else (f"{first} (first)", f"{second} (second)")


def _parts(content: CardContent) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the parts of a card by title, each with its items by name."""
    yield "Purpose", _items([*_of_fields(content.purpose), ("Pathway", content.pathway)])
    yield "What to do with each output", _items(() if content.outputs is None else _of_table(content.outputs))
    yield "Results and decision", _items(_of_fields(content.results))
    yield "Where it falls short", _items(_of_fields([*content.shortfalls, *content.further_shortfalls]))
    yield "Provenance", _items(_of_fields(content.provenance))
    for block in content.blocks:
        yield block.title, _items(_of_block(block))


def _of_block(block: CardBlock) -> Iterator[tuple[str, str]]:
    yield from _of_fields(block.stated)
    for section in block.subsections:
        yield section.heading, " ".join(section.sentences)
        for table in section.tables:
            yield from _of_table(table, f"{section.heading}: ")


def _of_fields(fields: Iterable[Field]) -> Iterator[tuple[str, str]]:
    for field in fields:
        yield field.name, "; ".join(lines_of(field))


def _of_table(table: Table, prefix: str = "") -> Iterator[tuple[str, str]]:
    for row in table.rows:
        cells = [
            f"{column} {cell}".strip()
            for column, cell in zip(table.columns[1:], row[1:], strict=True)
            if cell and column != _SOURCE
        ]
        yield f"{prefix}{row[0]}", "; ".join(cells)


def _items(named: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return items by name; a name that comes again is counted."""
    items: dict[str, str] = {}
    for name, text in named:
        if text:
            number = 1 + sum(each == name or each.startswith(f"{name} (") for each in items)
            items[name if number == 1 else f"{name} ({number})"] = text
    return items


def _merged(first: dict[str, dict[str, str]], second: dict[str, dict[str, str]]) -> list[ComparedPart]:
    """Return the parts of either card, and of each the items of either, in the order of the second card."""
    parts = []
    for title in dict.fromkeys([*second, *first]):
        older, newer = first.get(title, {}), second.get(title, {})
        items = [ComparedItem(name, older.get(name), newer.get(name)) for name in dict.fromkeys([*newer, *older])]
        if items:
            parts.append(ComparedPart(title, items))
    return parts


def _table(items: Sequence[ComparedItem], versions: Sequence[str]) -> Table:
    """Return items as a table of both versions; where they differ a column says how."""
    differ = any(item.difference for item in items)
    columns = ("Item", *versions, *(("Difference",) if differ else ()))
    texts = [(item.name, item.first or ABSENT, item.second or ABSENT, item.difference) for item in items]
    return Table(columns=columns, rows=tuple(row[: len(columns)] for row in texts))


def _shortened(text: str | None) -> str:
    if text is None:
        return ABSENT
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
