"""A line on stderr that shows how far long work has come, with its rate and the time left; only on a terminal."""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mil import progress

AFTER = 1.0
"""Seconds that a step takes before it is shown: what is done at once needs no bar."""
_REDRAWN = 0.1
"""Seconds for which a line stays."""
_WIDTH = 24
"""Characters of the bar."""
_CLEARED = "\r\x1b[K"
"""Moves a terminal's cursor to the begin of the line and empties it."""


class Bar:
    """Draws the step that was reported last, below everything that is printed."""

    def __init__(self) -> None:
        """Start with nothing drawn."""
        self._began: dict[str, tuple[float, int]] = {}
        self._drawn_at = 0.0
        self._is_drawn = False

    def __call__(self, step: str, done: int, total: int) -> None:
        """Draw a step, a few times a second, and take the line away where it is done."""
        now = time.monotonic()
        if done >= total:
            self._began.pop(step, None)
            self.clear()
            return
        began, first = self._began.setdefault(step, (now, done))
        if done < first:  # the same step of another fold or section
            began, first = self._began[step] = (now, done)
        if now - began >= AFTER and now - self._drawn_at >= _REDRAWN:
            self._drawn_at, self._is_drawn = now, True
            columns = shutil.get_terminal_size().columns
            sys.stderr.write(f"{_CLEARED}{line(step, done, total, now - began, done - first, columns)}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away, if one is drawn."""
        if self._is_drawn:
            self._is_drawn = False
            sys.stderr.write(_CLEARED)
            sys.stderr.flush()


def line(step: str, done: int, total: int, seconds: float, lately: int, columns: int) -> str:
    """Return a line that fits into the terminal: step, bar, counts, rate and time left.

    Args:
        step: Name of the step.
        done: Items that are done.
        total: All items.
        seconds: Since the step was first reported.
        lately: Items that were done since.
        columns: Of the terminal.
    """
    filled = _WIDTH * done // max(total, 1)
    counts = f"{done} of {total}"
    if lately > 0 and seconds > 0:
        rate = lately / seconds
        pace = f"{rate:.1f} a second" if rate >= 1 else f"{1 / rate:.1f} s each"
        counts += f", {pace}, {_duration((total - done) / rate)} left"
    long = f"{step}  {'━' * filled}{'╌' * (_WIDTH - filled)}  {counts}"
    return (long if len(long) < columns else f"{step}  {counts}")[: columns - 1]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


_bar = Bar()


def clear() -> None:
    """Make room for a line that is printed."""
    _bar.clear()


@contextmanager
def shown() -> Iterator[None]:
    """Show the progress of everything within, if standard error is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    try:
        with progress.listening(_bar):
            yield
    finally:
        clear()
