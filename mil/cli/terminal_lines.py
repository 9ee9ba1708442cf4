"""Lines and tables on stdout: what names hold neither moves the cursor nor becomes a picture."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mil.errors import printable

if TYPE_CHECKING:
    from rich.table import Table


def write_lines(*texts: object) -> None:
    """Write lines, or texts of several, with control characters escaped; at once, since runs may be side by side."""
    sys.stdout.write("".join(f"{printable(line)}\n" for text in texts for line in str(text).split("\n")))
    sys.stdout.flush()


def add_row(table: "Table", cells: Iterable[object]) -> None:
    """Add a row of a table with control characters escaped."""
    table.add_row(*(printable(str(cell)) for cell in cells))


def print_tables(*tables: "Table | str", width: int | None = None) -> None:
    """Print tables as they are: `[red]` and `a:b:c` in names are no markup and no emoji.

    Args:
        tables: Tables, and lines between them.
        width: Of the terminal; None measures it.
    """
    from rich.console import Console

    console = Console(width=width, soft_wrap=True, markup=False, emoji=False, highlight=False)
    console.print(*tables, sep="\n")


def terminal_width(least: int) -> int:
    """Return the width of the terminal, at least `least`."""
    from rich.console import Console

    return max(least, Console().width)
