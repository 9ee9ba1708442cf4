"""Errors of memory that has run out, from every library that allocates, as one error with what was needed."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mil.errors import ResourceError

GIB = 2**30
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": GIB, "TiB": 2**40, "PiB": 2**50}
_AMOUNT = re.compile(r"allocate ([\d.]+)\.? (bytes|[KMGTP]iB)")
_WORDS = ("can't allocate memory", "out of memory", "Unable to allocate", "Cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python, numpy, torch or the system says that memory ran out."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _WORDS)


def described(error: BaseException) -> str:
    """Return how much memory could not be had, in GiB where the library says it."""
    amount = _AMOUNT.search(str(error))
    if amount is None:
        return "out of memory"
    needed = float(amount[1].rstrip(".")) * _UNITS[amount[2]] / GIB
    return f"out of memory: {needed:.2g} GiB more are needed than are free"


@contextmanager
def enough_for(subject: Callable[[], str], hint: str = "") -> Iterator[None]:
    """Say what needed the memory, and what to do.

    Args:
        subject: Called where memory ran out; what was being done, or with which slides.
        hint: What needs less memory.

    Raises:
        ResourceError: Memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(f"{subject()}: {described(error)}{f'; {hint}' if hint else ''}") from error
