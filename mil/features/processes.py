"""Many slides judged in processes of their own: a foreign file may end the process that reads it."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import torch

Progress = Callable[[int, int], None]
"""Called with how many were read, of how many."""
T = TypeVar("T")
_CHUNKS = 64  # what judges carries the store along, and is sent to a process with each


def judged(
    slides: Sequence[str],
    judge: Callable[[str], T],
    died: Callable[[str], T],
    workers: int = 2,
    progress: Progress | None = None,
) -> dict[str, T]:
    """What `judge` says of each slide, in their order; `died` speaks for one whose process does not come back.

    Args:
        slides: Their ids.
        judge: Called in another process; it and what it gives can be pickled.
        died: Called here.
        workers: Processes.
        progress: Is told how many slides are done, of how many.
    """
    found: dict[str, T] = {}
    for part in _together(slides, judge, died, max(1, workers)):
        found |= part
        if progress is not None:
            progress(len(found), len(slides))
    return {slide: found[slide] for slide in slides}


def _together(
    slides: Sequence[str], judge: Callable[[str], T], died: Callable[[str], T], workers: int
) -> Iterator[dict[str, T]]:
    size = max(1, -(-len(slides) // _CHUNKS))
    chunks = [slides[start : start + size] for start in range(0, len(slides), size)]
    jobs: dict[Future[list[T]], Sequence[str]] = {}
    lost: list[str] = []
    with _pool(workers) as pool:
        for chunk in chunks:
            try:
                jobs[pool.submit(_all, judge, chunk)] = chunk
            except BrokenProcessPool:
                lost += chunk
        for job in as_completed(jobs):
            try:
                yield dict(zip(jobs[job], job.result(), strict=True))
            except BrokenProcessPool:
                lost += jobs[job]
    yield from _one_by_one(lost, judge, died)


def _one_by_one(slides: Sequence[str], judge: Callable[[str], T], died: Callable[[str], T]) -> Iterator[dict[str, T]]:
    """Of these slides one ended its process, and so all that were waiting: each is judged for itself."""
    waiting = list(slides)
    while waiting:
        with _pool(1) as pool:
            while waiting:
                slide = waiting.pop(0)
                try:
                    yield {slide: pool.submit(judge, slide).result()}
                except BrokenProcessPool:
                    yield {slide: died(slide)}
                    break


def _pool(workers: int) -> ProcessPoolExecutor:
    # a forked process does not have its parent's threads, which torch would wait for
    return ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))


def _all(judge: Callable[[str], T], slides: Sequence[str]) -> list[T]:
    return [judge(slide) for slide in slides]
