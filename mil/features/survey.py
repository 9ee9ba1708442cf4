"""Many files' headers at once, in processes of their own: a foreign file may end the process that reads it."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from mil.errors import FeatureError
from mil.features.formats import Header, Reading, examine
from mil.features.processes import Progress, judged

Found = tuple[str, Header] | FeatureError
"""A file's layout and header, or what is wrong with it."""

FEW = 200
"""So many files are read sooner than processes start."""


def survey(
    paths: Mapping[str, Path], asked: Reading, workers: int = 2, progress: Progress | None = None
) -> dict[str, Found]:
    """What each slide's file says of itself, in the order of `paths`; a broken file is an error in its place."""
    if workers >= 2 and len(paths) >= FEW:
        return judged(list(paths), partial(_examined, paths, asked), partial(_died, paths), workers, progress)
    found: dict[str, Found] = {}
    for slide in paths:
        found[slide] = _examined(paths, asked, slide)
        if progress is not None:
            progress(len(found), len(paths))
    return found


def _examined(paths: Mapping[str, Path], asked: Reading, slide: str) -> Found:
    try:
        return examine(paths[slide], asked)
    except FeatureError as error:
        return error


def _died(paths: Mapping[str, Path], slide: str) -> Found:
    return FeatureError(f"{paths[slide]} cannot be read: the process that reads it dies")
