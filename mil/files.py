"""Files that are written completely or not at all."""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mil import storage

_FLAT, _BREAK = re.compile(r"\[\n\s*([^\[\]{}]*?)\n\s*\]"), re.compile(r"\n\s*")
LOCK = ".lock"
_UNFINISHED = ".mil-unfinished"
_RUN_FILES = (
    r"(?:predictions|baseline|covariates|patients|split|oracle|metrics|skipped)\.csv|(?:report|looks|inputs|fitted|manifest)"
    r"\.json|config\.yaml|(?:report|model_card)\.html|README\.md|weights\.safetensors|(?:last|previous)\.ckpt"
)
_TEMPORARY = re.compile(rf"\..+\.[a-z0-9_]{{8}}{re.escape(_UNFINISHED)}|\.(?:{_RUN_FILES})\.[a-z0-9_]{{8}}")
"""Names of temporary files of `write`, today's and those of version 0.1, which had no ending: no name that somebody
gives a file, such as `.env.template`."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


def write(path: Path, content: bytes | str) -> None:
    """Write to a temporary file, sync it, then rename it: a killed process leaves the old file or none.

    A symbolic link is written through: it stays, and the file that it names is replaced.

    Raises:
        OSError: As the system says, with the name of the file.
    """
    path = path.resolve() if path.is_symlink() else path
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:60]}.", suffix=_UNFINISHED)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        settle(path.parent)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file or folder that is written in errors that do not, and its folder where the disk is full.

    Raises:
        OSError: As raised within, with a file name.
    """
    try:
        yield
    except OSError as error:
        is_full = error.errno in _FULL or "No space left" in str(error)
        if is_full:
            raise OSError(error.errno or errno.ENOSPC, _full_disk(path), str(path)) from error
        unnamed = error.filename is None or _TEMPORARY.fullmatch(Path(os.fsdecode(error.filename)).name)
        if unnamed and error.errno is not None:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def _full_disk(path: Path) -> str:
    folder = next((parent for parent in (path, *path.parents) if parent.is_dir()), Path())
    try:
        free = f"{shutil.disk_usage(folder).free / 2**20:.0f} MiB free"
    except OSError:
        free = "its free space is unknown"
    return f"No space left on the disk, or in the quota, of the folder {folder} ({free})"


def clean(folder: Path) -> None:
    """Remove what killed writes have left in a folder and the folders in it; only for who holds its lock."""
    for place, _, names in os.walk(folder):
        for name in filter(_TEMPORARY.fullmatch, names):
            Path(place, name).unlink(missing_ok=True)


def settle(folder: Path) -> None:
    """Sync a folder, so that a renamed file keeps its name after a crash."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, content: Any, indent: int = 2) -> None:
    """Write a JSON document with `write`, a line for each value except in lists of numbers or words.

    Raises:
        ValueError: A number is not finite.
    """
    indented = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
    # a line break in JSON stands between values, never inside a string
    write(path, _FLAT.sub(lambda match: f"[{_BREAK.sub(' ', match[1])}]", indented) + "\n")


def sha256(path: Path) -> str:
    """Return the digest of a file, read again where the storage fails.

    Raises:
        MilError: The storage fails each time, or the path is a pipe or a device.
        OSError: There is no such file, or it may not be read.
    """
    return storage.retried(lambda: _digest(path), path)


def _digest(path: Path) -> str:
    storage.check_kind(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Lock a folder for this process; yield false where another process holds it, or has just removed it.

    Raises:
        ConfigError: A pipe, a folder or the like lies in the place of the lock.
    """
    path = folder / LOCK
    storage.check_kind(path, expected="a file to lock")
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            # the holder before may have removed the folder between opening and locking
            yield path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, read as `storage.read_bytes`."""
    return json.loads(storage.read_bytes(path))
