"""Progress bars on stderr, shown only on a terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mil.features.packing import Progress as Advance


@contextmanager
def bars() -> Iterator[Advance]:
    """Yield a callback that shows a progress bar for each step by its name."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    # drawn by the caller rather than a thread: processes are forked meanwhile
    with Progress(
        *columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), auto_refresh=False, transient=True
    ) as bar:

        def advance(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(step, total=total)
            bar.update(tasks[step], completed=done, refresh=True)

        yield advance
