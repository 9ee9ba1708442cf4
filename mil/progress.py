"""How far long work has come: library code counts its steps, and whoever listens shows them.

Nobody listens by default, so that a notebook, a pipe and a test see nothing; the command line listens where its
standard error is a terminal (`mil.cli.progress_bar`).
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

Listener = Callable[[str, int, int], None]
"""Called with the name of a step, how many of its items are done, and of how many."""
T = TypeVar("T")


@dataclass
class _State:
    """Who listens; processes that are forked do not, they would draw over their parent.

    Attributes:
        listener: The listener.
        owner: Its process.
    """

    listener: Listener | None = None
    owner: int = 0


_state = _State()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Report every step to a listener, within this process."""
    earlier = (_state.listener, _state.owner)
    _state.listener, _state.owner = listener, os.getpid()
    try:
        yield
    finally:
        _state.listener, _state.owner = earlier


def advance(step: str, done: int, total: int) -> None:
    """Report how far a step has come.

    Args:
        step: What is done, such as `reading headers`; the same words from its begin to its end.
        done: Number of items that are done.
        total: Number of all items.
    """
    if _state.listener is not None and _state.owner == os.getpid():
        _state.listener(step, done, total)


def counted(items: Iterable[T], step: str, total: int) -> Iterator[T]:
    """Yield items and report each as done once the next one is asked for.

    Args:
        items: What is worked through.
        step: What is done with each.
        total: Number of items.
    """
    advance(step, 0, total)
    for number, item in enumerate(items, start=1):
        yield item
        advance(step, number, total)
