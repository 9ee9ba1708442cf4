"""Names of files and folders for patients and slides, whose ids may hold anything."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable

LONGEST = 80
"""Characters of an id that its file name keeps."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_RESERVED = re.compile(r"(?:index|con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)
"""The page that lists cases, and names that Windows does not allow."""


def file_names(ids: Iterable[str]) -> dict[str, str]:
    """Return a name without an ending for each id: letters, digits, - and _, different also where case is ignored.

    An id of such characters is its own name; any other has a digest at its end, so that no two ids share a name and
    none leads out of a folder.
    """
    listed = list(dict.fromkeys(ids))
    plain = {each: _UNSAFE.sub("_", each).lstrip("-")[:LONGEST] or "_" for each in listed}
    counts = Counter(name.casefold() for name in plain.values())
    return {each: name if _is_own(each, name, counts) else f"{name}-{_digest(each)}" for each, name in plain.items()}


def file_name(id_: str) -> str:
    """Return the name for a single id, see `file_names`."""
    return file_names([id_])[id_]


def _is_own(id_: str, name: str, counts: Counter[str]) -> bool:
    return name == id_ and counts[name.casefold()] == 1 and not _RESERVED.fullmatch(name)


def _digest(id_: str) -> str:
    return hashlib.sha256(id_.encode()).hexdigest()[:8]
