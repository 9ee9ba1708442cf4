"""Where a card answers the items of TRIPOD+AI, the guideline on reporting prediction models.

The items are those of Collins et al., BMJ 2024;385:e078378, in our own words; `tripod_ai.yaml` says for each in which
fields and subsections of the card the answer stands.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from omegaconf import OmegaConf
from pydantic import BaseModel, ConfigDict, TypeAdapter

from mil.cards.content import Absent, CardBlock, Gap
from mil.report.schema import Table

ITEMS = Path(__file__).with_name("tripod_ai.yaml")
ABSTRACT = "first page"
"""Address of what stands above the first fold."""


class ReportingItem(BaseModel):
    """An item of the guideline.

    Attributes:
        item: Number, such as `3a`.
        topic: Section of the guideline.
        asks: What is to be reported.
        answered: Names of fields and subsections by the number of their block.
        first_page: Whether the first page answers it.
        note: What is said besides.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    item: str
    topic: str
    asks: str
    answered: Mapping[int, tuple[str, ...]] = {}
    first_page: bool = False
    note: str = ""


@cache
def reporting_items() -> tuple[ReportingItem, ...]:
    """Return the items of the guideline in their order."""
    stated = OmegaConf.to_container(OmegaConf.load(ITEMS))
    return TypeAdapter(tuple[ReportingItem, ...]).validate_python(stated)


def items_table(blocks: Sequence[CardBlock]) -> Table:
    """Return each item with where the card answers it, what does not apply, and what is not stated.

    Args:
        blocks: All blocks of the card, by number.
    """
    rows = tuple((item.item, item.topic, item.asks, _answer(item, blocks)) for item in reporting_items())
    note = "After TRIPOD+AI (doi 10.1136/bmj-2023-078378), in our own words; the numbers are those of its checklist."
    return Table(columns=("Item", "Topic", "What is asked", "Where it is answered"), rows=rows, note=note)


def _answer(item: ReportingItem, blocks: Sequence[CardBlock]) -> str:
    answers = [ABSTRACT] if item.first_page else []
    gaps: dict[str, list[str]] = {}
    for number, names in item.answered.items():
        states = {name: _gap(blocks[number], name) for name in names}
        if stated := [name for name, gap in states.items() if gap is None]:
            answers.append(f"block {number}: {_quoted(stated)}")
        for name, gap in states.items():
            if gap is not None:
                gaps.setdefault(gap, []).append(name)
    lines = [*answers, *(f"{gap.lower()}: {_quoted(names)}" for gap, names in gaps.items())]
    lines += [item.note] if item.note else []
    return "; ".join(lines) or Gap.NOT_STATED.lower()


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"“{name}”" for name in names)


def _gap(block: CardBlock, name: str) -> Gap | None:
    """Return why an address says nothing; None if it says something."""
    text = next((field.text for field in block.fields if field.name == name), None)
    return text.gap if isinstance(text, Absent) else None


def addresses(block: CardBlock) -> Iterator[str]:
    """Yield what items can point to in a block: its fields, and its subsections without the endpoint's name."""
    yield from (field.name for field in block.fields)
    yield from (subsection.heading.rpartition(": ")[2] for subsection in block.subsections)
