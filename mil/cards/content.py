"""What a card is made of, before it is Markdown: all of it plain text."""

from collections.abc import Sequence
from dataclasses import dataclass, field

ABSENT = "not available: "


@dataclass(frozen=True)
class Reference:
    """Something published."""

    text: str
    address: str | None = None
    """DOI or https address"""


@dataclass(frozen=True)
class Field:
    """One thing that a card is asked for."""

    name: str
    said: str | Sequence[str | Reference]
    source: str = ""
    """the file and the key of a number"""

    @property
    def missing(self) -> bool:
        """Whether it says no more than why it is not there."""
        return isinstance(self.said, str) and self.said.startswith(ABSENT)


@dataclass(frozen=True)
class Table:
    """Rows of cells; the last cell of each is where it comes from."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture beside the card."""

    name: str
    caption: str


@dataclass(frozen=True)
class Part:
    """What stands under a heading within a block."""

    heading: str
    sentences: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()


@dataclass(frozen=True)
class Block:
    """One of the card's numbered blocks."""

    number: int
    heading: str
    fields: Sequence[Field] = ()
    parts: Sequence[Part] = field(default=())

    @property
    def title(self) -> str:
        """As the card's contents have it."""
        return f"{self.number}. {self.heading}"


def absent(reason: str) -> str:
    """That a thing is missing, and why."""
    return f"{ABSENT}{reason}"
