"""What the pages of reports and of cards share: the templates' environment, the style sheet and the tables."""

import re
from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from mil.report.schema import Table

STYLED = 12
"""Columns of a table that `page.css` can label and widen; further ones have no label on a narrow screen."""
LEAST_WIDTHS = {40: "13rem", 20: "9rem", 12: "6.5rem", 6: "4.75rem"}
"""Least width of a column by the characters of its longest cell, so that cells are not broken into single words."""
BROAD, BROADEST_CELL = 85, 30
"""Characters that fit on a printed line, and those of a cell from which its text is broken into lines."""
_HEAD = 12
"""Characters of a column's head that count: a head may be broken into lines."""
_UNSAFE = re.compile(r"[^\w .,:;()/+%=-]")


@cache
def page_environment(package: str = "mil.report.page") -> Environment:
    """Return the environment of pages: every word is escaped, and the report's templates can be included.

    It is the same for each page of a process, which compiles its templates once.

    Args:
        package: Package whose folder holds the template.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("mil.report.page", ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"column_style": column_style, "css_text": css_text, "is_broad": is_broad}
    return environment


def column_style(table: Table) -> str:
    """Return the labels and least widths of a table's columns as properties for `page.css`.

    The first column labels itself unless it holds bare numbers. A column with long cells has a least width.
    """
    declared = []
    for at, column in enumerate(table.columns[:STYLED]):
        numbered = all(row[at].isdecimal() for row in table.rows)
        if column and (at or numbered):
            declared.append(f"--c{at + 1}:'{css_text(column)}: '")
        longest = max(len(text) for text in (column[:_HEAD], *(row[at] for row in table.rows), ""))
        width = next((width for characters, width in LEAST_WIDTHS.items() if longest > characters), None)
        if width:
            declared.append(f"--w{at + 1}:{width}")
    return ";".join(declared)


def is_broad(table: Table) -> bool:
    """Return whether a table is broader than a printed page, where its rows are then stacked."""
    widths = [
        max(min(len(cell), BROADEST_CELL) for cell in column) for column in zip(table.columns, *table.rows, strict=True)
    ]
    return sum(widths) + 2 * len(widths) > BROAD


def css_text(text: str) -> str:
    """Return a text as the inside of a CSS string in which every unusual character is an escape."""
    return _UNSAFE.sub(lambda match: f"\\{ord(match[0]):06x}", text)
