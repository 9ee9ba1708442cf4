"""report.json on disk."""

import json
from pathlib import Path

from pydantic import ValidationError

from mil import files
from mil.errors import ReportError
from mil.report.schema import Report
from mil.report.upgrade import upgrade
from mil.storage import read_bytes


def read_report(path: Path) -> Report:
    """Return a stored report; those of schemas 1 and 2 as reports of today.

    Raises:
        ReportError: the file is not a report, or the storage fails.
        OSError: it cannot be read.
    """
    try:
        stored = json.loads(read_bytes(path, ReportError))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ReportError(f"{path}: is not JSON: {error}") from None
    if not isinstance(stored, dict):
        raise ReportError(f"{path}: holds a {type(stored).__name__}, expected a report")
    try:
        return upgrade(stored)
    except ValidationError as error:
        first = error.errors()[0]
        raise ReportError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ReportError, KeyError) as error:
        raise ReportError(f"{path}: {error}") from None


def write_report(path: Path, report: Report) -> None:
    """Write a report as JSON of schema 3, a line for each value; without indentation, which is a third of its bytes."""
    files.write_json(path, report.model_dump(mode="json"), indent=0)
