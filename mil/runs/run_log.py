"""The log of a run: `log.txt` in its folder."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mil import files
from mil.errors import printable
from mil.storage import check_kind

logger = logging.getLogger("mil")


class _LogFile(logging.FileHandler):
    """A log whose full disk is an error of the run, not a traceback beside it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Raise what went wrong, with the name of the file.

        Raises:
            OSError: As the system says.
        """
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            with files.writing(Path(self.baseFilename)):
                raise error
        super().handleError(record)


class _Printable(logging.Formatter):
    """Lines as the terminal shows them: what is in a name can neither begin a line of its own nor move the cursor."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line without a traceback, escaped."""
        return printable(super().formatMessage(record))


@contextmanager
def log_file(folder: Path) -> Iterator[None]:
    """Also write the package's log to the run's log.txt.

    Raises:
        ConfigError: A pipe, a folder or the like is called so.
    """
    check_kind(folder / "log.txt", expected="a file for the log")
    handler = _LogFile(folder / "log.txt", encoding="utf-8")
    handler.setFormatter(_Printable("%(asctime)s %(levelname)s %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)  # it is unset in a notebook and in the worker process of a launcher
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()
