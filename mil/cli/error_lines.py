"""Errors as one line for the terminal."""

from mil.errors import MilError, printable


def one_line(error: Exception) -> str:
    r"""Return the message of an error in one line.

    A worker process puts its traceback before the message; it is cut off. Line breaks and control characters, which may
    come from the name of a file, are shown as `\n` and `\x1b`.
    """
    if isinstance(error, OSError):  # a folder that cannot be written, a full disk
        return printable(f"{error.filename or 'file'}: {error.strerror or error}")
    kind = type(error)
    message = str(error).rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].strip()
    return printable(message if isinstance(error, MilError) else " ".join(message.split()))
