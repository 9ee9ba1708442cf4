"""Progress and warnings on stderr, a line each; within a sweep each line says of which run it is."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

from mil.cli import progress_bar
from mil.errors import printable

_label: ContextVar[str] = ContextVar("label", default="")
"""What the run of a sweep that is under way is called; empty elsewhere."""


def speak() -> None:
    """Write what the package logs to stderr; results go to stdout."""
    handler = _Handler()
    handler.setFormatter(_Lines())
    log = logging.getLogger("mil")
    log.handlers = [handler]
    log.setLevel(logging.INFO)


@contextmanager
def labelled(label: str) -> Iterator[None]:
    """Begin every line that is logged within by a label in brackets."""
    token = _label.set(label)
    try:
        yield
    finally:
        _label.reset(token)


class _Handler(logging.StreamHandler[TextIO]):
    def emit(self, record: logging.LogRecord) -> None:
        progress_bar.clear()
        super().emit(record)


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = printable(super().format(record))
        if record.levelno >= logging.WARNING:
            line = f"warning: {line}"
        label = _label.get()
        return f"[{printable(label)}] {line}" if label else line
