"""What a card is made of before it is rendered as Markdown: plain text in fields, tables and figures."""

from collections.abc import Sequence
from dataclasses import dataclass

from mil.report.schema import Table

ABSENT = "not available: "


@dataclass(frozen=True)
class Reference:
    """A publication."""

    text: str
    address: str | None = None
    """DOI or https address"""


@dataclass(frozen=True)
class Field:
    """One item of a card with its text, or with a list of lines."""

    name: str
    text: str | Sequence[str | Reference]
    source: str = ""
    """file and key of a number, such as `report.json: metrics.auroc`"""

    @property
    def missing(self) -> bool:
        """Whether the text only says why the item is missing."""
        return isinstance(self.text, str) and self.text.startswith(ABSENT)


@dataclass(frozen=True)
class Figure:
    """A picture in the folder `figures`."""

    name: str
    caption: str


@dataclass(frozen=True)
class Subsection:
    """A heading within a block, with sentences, tables and figures."""

    heading: str
    sentences: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()


@dataclass(frozen=True)
class CardBlock:
    """One of the card's numbered blocks."""

    number: int
    heading: str
    fields: Sequence[Field] = ()
    subsections: Sequence[Subsection] = ()

    @property
    def title(self) -> str:
        """Number and heading."""
        return f"{self.number}. {self.heading}"


def absent(reason: str) -> str:
    """Return the text for a missing item, with the reason."""
    return f"{ABSENT}{reason}"
