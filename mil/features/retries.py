"""Reads of storage that fails for a while: repeated a few times with longer and longer waits, then named.

Network file systems answer with an input/output error, a stale handle or a timeout while a server restarts. What is
wrong with the file itself is not repeated.
"""

import errno
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from mil.errors import FeatureError

logger = logging.getLogger(__name__)
WAITS = (0.5, 2.0, 5.0)
"""Seconds before the second, third and fourth attempt; the header of a file has 20 s for all of them."""
PASSING = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENOTCONN, errno.ECONNRESET})
_NUMBER = re.compile(r"errno = (\d+)")  # HDF5 says it in its message only
Result = TypeVar("Result")


def passing_failure(error: BaseException) -> int | None:
    """Return the number of an error of the storage, such as EIO, that an error or one of its causes has; else None."""
    for cause in _causes(error):
        if isinstance(cause, OSError):
            match = _NUMBER.search(str(cause))
            number = cause.errno or (int(match[1]) if match else None)
            if number in PASSING:
                return number
    return None


def retried(read: Callable[[], Result], path: Path) -> Result:
    """Return what `read` returns, called again after each of `WAITS` where the storage fails.

    Args:
        read: Reads the file.
        path: The file, for messages.

    Raises:
        FeatureError: The storage failed each time; or as `read` raises.
    """
    for wait in (*WAITS, None):
        try:
            return read()
        except (FeatureError, OSError) as error:
            number = passing_failure(error)
            if number is None:
                raise
            reason = os.strerror(number)
            if wait is None:
                raise FeatureError(
                    f"{path} cannot be read: {reason}, {len(WAITS) + 1} times in {sum(WAITS):g} s: the storage fails; "
                    "repeat when it is back"
                ) from error
        logger.warning("%s: %s; it is read again in %g s", path, reason, wait)
        time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
