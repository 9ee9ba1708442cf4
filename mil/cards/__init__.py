"""The model card: generated from manifest and report, never edited by hand.

Front matter is Hugging Face's (`model-index`). What a pathologist reads first stands on one screen; below it are 25
numbered blocks, each field of which is filled or says why it is not. Every number stands with its interval, its
patients, and the file and key that it comes from.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
from mil.cards.content import Block, Field, Reference, Table
from mil.cards.front_matter import front_matter
from mil.cards.measured import interval, population
from mil.cards.performance import BESIDE
from mil.cards.shortfalls import shortfalls
from mil.endpoints.endpoint import Endpoint
from mil.manifest import Manifest

__all__ = ["BESIDE", "BLOCKS", "RESEARCH", "SIMULATED", "Facts", "card", "interval", "population"]

BLOCKS: Sequence[Callable[[Facts], Block]] = (
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
"""Of a card, by number."""


def card(
    manifest: Manifest, endpoint: Endpoint, report: Mapping[str, Any], figures: Sequence[str], changelog: str = ""
) -> str:
    """The whole README.md of a checkpoint: of the same arguments the same bytes.

    Args:
        manifest: Of the checkpoint; the tool's yaml is in it.
        endpoint: What is predicted.
        report: What report.json holds.
        figures: Names of the files in `figures/`.
        changelog: What changed in each version, a line each.
    """
    facts = Facts(manifest, report, endpoint, figures, changelog)
    environment = Environment(
        loader=PackageLoader("mil.cards", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"md": markdown.escaped, "code": markdown.code, "anchor": markdown.anchor, "said": _said}
    environment.tests |= {"lines": lambda found: not isinstance(found, str)}
    text = environment.get_template("card.md.j2").render(
        front_matter=front_matter(facts),
        facts=facts,
        first=_first(facts),
        short=shortfalls(facts),
        outputs=purpose.outputs(facts),
        blocks=[block(facts) for block in BLOCKS],
        row=_row,
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _first(facts: Facts) -> list[Field]:
    """What is read before anything else."""
    lines = facts.tool.get("facts") or {}
    return [
        Field("In short", str(lines.get("en") or facts.said("question"))),
        *([Field("En bref", str(lines["fr"]))] if lines.get("fr") else []),
        facts.main(),
        facts.oracle(),
        facts.verdict(),
        *operating_block.at_the_cut(facts),
        Field("Evidence", facts.evidence()),
    ]


def _said(found: str | Reference) -> str:
    return markdown.link(found.text, found.address) if isinstance(found, Reference) else markdown.escaped(found)


def _row(table: Table, row: Sequence[str]) -> str:
    """Cells, the last of them a source where the table has sources."""
    cells = [markdown.escaped(cell) for cell in row]
    if table.heads[-1] == "Source":
        cells[-1] = markdown.code(row[-1])
    return f"| {' | '.join(cells)} |"
