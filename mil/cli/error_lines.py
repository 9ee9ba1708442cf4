"""Errors as one line for the terminal."""


def one_line(error: Exception) -> str:
    """Return the message of an error in one line.

    A worker process puts its traceback before the message; it is cut off.
    """
    if isinstance(error, OSError):  # a folder that cannot be written, a full disk
        return f"{error.filename or 'file'}: {error.strerror or error}"
    kind = type(error)
    return " ".join(str(error).rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].split())
