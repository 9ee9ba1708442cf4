"""Read tables as hospitals write them; every cell stays text."""

import csv
import difflib
import gzip
import io
import re
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from mil.errors import CohortError, MilError
from mil.findings import Checked

_WORDS = ["na", "n/a", "#n/a", "nan", "none", "null", "nil", "missing", "unknown", "-", "--", ".", "?"]
_TCGA = ("[not available]", "[not applicable]", "[not evaluated]", "[discrepancy]", "[unknown]")
_GDC = ("'--", "not reported", "not available", "not applicable", "not allowed to collect")
MISSING = frozenset(("", *_WORDS, *_TCGA, *_GDC))
"""Words for a missing value, compared without regard to case; the last ones are those of TCGA and of the GDC.

A word that the user declares, such as the class `none`, is never a missing value: see `is_missing`.
"""

SIMULATED_COLUMN = "simulated"
"""Column of a table that says whether its patients, or the weights behind its scores, are simulated."""
_YES = frozenset(("true", "yes", "1"))

_DELIMITERS = (",", ";", "\t")
_SAMPLED = 1 << 14
"""Characters at the start of a table that its delimiter is recognised by."""
_ZIP, _OLD_EXCEL = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"


def read_table(path: Path, error: type[MilError] = CohortError) -> pd.DataFrame:
    """Return a table as `checked_table` reads it, and log its warnings.

    Raises:
        error: As in `checked_table`.
    """
    return checked_table(path, error).require()


def checked_table(path: Path, error: type[MilError] = CohortError) -> Checked[pd.DataFrame]:
    """Read a table as stripped text, so that `001` and `1E5` stay: CSV (comma, semicolon, tab; also `.gz`) or XLSX.

    A byte order mark, any line ends, quotes, blank lines, a first line `sep=;` and columns without name and value are
    accepted. Of a workbook the first sheet with two named columns and a row is read.

    Raises:
        error: The file is missing, not text, or has no rows, a repeated column, a line with another number of fields
            than the header, or a formula.
    """
    raw = _bytes(path, error)
    if raw.startswith(_OLD_EXCEL):
        raise error(f"{path} is a workbook of Excel before 2007, or one with a password; save it as .xlsx or CSV")
    if raw.startswith(_ZIP):
        from mil.workbook import rows

        cells = rows(path, raw, error)
    else:
        cells = Checked(_rows(path, _text(path, raw, error), error))
    lines = ([_one_line(field) for field in row] for row in cells.value or [])
    return Checked(_framed(path, [row for row in lines if any(row)], error), cells.findings)


def says_simulated(table: pd.DataFrame) -> bool:
    """Return whether a table says of any of its rows that they are simulated."""
    if SIMULATED_COLUMN not in table:
        return False
    words = table[SIMULATED_COLUMN].astype(str).str.strip().str.casefold()
    return bool(words.isin(_YES).any())


def require(path: Path, table: pd.DataFrame, columns: Sequence[str], error: type[MilError] = CohortError) -> None:
    """Check that a table has these columns.

    Raises:
        error: A column is missing; the message names the nearest one and those of the table.
    """
    names = [str(name) for name in table.columns]
    for column in columns:
        if column not in names:
            near = difflib.get_close_matches(column.casefold(), [name.casefold() for name in names], n=1)
            hint = next((f"; the nearest is '{name}'" for name in names if [name.casefold()] == near), "")
            more = f" and {len(names) - 20} more" if len(names) > 20 else ""
            raise error(f"{path} has no column '{column}', it has {', '.join(names[:20])}{more}{hint}")


def is_missing(values: "pd.Series[str]", declared: Collection[object] = ()) -> "pd.Series[bool]":
    """Return which cells are empty or hold a word for a missing value, `(rows,)`.

    Args:
        values: A column of a table.
        declared: Words that the user gave a meaning in this column; they are values, whatever they mean elsewhere.
    """
    words = values.astype("string").str.strip().str.casefold()
    return words.isna() | words.isin(MISSING - {str(word).strip().casefold() for word in declared})


def listed(ids: Sequence[str]) -> str:
    """Return the first ten ids in quotes, and the number of further ones."""
    more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
    return ", ".join(f"'{name}'" for name in ids[:10]) + more


def _one_line(field: str) -> str:
    # A header is often broken over lines within its cell, which cannot be typed on a command line.
    return " ".join(field.split()) if len(field.splitlines()) > 1 else field.strip()


def _framed(path: Path, rows: list[list[str]], error: type[MilError]) -> pd.DataFrame:
    if not rows:
        raise error(f"{path} is empty, expected a table with a header")
    header, *body = rows
    width = max(map(len, rows))
    unnamed = [place for place in range(width) if place >= len(header) or not header[place]]
    blank = {place for place in unnamed if not any(row[place] for row in body if place < len(row))}
    rows = [[field for place, field in enumerate(row) if place not in blank] for row in rows]
    header, *body = rows
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


def _bytes(path: Path, error: type[MilError]) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix.lower() == ".gz" else raw
    except (OSError, EOFError, zlib.error) as wrong:
        reason = wrong.strerror if isinstance(wrong, OSError) and wrong.strerror else wrong
        raise error(f"{path} cannot be read: {reason}") from wrong


def _text(path: Path, raw: bytes, error: type[MilError]) -> str:
    try:
        # Excel's "Unicode text" is UTF-16, its "CSV UTF-8" starts with a byte order mark.
        return raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as wrong:
        raise error(f"{path} is no UTF-8 text (byte {wrong.start}), expected a CSV saved as UTF-8") from wrong


def _rows(path: Path, text: str, error: type[MilError]) -> list[list[str]]:
    lines = io.StringIO(text, newline=None).read().lstrip("\n")
    stated = re.match(r"sep=(.)\n", lines)  # Excel's own line for saying what separates the fields
    lines = lines[stated.end() :] if stated else lines
    try:
        return _fields(lines, stated[1] if stated else _delimiter(lines))
    except csv.Error as wrong:
        raise error(f"{path} is no CSV: {wrong}") from wrong


def _fields(text: str, delimiter: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True))


def _delimiter(text: str) -> str:
    """Return the delimiter that gives the first lines as many fields as the header, or that is most frequent there."""
    start = text[:_SAMPLED].rpartition("\n")[0] or text[:_SAMPLED]
    bare = re.sub(r'"[^"]*"', "", start.partition("\n")[0])  # a quoted name may hold commas
    by_frequency = sorted(_DELIMITERS, key=bare.count, reverse=True)
    for delimiter in by_frequency:
        header, *body = [row for row in _fields(start, delimiter) if any(map(str.strip, row))] or [[]]
        if len(header) > 1 and body and all(len(row) == len(header) for row in body):
            return delimiter
    return by_frequency[0]
