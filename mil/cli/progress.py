"""Progress bars, on stderr and only where a person sees them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mil.features.packing import Progress as Advance


@contextmanager
def bars() -> Iterator[Advance]:
    """Bars for things that are done one after another, each under its name."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    # drawn by who advances them, not by a thread: processes are forked meanwhile
    with Progress(
        *columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), auto_refresh=False, transient=True
    ) as bar:

        def advance(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(step, total=total)
            bar.update(tasks[step], completed=done, refresh=True)

        yield advance
