"""What a card is made of before it is rendered as Markdown or HTML: plain text in fields, tables and figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from mil.report.schema import Table


class Gap(StrEnum):
    """Why an item of a card is missing."""

    NOT_STATED = "Not stated"
    NOT_EXAMINED = "Not examined or not recorded"
    NOT_APPLICABLE = "Does not apply"


class Absent(str):
    """The reason why an item of a card is missing; such items are listed once, at the end of the card."""

    gap: Gap

    def __new__(cls, reason: str, gap: Gap) -> "Absent":
        """Return the reason as a text that knows what kind of gap it explains."""
        text = super().__new__(cls, reason)
        text.gap = gap
        return text


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
        return isinstance(self.text, Absent)


@dataclass(frozen=True)
class Figure:
    """A picture in the folder `figures`."""

    name: str
    caption: str
    text: str = ""
    """the caption with the numbers, for who cannot see the figure"""


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

    @property
    def stated(self) -> Sequence[Field]:
        """The fields that say something."""
        return [field for field in self.fields if not field.missing]

    @property
    def gaps(self) -> Sequence[Field]:
        """The fields that are missing."""
        return [field for field in self.fields if field.missing]


def not_stated() -> Absent:
    """Return the text for an item that people state and nobody has stated."""
    return Absent("not stated", Gap.NOT_STATED)


def not_examined(reason: str) -> Absent:
    """Return the text for an item that was not examined or recorded."""
    return Absent(reason, Gap.NOT_EXAMINED)


def not_applicable(reason: str) -> Absent:
    """Return the text for an item that cannot exist here."""
    return Absent(reason, Gap.NOT_APPLICABLE)
