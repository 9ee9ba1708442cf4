"""The sources of a card's numbers, numbered in the order in which they are cited."""

from collections.abc import Mapping


class Footnotes:
    """Numbers of sources: file and key, such as `report.json: metrics.auroc`."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, source: str) -> int:
        """Return the number of a source; the next one if it was not cited before."""
        return self._numbers.setdefault(source, len(self._numbers) + 1)

    def mark(self, source: str) -> str:
        """Return the mark of a source in Markdown, with a space before it; empty if there is no source."""
        return f" [^{self.number(source)}]" if source else ""

    @property
    def numbers(self) -> Mapping[str, int]:
        """The number of each source, in order."""
        return self._numbers
