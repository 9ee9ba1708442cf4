"""Read the table of an XLSX workbook as the text that its cells show."""

import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from datetime import datetime, time
from pathlib import Path
from typing import Protocol

from openpyxl import load_workbook
from openpyxl.utils.exceptions import InvalidFileException

from mil.errors import MilError
from mil.findings import Checked, Finding

_LARGEST = 1 << 29
"""Largest unpacked size of a workbook in bytes: far more than any clinical table, far less than memory."""
_MOST_CELLS = 5_000_000
"""Most cells that are read of a sheet: about half a minute."""
_MOST_ROWS = (1 << 20) + 1
"""Excel's own limit."""

_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, InvalidFileException),
    # What openpyxl and its XML parser raise on broken files.
    *(ValueError, TypeError, AttributeError, LookupError, SyntaxError, RuntimeError),
)


class _Cell(Protocol):
    @property
    def value(self) -> object: ...
    @property
    def data_type(self) -> str: ...
    @property
    def number_format(self) -> str: ...
    @property
    def coordinate(self) -> str: ...


def rows(path: Path, raw: bytes, error: type[MilError]) -> Checked[list[list[str]]]:
    """Return the rows of the first sheet that is a table, with a warning where there are further sheets.

    A table has a header with two names or more and a row; where no sheet has them, the first one is returned. All rows
    have one length.

    Numbers are written in the shortest form that reads back the same, with the leading zeros their format shows;
    dates as `2024-05-01`, with their time where they have one.

    Raises:
        error: A broken workbook, one with a password, one of more than 512 MiB unpacked or with too many
            cells, or a cell with a formula.
    """
    try:
        texts, warnings = _table_sheet(path, raw, error)
    except _BROKEN as wrong:
        raise error(f"{path} cannot be read as a workbook: {' '.join(str(wrong).split())}") from wrong
    width = max(map(len, texts), default=0)
    return Checked([row + [""] * (width - len(row)) for row in texts], warnings)


def _table_sheet(path: Path, raw: bytes, error: type[MilError]) -> tuple[list[list[str]], tuple[Finding, ...]]:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        if (size := sum(entry.file_size for entry in archive.infolist())) > _LARGEST:
            raise error(f"{path} unpacks to {size / 2**30:.1f} GiB, expected a table of less than 0.5 GiB")
    book = load_workbook(io.BytesIO(raw), read_only=True)
    if not book.worksheets:
        raise error(f"{path} has no sheet, expected a table in the first one")
    for sheet in book.worksheets:
        sheet.reset_dimensions()  # some writers declare a wrong size, and rows beyond it would be lost
    sheet = next(filter(_is_table, book.worksheets), book.worksheets[0])
    warnings: tuple[Finding, ...] = ()
    if len(book.worksheets) > 1:
        message = f"{path} has {len(book.worksheets)} sheets, only '{sheet.title}' is read"
        warnings = (Finding("warning", "sheets", message, len(book.worksheets)),)
    return list(_rows(path, sheet, error)), warnings


def _rows(path: Path, sheet: "_Sheet", error: type[MilError]) -> Iterator[list[str]]:
    amount = 0
    for number, cells in enumerate(sheet.iter_rows(), start=1):
        row = _row(path, cells, error)
        amount += len(row)
        if amount > _MOST_CELLS or number > _MOST_ROWS:
            raise error(f"{path}, sheet '{sheet.title}' has more than {amount - 1} cells, expected a table of fewer")
        yield row


class _Sheet(Protocol):
    @property
    def title(self) -> str: ...
    def iter_rows(self) -> Iterable[Iterable[_Cell]]: ...


def _is_table(sheet: _Sheet) -> bool:
    sizes = (sum(cell.value is not None for cell in cells) for cells in sheet.iter_rows())
    filled = (size for size in sizes if size)
    return next(filled, 0) > 1 and next(filled, 0) > 0


def _row(path: Path, cells: Iterable[_Cell], error: type[MilError]) -> list[str]:
    texts = [("" if cell.value is None else _text(path, cell, error)) for cell in cells]
    while texts and not texts[-1]:
        texts.pop()
    return texts


def _text(path: Path, cell: _Cell, error: type[MilError]) -> str:
    value = cell.value
    if cell.data_type == "f":
        raise error(f"{path}, cell {cell.coordinate} holds a formula, expected a value (copy, then paste as values)")
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time.min else value.isoformat(sep=" ")
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    # An id typed as a number under the format 000 is shown, and meant, with its zeros.
    if isinstance(value, int) and value >= 0 and re.fullmatch("0+", cell.number_format):
        return str(value).zfill(len(cell.number_format))
    return str(value)
