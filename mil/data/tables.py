"""Tables as hospitals write them, read as text and nothing but text."""

import csv
import difflib
import gzip
import io
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mil.errors import CohortError, MilError

_DELIMITERS = (",", ";", "\t")


def read_table(path: Path, error: type[MilError] = CohortError) -> pd.DataFrame:
    """A CSV (comma, semicolon or tab; plain or `.gz`) as a table of stripped text, so that `001` and `1E5` stay.

    A byte order mark, any line ends, quotes, blank lines and empty columns after the last one are taken as they come.

    Raises:
        error: No such file, no text, no rows, a column twice, or a line with another number of fields than the header.
    """
    text = _text(path, error)
    rows = list(_rows(path, text, error))
    if not rows:
        raise error(f"{path} is empty, expected a table with a header")
    header, *body = [[field.strip() for field in row] for row in rows]
    while header and not header[-1]:
        header.pop()
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise error(f"{path} has column '{doubled[0]}' twice, expected each once")
    if not body:
        raise error(f"{path} has a header but no rows")
    for number, row in enumerate(body, start=1):
        if len(row) < len(header) or any(row[len(header) :]):
            raise error(f"{path}, row {number}: {len(row)} fields, the header has {len(header)}")
    return pd.DataFrame([row[: len(header)] for row in body], columns=header, dtype=str)


def require(path: Path, table: pd.DataFrame, columns: Sequence[str], error: type[MilError] = CohortError) -> None:
    """Check that a table has these columns.

    Raises:
        error: One is missing; names the nearest, and what was found.
    """
    found = [str(name) for name in table.columns]
    for column in columns:
        if column not in found:
            near = difflib.get_close_matches(column.casefold(), [name.casefold() for name in found], n=1)
            hint = next((f"; the nearest is '{name}'" for name in found if [name.casefold()] == near), "")
            more = f" and {len(found) - 20} more" if len(found) > 20 else ""
            raise error(f"{path} has no column '{column}', it has {', '.join(found[:20])}{more}{hint}")


def listed(ids: Sequence[str]) -> str:
    """The first ten of some ids, and how many more there are."""
    more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
    return ", ".join(f"'{one}'" for one in ids[:10]) + more


def _text(path: Path, error: type[MilError]) -> str:
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
        # Excel's "Unicode text" is UTF-16, its "CSV UTF-8" starts with a byte order mark.
        return raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as wrong:
        raise error(f"{path} is no UTF-8 text (byte {wrong.start}), expected a CSV saved as UTF-8") from wrong
    except (OSError, EOFError, zlib.error) as wrong:
        reason = wrong.strerror if isinstance(wrong, OSError) and wrong.strerror else wrong
        raise error(f"{path} cannot be read: {reason}") from wrong


def _rows(path: Path, text: str, error: type[MilError]) -> list[list[str]]:
    lines = io.StringIO(text, newline=None).read()
    delimiter = _delimiter(lines.lstrip("\n").partition("\n")[0])
    try:
        rows = list(csv.reader(io.StringIO(lines), delimiter=delimiter, skipinitialspace=True))
    except csv.Error as wrong:
        raise error(f"{path} is no CSV: {wrong}") from wrong
    return [row for row in rows if any(field.strip() for field in row)]


def _delimiter(header: str) -> str:
    bare = re.sub(r'"[^"]*"', "", header)  # a quoted name may hold commas
    return max(_DELIMITERS, key=bare.count)
