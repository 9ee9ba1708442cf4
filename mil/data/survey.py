"""Many files' headers at once, in processes of their own: a foreign file may end the process that reads it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from mil.data.formats import Header, Reading, examine
from mil.errors import FeatureError

Progress = Callable[[int, int], None]
"""Called with how many files were read, of how many."""
Found = tuple[str, Header] | FeatureError
"""A file's layout and header, or what is wrong with it."""

FEW = 200
"""So many files are read sooner than processes start."""
_CHUNK = 32


def survey(
    paths: Mapping[str, Path], asked: Reading, workers: int = 2, progress: Progress | None = None
) -> dict[str, Found]:
    """What each slide's file says of itself, in the order of `paths`; a broken file is an error in its place."""
    found: dict[str, Found] = {}
    rounds = _alone(paths, asked) if workers < 2 or len(paths) < FEW else _together(paths, asked, workers)
    for part in rounds:
        found.update(part)
        if progress is not None:
            progress(len(found), len(paths))
    return {slide: found[slide] for slide in paths}


def _alone(paths: Mapping[str, Path], asked: Reading) -> Iterator[dict[str, Found]]:
    for slide, path in paths.items():
        yield {slide: _examined(path, asked)}


def _together(paths: Mapping[str, Path], asked: Reading, workers: int) -> Iterator[dict[str, Found]]:
    slides = list(paths)
    chunks = [slides[start : start + _CHUNK] for start in range(0, len(slides), _CHUNK)]
    jobs: dict[Future[list[Found]], list[str]] = {}
    lost: list[str] = []
    with ProcessPoolExecutor(workers) as pool:
        for chunk in chunks:
            try:
                jobs[pool.submit(_all_examined, [paths[slide] for slide in chunk], asked)] = chunk
            except BrokenProcessPool:
                lost += chunk
        for job in as_completed(jobs):
            try:
                yield dict(zip(jobs[job], job.result(), strict=True))
            except BrokenProcessPool:
                lost += jobs[job]
    yield from _one_by_one({slide: paths[slide] for slide in lost}, asked)


def _one_by_one(paths: Mapping[str, Path], asked: Reading) -> Iterator[dict[str, Found]]:
    """Files of which one ended the process that read it, and so all that were waiting: each is judged for itself."""
    waiting = list(paths)
    while waiting:
        with ProcessPoolExecutor(1) as pool:
            for slide in waiting.copy():
                waiting.remove(slide)
                try:
                    yield {slide: pool.submit(_examined, paths[slide], asked).result()}
                except BrokenProcessPool:
                    yield {slide: FeatureError(f"{paths[slide]} cannot be read: the process that reads it dies")}
                    break


def _all_examined(paths: Sequence[Path], asked: Reading) -> list[Found]:
    return [_examined(path, asked) for path in paths]


def _examined(path: Path, asked: Reading) -> Found:
    try:
        return examine(path, asked)
    except FeatureError as error:
        return error
