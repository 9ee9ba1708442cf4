"""What a user is told of an error: one line."""


def told(error: Exception) -> str:
    """The error in one line.

    A worker process wraps what it raises in its own traceback; the user's error is the end of it.
    """
    if isinstance(error, OSError):  # a folder that cannot be written, a full disk
        return f"{error.filename or 'file'}: {error.strerror or error}"
    kind = type(error)
    return " ".join(str(error).rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].split())
