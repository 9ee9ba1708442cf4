"""Errors as one line for the terminal."""

import shutil

from mil.errors import MilError, printable
from mil.memory import described, is_out_of_memory

TRACEBACK = "MIL_TRACEBACK"
"""Environment variable that has the traceback of every error printed."""


def one_line(error: Exception) -> str:
    r"""Return the message of an error in one line.

    A worker process puts its traceback before the message; it is cut off. Line breaks and control characters, which may
    come from the name of a file, are shown as `\n` and `\x1b`.
    """
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):  # of a folder that is copied
        _, target, reason = error.args[0][0]
        return printable(f"{target}: {reason}")
    if isinstance(error, OSError) and not is_out_of_memory(error):  # a folder that cannot be written, a full disk
        return printable(f"{error.filename or 'file'}: {error.strerror or error}")
    if isinstance(error, OSError | MemoryError | RuntimeError) and is_out_of_memory(error):
        return f"{described(error)}; fewer data.workers, or smaller bags (data.max_tiles), need less"
    kind = type(error)
    message = str(error).rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].strip()
    return printable(message if isinstance(error, MilError) else " ".join(message.split()))


def unexpected(error: Exception) -> str:
    """Return the line for an error that nobody foresaw: its class, its place and its message."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = "" if frame is None else f" in {frame.tb_frame.f_globals.get('__name__', '?')}, line {frame.tb_lineno}"
    message = printable(" ".join(str(error).split())[:400])
    return (
        f"unexpected {type(error).__name__}{where}: {message}; this is a fault of mil or of a library: please report "
        f"it with the traceback that {TRACEBACK}=1 shows"
    )
