"""A thing that is wrong, how often, and where first."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]
SHOWN = 10


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        severity: An error stops `mil train`, a warning does not.
        code: What kind it is, for programs.
        message: What is wrong, in one line.
        count: How many slides, patients or files it concerns.
        first: The first ten of them; none where the message names them itself.
    """

    severity: Severity
    code: str
    message: str
    count: int = 1
    first: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The message with the first ones, in one line."""
        more = f" and {self.count - len(self.first)} more" if self.count > len(self.first) else ""
        return f"{self.message}: {', '.join(map(repr, self.first))}{more}" if self.first else self.message


def finding(severity: Severity, code: str, message: str, ids: Iterable[str]) -> Finding:
    """A finding about these, which the message may count but does not name."""
    found = list(ids)
    return Finding(severity, code, message, len(found), tuple(found[:SHOWN]))


def softened(wanted: str) -> Severity:
    """How bad a thing is that the user may have left out: `data.on_missing`, `data.on_bad_bag`."""
    return "warning" if wanted == "skip" else "error"
