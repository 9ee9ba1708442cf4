"""Read tables as hospitals write them, where every cell stays text; write tables that no spreadsheet runs.

A cell of ours that a spreadsheet would run as a formula has an apostrophe before it: see `neutralised`. Tables are
bounded in bytes, rows, columns and cells, so that a small compressed file cannot fill the memory, and in the time that
reading and parsing takes.
"""

import csv
import difflib
import io
import re
import zlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pandas as pd

from mil import storage
from mil.errors import CohortError, MilError
from mil.findings import Checked

_WORDS = [
    "na",
    "n/a",
    "#n/a",
    "n.a.",
    "<na>",
    "nat",
    "nan",
    "none",
    "null",
    "nil",
    "missing",
    "unknown",
    "-",
    "--",
    ".",
    "?",
]
_TCGA = ("[not available]", "[not applicable]", "[not evaluated]", "[discrepancy]", "[unknown]")
_GDC = ("'--", "not reported", "not available", "not applicable", "not allowed to collect")
MISSING = frozenset(("", *_WORDS, *_TCGA, *_GDC))
"""Words for a missing value, compared without regard to case; the last ones are those of TCGA and of the GDC.

A word that the user declares, such as the class `none`, is never a missing value: see `is_missing`.
"""

SIMULATED_COLUMN = "simulated"
"""Column of a table that says whether its patients, or the weights behind its scores, are simulated."""
_YES = frozenset(("true", "yes", "1"))

MOST_BYTES = 1 << 28
"""Largest table in bytes, once it is unpacked: 256 MiB, a hundred times the largest clinical table that we know."""
MOST_ROWS, MOST_COLUMNS, MOST_CELLS = 2_000_000, 16_384, 20_000_000
"""Largest table; 16,384 columns are Excel's own limit."""

_RISKY = r"[=+\-@\uff1d\uff0b\uff0d\uff20\x00-\x1f\x7f]"
_FORMULA = re.compile(f"'*{_RISKY}")
_MARKED = re.compile(f"'+{_RISKY}")
_SIGN = frozenset("=+-@")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:inf|nan)", re.IGNORECASE)

_DELIMITERS = (",", ";", "\t", "|")
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
            than the header, or a formula; or the storage fails, or reading or parsing takes longer than
            `storage.SECONDS`.
    """
    raw = _bytes(path, error)
    return storage.limited(lambda: _parsed(path, raw, error), path, error, "parsing it as a table")


def _parsed(path: Path, raw: bytes, error: type[MilError]) -> Checked[pd.DataFrame]:
    if raw.startswith(_OLD_EXCEL):
        raise error(f"{path} is a workbook of Excel before 2007, or one with a password; save it as .xlsx or CSV")
    if raw.startswith(_ZIP):
        from mil.workbook import rows

        cells = rows(path, raw, error)
    else:
        cells = Checked(_rows(path, _text(path, raw, error), error))
    lines = ([restored(_one_line(field)) for field in row] for row in cells.value or [])
    return Checked(_framed(path, [row for row in lines if any(row)], error), cells.findings)


def neutralised(text: str) -> str:
    """Return a cell that no spreadsheet runs: an apostrophe is put before text that begins like a formula.

    Such text begins with `=`, `+`, `-`, `@` (also full-width ones) or a control character, after any apostrophes. A
    number stays a number, and a sign alone, such as the class `-`, stays as it is. `restored` undoes it.
    """
    is_plain = not _FORMULA.match(text) or text in _SIGN or _NUMBER.fullmatch(text)
    return text if is_plain else f"'{text}"


def restored(text: str) -> str:
    """Return a cell without the apostrophe that `neutralised` put before it."""
    return text[1:] if _MARKED.match(text) else text


def csv_text(table: pd.DataFrame, index: bool = False) -> str:
    """Return a table as CSV in which no cell, name of a column or name of a row is a formula, see `neutralised`.

    Args:
        table: Numbers are written so that they read back the same.
        index: Whether the names of the rows are the first column.
    """
    named = table.reset_index() if index else table
    columns = {
        neutralised(str(name)): column
        if pd.api.types.is_numeric_dtype(column)
        else pd.Series([_on_text(neutralised, cell) for cell in column], column.index, dtype=object)
        for name, column in named.items()
    }
    return pd.DataFrame(columns, index=named.index).to_csv(index=False, lineterminator="\n")


def without_marks(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of ours as it was before `csv_text`."""
    columns = {
        restored(str(name)): column
        if pd.api.types.is_numeric_dtype(column)
        else pd.Series([_on_text(restored, cell) for cell in column], column.index, column.dtype)
        for name, column in table.items()
    }
    return pd.DataFrame(columns, index=table.index)


def says_simulated(table: pd.DataFrame) -> bool:
    """Return whether a table says of any of its rows that they are simulated."""
    if SIMULATED_COLUMN not in table:
        return False
    words = table[SIMULATED_COLUMN].astype(str).str.strip().str.casefold()
    return bool(words.isin(_YES).any())


def stated_simulated(table: pd.DataFrame) -> bool | None:
    """Return whether a table says that its rows are simulated; None where it has no such column."""
    return says_simulated(table) if SIMULATED_COLUMN in table else None


def require(path: Path, table: pd.DataFrame, columns: Sequence[str], error: type[MilError] = CohortError) -> None:
    """Check that a table has these columns.

    Raises:
        error: A column is missing; the message names the nearest one and those of the table.
    """
    names = [str(name) for name in table.columns]
    for column in columns:
        if column not in names:
            near = _nearest(column, names)
            hint = f"; the nearest is {' or '.join(map(repr, near))}" if near else ""
            more = f" and {len(names) - 20} more" if len(names) > 20 else ""
            raise error(f"{path} has no column '{column}', it has {', '.join(names[:20])}{more}{hint}")


def _nearest(column: str, names: Sequence[str]) -> list[str]:
    """Return up to three names that are spelled alike, or that hold the column's name, or are held in it."""
    folded = {name: name.casefold() for name in names}
    close = difflib.get_close_matches(column.casefold(), list(folded.values()), n=1)
    alike = [name for name in names if folded[name] in close]
    within = [name for name in names if min(len(name), len(column)) > 2 and _holds(folded[name], column.casefold())]
    return list(dict.fromkeys([*alike, *within]))[:3]


def _holds(first: str, second: str) -> bool:
    return first in second or second in first


def is_missing(values: "pd.Series[str]", declared: Collection[object] = ()) -> "pd.Series[bool]":
    """Return which cells are empty or hold a word for a missing value, `(rows,)`.

    Args:
        values: A column of a table.
        declared: Words that the user gave a meaning in this column; they are values, whatever they mean elsewhere.
    """
    words = values.astype("string").str.split().str.join(" ").str.casefold()
    return words.isna() | words.isin(MISSING - {str(word).strip().casefold() for word in declared})


def names_no_site(patient: str, site: str) -> bool:
    """Return whether a site is a word for a missing one; `NA` is a site of TCGA, in the barcodes of its patients."""
    word = " ".join(site.split()).casefold()
    return word in MISSING and not patient.casefold().startswith(f"tcga-{word}-")


def listed(ids: Sequence[str]) -> str:
    """Return the first ten ids in quotes, and the number of further ones."""
    more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
    return ", ".join(f"'{name}'" for name in ids[:10]) + more


def check_size(path: Path, rows: int, columns: int, error: type[MilError]) -> None:
    """Check that a table is no larger than memory allows.

    Raises:
        error: It has too many rows, columns or cells.
    """
    for amount, most, what in ((rows, MOST_ROWS, "rows"), (columns, MOST_COLUMNS, "columns")):
        if amount > most:
            raise error(f"{path} has {amount} {what} or more, expected at most {most}")
    if rows * columns > MOST_CELLS:
        raise error(f"{path} has {rows} rows of {columns} columns, expected at most {MOST_CELLS} cells")


def _on_text(change: Callable[[str], str], cell: object) -> object:
    return change(cell) if isinstance(cell, str) else cell


def _one_line(field: str) -> str:
    # A header is often broken over lines within its cell, which cannot be typed on a command line.
    return " ".join(field.split()) if len(field.splitlines()) > 1 else field.strip()


def _framed(path: Path, rows: list[list[str]], error: type[MilError]) -> pd.DataFrame:
    if not rows:
        raise error(f"{path} is empty, expected a table with a header")
    header, *body = rows
    width = max(map(len, rows))
    check_size(path, len(rows), width, error)
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
            title = "; if it is a title, remove the lines above the header" if len(header) == 1 else ""
            raise error(f"{path}, row {number}: {len(row)} fields, the header has {len(header)}{title}")
    return pd.DataFrame([row[: len(header)] for row in body], columns=header, dtype=str)


def _bytes(path: Path, error: type[MilError]) -> bytes:
    packed = path.suffix.lower() == ".gz"
    try:
        raw = storage.read_bytes(path, error, MOST_BYTES + 1, packed)
    except (OSError, EOFError, zlib.error) as wrong:
        reason = wrong.strerror if isinstance(wrong, OSError) and wrong.strerror else wrong
        raise error(f"{path} cannot be read: {reason}") from wrong
    if len(raw) > MOST_BYTES:
        raise error(f"{path}{' unpacks to' if packed else ' has'} more than {MOST_BYTES >> 20} MiB, expected a table")
    return raw


def _text(path: Path, raw: bytes, error: type[MilError]) -> str:
    try:
        # Excel's "Unicode text" is UTF-16, its "CSV UTF-8" starts with a byte order mark.
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as wrong:
        raise error(f"{path} is no UTF-8 text (byte {wrong.start}), expected a CSV saved as UTF-8") from wrong
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise error(f"{path}, line {line}: holds a NUL character, expected a CSV saved as UTF-8")
    return text


def _rows(path: Path, text: str, error: type[MilError]) -> list[list[str]]:
    lines = io.StringIO(text, newline=None).read().lstrip("\n")
    stated = re.match(r'"?sep=(.)"?\n', lines)  # Excel's own line for saying what separates the fields
    lines = lines[stated.end() :] if stated else lines
    try:
        return _bounded_fields(path, lines, stated[1] if stated else _delimiter(lines), error)
    except csv.Error as wrong:
        raise error(f"{path} is no CSV: {wrong}") from wrong


def _fields(text: str, delimiter: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True))


def _bounded_fields(path: Path, text: str, delimiter: str, error: type[MilError]) -> list[list[str]]:
    rows, cells = list[list[str]](), 0
    for row in csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True):
        cells += len(row)
        rows.append(row)
        if len(row) > MOST_COLUMNS or len(rows) > MOST_ROWS + 1 or cells > MOST_CELLS:
            check_size(path, len(rows), max(map(len, rows)), error)
            raise error(f"{path} has {cells} cells or more, expected at most {MOST_CELLS}")
    return rows


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
