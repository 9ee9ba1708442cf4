"""What shows that a feature file is no longer what it was: size, time of modification, and a digest of samples."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

SAMPLES, SAMPLE_BYTES = 16, 4096
"""How many pieces of a file are read, evenly from its first to its last bytes, and their size."""


class State(NamedTuple):
    """What the system says of a file; of a folder the sum of its files' bytes, and their latest times."""

    size: int
    """bytes"""
    modified: int
    """time of the last modification, in nanoseconds; a copy may keep it"""
    changed: int
    """time of the last change of content, name, owner or rights, in nanoseconds; nobody can set it"""

    def shows_change(self, later: "State") -> bool:
        """Return whether the file was certainly changed; a later `changed` alone may be of rights or of a link."""
        return (self.size, self.modified) != (later.size, later.modified)


@dataclass(frozen=True)
class Fingerprint:
    """What a file was like at some time.

    Attributes:
        size: Bytes.
        modified: Time of the last modification, in nanoseconds.
        sha256: Digest of samples of the content, or of the whole content where a digest is stored.
    """

    size: int
    modified: int
    sha256: str

    def has_same_content(self, later: "Fingerprint") -> bool:
        """Return whether size and digest agree; times also change where a file is copied."""
        return (self.size, self.sha256) == (later.size, later.sha256)


def state_of(path: Path) -> State:
    """Return size and times of a file, or of a folder with all files in it."""
    states = [path.stat()] if not path.is_dir() else [file.stat() for file in _files(path)]
    return State(
        sum(state.st_size for state in states),
        max((state.st_mtime_ns for state in states), default=0),
        max((state.st_ctime_ns for state in states), default=0),
    )


def fingerprint(path: Path) -> Fingerprint:
    """Return the fingerprint of a file, or of a folder such as a zarr store."""
    state = state_of(path)
    hasher = hashlib.sha256()
    if path.is_dir():
        files = _files(path)
        for file in files:
            hasher.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode("utf-8", "surrogateescape"))
        for file in files[:: max(1, len(files) // SAMPLES)]:
            _sample(hasher, file, 1)
    else:
        _sample(hasher, path, SAMPLES)
    return Fingerprint(state.size, state.modified, hasher.hexdigest())


def _files(folder: Path) -> list[Path]:
    return sorted(Path(place, name) for place, _, names in os.walk(folder) for name in names)


def _sample(hasher: "hashlib._Hash", path: Path, samples: int) -> None:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= samples * SAMPLE_BYTES:
            hasher.update(file.read())
            return
        for number in range(samples):
            file.seek((size - SAMPLE_BYTES) * number // max(1, samples - 1))
            hasher.update(file.read(SAMPLE_BYTES))
