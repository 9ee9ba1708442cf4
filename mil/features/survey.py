"""Headers of many files, read in separate processes and within a time limit for each file."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from mil.errors import FeatureError
from mil.features.formats import Header, Reading, examine
from mil.features.processes import Progress, map_in_processes
from mil.storage import retried

Examined = tuple[str, Header] | FeatureError
"""A file's layout and header, or what is wrong with it."""

SECONDS = 20.0
"""Time limit for the header of one file."""
FILES_OF_A_PROCESS = 40
"""A further process is started for so many files: to start one takes longer than to read a few headers."""


def survey(
    paths: Mapping[str, Path],
    reading: Reading,
    workers: int = 2,
    progress: Progress | None = None,
    seconds: float = SECONDS,
    slide_mpps: Mapping[str, float] | None = None,
) -> dict[str, Examined]:
    """Return the layout and header of each slide's file, in the order of `paths`; an error in place of a broken one.

    Single slides may have a resolution of their own, `slide_mpps`, before that of `reading`.

    The HDF5 library (2.0) never returns from reading a text attribute whose heap is broken in a certain way, so no
    header is read in the calling process.
    """
    workers = min(workers, -(-len(paths) // FILES_OF_A_PROCESS))
    examine_one = partial(_examine, paths, reading, slide_mpps or {})
    return map_in_processes(list(paths), examine_one, partial(_failed, paths), workers, progress, seconds)


def reading_of(reading: Reading, slide_mpps: Mapping[str, float], slide: str) -> Reading:
    """Return the options for the file of one slide: its own resolution, where it has one."""
    return replace(reading, slide_mpp=slide_mpps[slide]) if slide in slide_mpps else reading


def _examine(paths: Mapping[str, Path], reading: Reading, slide_mpps: Mapping[str, float], slide: str) -> Examined:
    try:
        return retried(
            lambda: examine(paths[slide], reading_of(reading, slide_mpps, slide)), paths[slide], FeatureError
        )
    except FeatureError as error:
        return error


def _failed(paths: Mapping[str, Path], slide: str, reason: str) -> FeatureError:
    return FeatureError(f"{paths[slide]} cannot be read: {reason}")
