"""The order of a card: a first page for everybody, folds with 25 blocks, where TRIPOD+AI is answered, what is open."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mil.cards import (
    cohort_blocks,
    evidence,
    fairness,
    operating_block,
    performance,
    purpose,
    technical,
    trust,
)
from mil.cards.card_facts import Facts
from mil.cards.content import Absent, CardBlock, Field, Gap, Reference
from mil.cards.outputs import outputs_table
from mil.cards.reporting_items import items_table
from mil.report.schema import Table
from mil.report.shortfalls import shortfalls

BLOCKS: Sequence[Callable[[Facts], CardBlock]] = (
    purpose.identity,
    purpose.facts_box,
    purpose.intended,
    purpose.outside,
    technical.inputs,
    technical.results,
    cohort_blocks.truth,
    cohort_blocks.data,
    cohort_blocks.partition,
    technical.model,
    operating_block.operating,
    performance.performance,
    fairness.subgroups,
    trust.robustness,
    trust.explanation,
    trust.confounders,
    trust.oversight,
    trust.risk,
    trust.monitoring,
    trust.security,
    trust.ethics,
    evidence.level,
    evidence.reproduction,
    evidence.reading,
    evidence.changes,
)
"""The blocks of a card, by number."""
READERS: Mapping[str, Sequence[int]] = {
    "Pathologist": (2, 3, 5, 14, 16),
    "Statistician": (6, 7, 8, 10, 11, 12, 15),
    "Regulator": (0, 17, 18, 19, 20, 21, 22),
}
"""Blocks that each reader needs after the first page."""
ITEMS, OPEN, SOURCES = "TRIPOD+AI: where each item is answered", "Open: not stated", "Sources"
"""Headings of what follows the blocks."""
WORDS = 700
"""Most words of the first page."""
_FIXED_WORDS = 122
"""Banner, headings, readers and links of the first page."""
_MEANINGS = 3
"""Columns of the table of outputs that say what they mean."""
_WORD = re.compile(r"\S*\w\S*")


@dataclass(frozen=True)
class CardContent:
    """Everything that a card says, in its order.

    Attributes:
        facts: What it is written from.
        purpose: What the tool is for, in two languages.
        pathway: Where the tool stands in the pathway; empty where only the table of outputs has room.
        outputs: Every output with what it means; None if the tool makes no call.
        results: The headline numbers and the decision.
        shortfalls: Where the tool falls short, as far as the first page has room.
        further_shortfalls: The rest, which stands in block 11.
        provenance: Where data, weights and statements come from.
        blocks: The numbered blocks.
        items: Where each item of TRIPOD+AI is answered.
        gaps: Everything that is missing, by the kind of gap.
    """

    facts: Facts
    purpose: Sequence[Field]
    pathway: str
    outputs: Table | None
    results: Sequence[Field]
    shortfalls: Sequence[Field]
    further_shortfalls: Sequence[Field]
    provenance: Sequence[Field]
    blocks: Sequence[CardBlock]
    items: Table
    gaps: Sequence[Field]


def card_content(facts: Facts) -> CardContent:
    """Return the content of a card."""
    blocks = [block(facts) for block in BLOCKS]
    content = CardContent(
        facts=facts,
        purpose=facts.summaries,
        pathway=facts.text("pathway"),
        outputs=outputs_table(facts),
        results=[field for field in _results(facts) if not field.missing],
        shortfalls=(),
        further_shortfalls=(),
        provenance=[field for field in _provenance(facts) if not field.missing],
        blocks=blocks,
        items=items_table(blocks),
        gaps=_gaps(blocks),
    )
    lacking = [Field(each.title, each.sentence, each.source) for each in shortfalls(facts.report)]
    return _fitted(content, lacking)


def first_page_words(content: CardContent) -> int:
    """Count the words of the first page, headings and links by their usual number."""
    fields = [*content.purpose, *content.results, *content.shortfalls, *content.provenance]
    texts = [text for field in fields for text in (field.name, *lines_of(field))]
    texts += [field.name for field in content.further_shortfalls]
    texts += [content.pathway, content.facts.text("title"), *content.facts.lines("out_of_scope")]
    if (table := content.outputs) is not None:
        texts += [table.note, *(cell for row in (table.columns, *table.rows) for cell in row)]
    return _FIXED_WORDS + sum(len(_WORD.findall(text)) for text in texts)


def lines_of(field: Field) -> Iterator[str]:
    """Yield the lines of a field as plain text."""
    for line in (field.text,) if isinstance(field.text, str) else field.text:
        yield line.text if isinstance(line, Reference) else line


def _fitted(content: CardContent, shortfalls: Sequence[Field]) -> CardContent:
    """Add as many shortfalls to the first page as it has room for, and the rest to block 11.

    Where there is no room for all of them, the intended use and the comparisons with other models, which stand in the
    blocks too, make room.
    """
    facts = content.facts
    full = replace(content, shortfalls=shortfalls)
    full = replace(full, purpose=[*content.purpose, Field("Intended use", facts.text("intended_use"))])
    candidates = [full, replace(full, purpose=content.purpose)]
    for spare in (facts.oracle().name, facts.verdict().name):
        results = [field for field in candidates[-1].results if field.name != spare]
        candidates.append(replace(candidates[-1], results=results))
    if content.outputs is not None:  # the meaning of each output stands in the table, the pathway in block 2
        candidates.append(replace(candidates[-1], pathway=""))
        candidates.append(replace(candidates[-1], outputs=_without_frequencies(content.outputs)))
    for cut in reversed([field.name for field in operating_block.at_the_cut(facts)[1:]]):  # block 10 has them
        shorter = [field for field in candidates[-1].results if field.name != cut]
        candidates.append(replace(candidates[-1], results=shorter))
    fitting = next((each for each in candidates if first_page_words(each) <= WORDS), candidates[-1])
    number, rest = len(shortfalls), shortfalls[len(shortfalls) :]
    while number and first_page_words(replace(fitting, further_shortfalls=rest)) > WORDS:
        number -= 1
        fitting, rest = replace(fitting, shortfalls=shortfalls[:number]), shortfalls[number:]
    blocks = [
        replace(block, fields=[*block.fields, *rest]) if block.number == performance.NUMBER else block
        for block in content.blocks
    ]
    return replace(fitting, further_shortfalls=rest, blocks=blocks)


def _without_frequencies(table: Table) -> Table:
    """Return the table of outputs without its counts of 1,000 patients, which block 10 has with their intervals."""
    cells = [(*row[:_MEANINGS], row[-1]) for row in (table.columns, *table.rows)]
    return Table(columns=cells[0], rows=tuple(cells[1:]), note="Counts of 1,000 patients are in block 10.")


def _results(facts: Facts) -> list[Field]:
    return [
        facts.main(),
        *operating_block.at_the_cut(facts),
        facts.verdict(),
        facts.oracle(),
        Field("Evidence", facts.evidence()),
    ]


def _provenance(facts: Facts) -> list[Field]:
    cohort = facts.choose("a simulated cohort: features were drawn, no patient exists", "the training site's cohort")
    return [
        Field("Trained on", cohort),
        Field("Version of the data", facts.stated("data_version")),
        Field("Date", facts.stated("date")),
        Field("Licence of the weights", f"research use only ({purpose.LICENCE_FILE})"),
        Field("Contact", facts.stated("contact")),
    ]


def _gaps(blocks: Sequence[CardBlock]) -> list[Field]:
    """Return all missing items: those that people may state in one line, the others by their reason."""
    reasons: dict[tuple[Gap, str], list[str]] = {}
    for block in blocks:
        for field in block.gaps:
            assert isinstance(field.text, Absent)
            names = reasons.setdefault((field.text.gap, str(field.text)), [])
            names.append(f"{field.name} ({block.number})")
    fields = []
    for gap in Gap:
        lines = {reason: ", ".join(names) for (kind, reason), names in reasons.items() if kind is gap}
        if gap is Gap.NOT_STATED and lines:
            fields.append(Field(gap, "; ".join(lines.values())))
        elif lines:
            fields.append(Field(gap, [f"{names}: {reason}" for reason, names in lines.items()]))
    return fields
