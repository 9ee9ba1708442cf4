"""The first sheet of an XLSX workbook, as the text that its cells show."""

import io
import logging
import re
import zipfile
import zlib
from collections.abc import Iterable
from datetime import datetime, time
from pathlib import Path
from typing import Protocol

from openpyxl import load_workbook
from openpyxl.utils.exceptions import InvalidFileException

from mil.errors import MilError

_log = logging.getLogger(__name__)

_LARGEST = 1 << 30
"""Bytes that a workbook may unpack to; far above any clinical table, far below a memory."""

_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, InvalidFileException),
    # What openpyxl and the XML parser under it let out of files that are not what they say.
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


def rows(path: Path, raw: bytes, error: type[MilError]) -> list[list[str]]:
    """The first sheet's rows as text, all of one length.

    Numbers are written in the shortest form that reads back the same, with the leading zeros their format shows;
    dates as `2024-05-01`, with their time where they have one.

    Raises:
        error: A broken workbook, one with a password, one that unpacks to more than 1 GiB, or a cell with a formula.
    """
    try:
        found = _first_sheet(path, raw, error)
    except _BROKEN as wrong:
        raise error(f"{path} cannot be read as a workbook: {' '.join(str(wrong).split())}") from wrong
    width = max(map(len, found), default=0)
    return [row + [""] * (width - len(row)) for row in found]


def _first_sheet(path: Path, raw: bytes, error: type[MilError]) -> list[list[str]]:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        if (size := sum(entry.file_size for entry in archive.infolist())) > _LARGEST:
            raise error(f"{path} unpacks to {size / 2**30:.1f} GiB, expected a table of less than 1 GiB")
    book = load_workbook(io.BytesIO(raw), read_only=True)
    if not book.worksheets:
        raise error(f"{path} has no sheet, expected a table in the first one")
    sheet = book.worksheets[0]
    if len(book.worksheets) > 1:
        _log.warning("%s has %d sheets, the first is read: '%s'", path, len(book.worksheets), sheet.title)
    sheet.reset_dimensions()  # some writers declare a wrong size, and rows beyond it would be lost
    return [_row(path, cells, error) for cells in sheet.iter_rows()]


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
