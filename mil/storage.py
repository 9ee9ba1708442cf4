"""Reads of files and folders: storage that fails for a while is asked again, and nothing waits for ever.

Network file systems answer with an input/output error, a stale handle or a timeout while a server restarts: such a read
is repeated a few times with longer and longer waits. Where a server does not answer at all, or a table takes too long
to parse, a time limit ends the wait; for features it grows with their size. What is wrong with the file itself is not
repeated. Pipes, devices and sockets are refused before they are opened.
"""

import ctypes
import errno
import gzip
import logging
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar, cast

from mil.errors import ConfigError, MilError

logger = logging.getLogger(__name__)
WAITS = (0.5, 2.0, 5.0)
"""Seconds before the second, third and fourth attempt; the header of a feature file has 20 s for all of them."""
SECONDS = 300.0
"""Time limit for listing a folder, for reading a table or another small file, and for parsing a table.

The largest table that `mil.tables` accepts takes about a minute.
"""
SLOWEST = 2**20
"""Bytes a second that storage for features has at least; a bag of 4 GB may take an hour."""
PASSING = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENOTCONN, errno.ECONNRESET})
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_NUMBER = re.compile(r"errno = (\d+)")  # HDF5 says it in its message only
Result = TypeVar("Result")
_readers = threading.local()
_stuck = list[threading.Thread]()


class _AbandonedError(BaseException):
    """Ends work that nobody waits for any more."""


def passing_failure(error: BaseException) -> int | None:
    """Return the number of an error of the storage, such as EIO, that an error or one of its causes has; else None."""
    for cause in _causes(error):
        if isinstance(cause, OSError):
            match = _NUMBER.search(str(cause))
            number = cause.errno or (int(match[1]) if match else None)
            if number in PASSING:
                return number
    return None


def retried(read: Callable[[], Result], path: Path, error: type[MilError] = ConfigError) -> Result:
    """Return what `read` returns, called again after each of `WAITS` where the storage fails.

    Args:
        read: Reads the file or lists the folder.
        path: The file or folder, for messages.
        error: The error that is raised where the storage fails each time.

    Raises:
        error: The storage failed each time; or as `read` raises.
    """
    for wait in (*WAITS, None):
        try:
            return read()
        except (MilError, OSError) as failure:
            number = passing_failure(failure)
            if number is None:
                raise
            reason = os.strerror(number)
            if wait is None:
                raise error(
                    f"{path} cannot be read: {reason}, {len(WAITS) + 1} times in {sum(WAITS):g} s: the storage fails; "
                    "repeat when it is back"
                ) from failure
        logger.warning("%s: %s; it is read again in %g s", path, reason, wait)
        time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def limited(
    work: Callable[[], Result], path: Path, error: type[MilError] = ConfigError, doing: str = "reading it"
) -> Result:
    """Return what `work` returns, or raise an error once it has taken `SECONDS`.

    The work is done in a thread, since nothing interrupts a call of a file system that does not answer; a parser that
    is too slow is ended.

    Args:
        work: Reads or parses a file, or lists a folder.
        path: The file or folder, for messages.
        error: The error that is raised at the limit.
        doing: What takes too long, for the message.

    Raises:
        error: It takes longer; or as `work` raises.
    """
    results, failures = list[Result](), list[BaseException]()
    context = copy_context()

    def run() -> None:
        try:
            results.append(context.run(work))
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run, name=f"reads {path}", daemon=True)
    thread.start()
    thread.join(SECONDS)
    if failures:
        raise failures[0]
    if results:
        return results[0]
    for _ in range(10):  # an exception that lands in a callback of the garbage collector ends nothing
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_AbandonedError))
        thread.join(0.05)
        if not thread.is_alive():
            break
    raise error(f"{path} cannot be read: {doing} takes longer than {SECONDS:g} s")


def answered(read: Callable[[], Result], path: Path, error: type[MilError] = ConfigError, size: int = 0) -> Result:
    """Return what `read` returns: read again where the storage fails, given up where it does not answer.

    For what is read very often, such as bags in training: where `limited` starts a thread, this asks one that waits.

    Args:
        read: Reads from the file.
        path: The file, for messages.
        error: The error that is raised where the storage fails each time, or does not answer.
        size: Bytes that are read, for which storage has a second for each `SLOWEST` of them besides `SECONDS`.

    Raises:
        error: The storage failed each time, or has not answered in time; or as `read` raises.
    """
    reader = getattr(_readers, "reader", None)
    if reader is None or reader.process != os.getpid():  # a forked process has none of its parent's threads
        reader = _readers.reader = _Reader()
    seconds = SECONDS + size / SLOWEST
    try:
        return reader.ask(lambda: retried(read, path, error), seconds)
    except _NoAnswerError:
        _stuck.append(reader.thread)
        raise error(f"{path} cannot be read: the storage has not answered for {seconds:g} s") from None
    finally:
        if not reader.is_free:  # its answer is of no use any more
            reader.dismiss()
            _readers.reader = None


def has_stuck() -> bool:
    """Return whether a thread waits for storage that does not answer; a process with one does not end by itself.

    It may hold the lock of the HDF5 library, which the end of the interpreter waits for.
    """
    return any(thread.is_alive() for thread in _stuck)


class _NoAnswerError(Exception):
    """The time limit is over."""


class _Reader:
    """A thread that reads when it is asked to.

    Attributes:
        process: Id of the process that it belongs to.
        thread: The thread.
        is_free: Whether it has answered what it was asked.
    """

    def __init__(self) -> None:
        self.process, self.is_free = os.getpid(), True
        self._tasks = SimpleQueue[Callable[[], object] | None]()
        self._answers = SimpleQueue[tuple[object, BaseException | None]]()
        self.thread = threading.Thread(target=self._work, name="reads features", daemon=True)
        self.thread.start()

    def ask(self, work: Callable[[], Result], seconds: float) -> Result:
        """Return what `work` returns.

        Raises:
            _NoAnswerError: It takes longer.
        """
        context, self.is_free = copy_context(), False
        self._tasks.put(lambda: context.run(work))
        try:
            result, failure = self._answers.get(timeout=seconds)
        except Empty:
            raise _NoAnswerError from None
        self.is_free = True
        if failure is not None:
            raise failure
        return cast(Result, result)

    def dismiss(self) -> None:
        """Let the thread end once it has an answer."""
        self._tasks.put(None)

    def _work(self) -> None:
        while (work := self._tasks.get()) is not None:
            answer: tuple[object, BaseException | None]
            try:
                answer = work(), None
            except BaseException as failure:
                answer = None, failure
            self._answers.put(answer)
            del work, answer  # features may take gigabytes


def read_bytes(
    path: Path, error: type[MilError] = ConfigError, most: int | None = None, is_packed: bool = False
) -> bytes:
    """Return the content of a file, read again where the storage fails, within the time limit.

    Args:
        path: The file.
        error: The error that is raised where the path is no file, or the storage fails or does not answer.
        most: Number of bytes after which reading ends; None reads all.
        is_packed: Whether the content is packed by gzip; it is unpacked.

    Raises:
        error: It is a pipe, a device, a socket or a folder; or the storage fails.
        OSError: There is no such file, or it may not be read.
    """

    def read() -> bytes:
        check_kind(path, error)
        with gzip.open(path) if is_packed else path.open("rb") as file:
            return bytes(file.read(-1 if most is None else most))

    return limited(lambda: retried(read, path, error), path, error)


def read_text(path: Path, error: type[MilError] = ConfigError) -> str:
    """Return the text of a UTF-8 file; errors as in `read_bytes`.

    Raises:
        UnicodeDecodeError: It is something else.
    """
    return read_bytes(path, error).decode("utf-8").replace("\r\n", "\n")


def entries(folder: Path, error: type[MilError] = ConfigError) -> list[Path]:
    """Return what lies in a folder, sorted; listed again where the storage fails, within the time limit.

    Raises:
        error: The storage fails or does not answer.
        OSError: There is no such folder, or it may not be listed.
    """
    return limited(lambda: retried(lambda: sorted(folder.iterdir()), folder, error), folder, error, "listing it")


def walked(root: Path, follow: bool = False) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield the folders below `root` as `os.walk`, which leaves out folders that it cannot list without a word.

    A folder that may not be listed is left out with a warning.

    Raises:
        OSError: The storage fails.
    """
    yield from os.walk(root, followlinks=follow, onerror=_failed_listing)


def special_kind(path: Path) -> str | None:
    """Return what a path is if it is no regular file, such as `a pipe`; None for a file and for nothing at all.

    Opening a pipe would wait for ever, and a device may never end.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), None)


def check_kind(path: Path, error: type[MilError] = ConfigError, expected: str = "a file") -> None:
    """Check that a path is no pipe, which would be waited for for ever, and no socket, device or folder.

    Raises:
        error: It is one of these.
    """
    if (kind := special_kind(path)) is not None:
        raise error(f"{path}: cannot be read: it is {kind}, expected {expected}")


def _failed_listing(error: OSError) -> None:
    if not isinstance(error, PermissionError):
        raise error
    logger.warning("%s: this folder may not be listed, so its files are left out", error.filename)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
