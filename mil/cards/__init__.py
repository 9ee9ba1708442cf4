"""The model card: generated from manifest and report, never edited by hand.

The front matter follows Hugging Face (`model-index`). What a pathologist reads first fits on one screen; 25 numbered
blocks follow, in which every field is filled or says why it is empty. Every number has its interval, its patients, and
the file and key that it comes from.
"""

import re
from collections.abc import Callable, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from mil.cards import (
    cohort_blocks,
    evidence,
    fairness,
    markdown,
    operating_block,
    performance,
    purpose,
    technical,
    trust,
)
from mil.cards.card_facts import RESEARCH, SIMULATED, Facts
from mil.cards.content import CardBlock, Field, Reference
from mil.cards.external_validation import ExternalValidation
from mil.cards.front_matter import front_matter
from mil.cards.outputs import outputs_table
from mil.endpoints.endpoint import Endpoint
from mil.manifest import Manifest
from mil.report.schema import Report, Table
from mil.report.shortfalls import NOTHING_MISSED, shortfalls

__all__ = ["BLOCKS", "RESEARCH", "SIMULATED", "Facts", "card"]

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


def card(
    manifest: Manifest,
    endpoint: Endpoint,
    report: Report,
    figures: Sequence[str],
    changelog: str = "",
    external: Sequence[ExternalValidation] = (),
) -> str:
    """Return the README.md of a checkpoint; the same arguments give the same bytes.

    Args:
        manifest: Manifest of the checkpoint, with the tool's yaml.
        endpoint: What is predicted.
        report: Report of the checkpoint.
        figures: Names of the files in `figures/`.
        changelog: What changed in each version, one line each.
        external: Validations of these weights on other cohorts.
    """
    facts = Facts(manifest, report, endpoint, figures, changelog, external)
    environment = Environment(
        loader=PackageLoader("mil.cards", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"md": markdown.escaped, "code": markdown.code, "anchor": markdown.anchor, "line": _line}
    environment.tests |= {"lines": lambda text: not isinstance(text, str)}
    text = environment.get_template("card.md.j2").render(
        front_matter=front_matter(facts),
        facts=facts,
        first=_at_a_glance(facts),
        short=[Field(each.title, each.sentence, each.source) for each in shortfalls(report)],
        nothing_missed=NOTHING_MISSED,
        outputs=outputs_table(facts),
        blocks=[block(facts) for block in BLOCKS],
        row=_row,
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _at_a_glance(facts: Facts) -> list[Field]:
    """Return what is read before anything else."""
    summary = facts.tool.summary
    return [
        Field("In short", summary.en or facts.text("question")),
        *([Field("En bref", facts.in_french)] if facts.in_french else []),
        facts.main(),
        facts.oracle(),
        facts.verdict(),
        *operating_block.at_the_cut(facts),
        Field("Evidence", facts.evidence()),
    ]


def _line(line: str | Reference) -> str:
    return markdown.link(line.text, line.address) if isinstance(line, Reference) else markdown.escaped(line)


def _row(table: Table, row: Sequence[str]) -> str:
    """Return a row as Markdown; the last cell is code if the table has a column of sources."""
    cells = [markdown.escaped(cell) for cell in row]
    if table.columns[-1] == "Source":
        cells[-1] = markdown.code(row[-1])
    return f"| {' | '.join(cells)} |"
