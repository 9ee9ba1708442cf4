"""What the package logs, as findings; and what others log, not at all."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mil.study.findings import Finding


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning tells of the machine whenever a trainer is made."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def diverted(level: int = logging.WARNING) -> Iterator[list[logging.LogRecord]]:
    """Collects what the package logs from `level` on instead of letting it be said; anything less goes on its way."""
    log, records = logging.getLogger("mil"), list[logging.LogRecord]()
    handlers, propagate = log.handlers, log.propagate
    log.handlers, log.propagate = [_Diverted(records, level, handlers)], False
    try:
        yield records
    finally:
        log.handlers, log.propagate = handlers, propagate


class _Diverted(logging.Handler):
    def __init__(self, records: list[logging.LogRecord], least: int, others: list[logging.Handler]) -> None:
        super().__init__()
        self.records, self.least, self.others = records, least, others

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= self.least:
            self.records.append(record)
            return
        for other in self.others:
            other.handle(record)


def finding_of(record: logging.LogRecord) -> Finding:
    """A warning that was logged; its first number is how often."""
    said = record.args if isinstance(record.args, tuple) else ()
    count = next((one for one in said if isinstance(one, int)), 1)
    return Finding("warning", record.name.rpartition(".")[2], record.getMessage(), count)
