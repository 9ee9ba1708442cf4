"""Calls in separate processes: a foreign file can crash the process that reads it, or block it for ever."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection, wait
from typing import Generic, TypeVar, cast

import torch

from mil.errors import MilError

Progress = Callable[[int, int], None]
"""Called with how many slides are done, of how many."""
T = TypeVar("T")


def map_in_processes(
    slides: Sequence[str],
    function: Callable[[str], T],
    failed: Callable[[str, str], T],
    workers: int = 2,
    progress: Progress | None = None,
    seconds: float | None = None,
) -> dict[str, T]:
    """Return what `function` returns for each slide, in the order of the slides.

    Args:
        slides: Ids of the slides.
        function: Called in another process; it and its results must be picklable. A `MilError` that it raises is
            raised here.
        failed: Called with the slide and the reason where the process dies or exceeds the time limit.
        workers: Number of processes.
        progress: Called after each slide.
        seconds: Time limit for one slide; None sets none.
    """
    results: dict[str, T] = {}
    count = min(max(1, workers), len(slides))
    everyone = [_Worker(function, slides[start::count], seconds) for start in range(count)]
    running = everyone
    try:
        while running:
            for worker in _ready(running):
                slide = worker.slides.popleft()
                results[slide] = worker.result(failed, slide)
                if progress is not None:
                    progress(len(results), len(slides))
            running = [worker for worker in running if worker.slides]
    finally:
        for worker in everyone:
            worker.stop()
    return {slide: results[slide] for slide in slides}


class _Worker(Generic[T]):
    """A process that works through its slides and sends each result as soon as it has it."""

    def __init__(self, function: Callable[[str], T], slides: Sequence[str], seconds: float | None) -> None:
        self.function = function
        self.slides = deque(slides)
        self.seconds = seconds
        self._start()

    def _start(self) -> None:
        self.connection, theirs = Pipe(duplex=False)
        self.process = Process(target=_work, args=(theirs, self.function, list(self.slides)))
        self.process.start()
        theirs.close()  # so that the end of the process ends the connection
        self.deadline = self._deadline()

    def _deadline(self) -> float | None:
        return None if self.seconds is None else time.monotonic() + self.seconds

    def result(self, failed: Callable[[str, str], T], slide: str) -> T:
        """Return the result for `slide`; where there is none, start another process for the remaining slides."""
        reason = f"reading it takes longer than {self.seconds} s"
        if self.connection.poll():
            reason = "the process that reads it dies"
            with suppress(EOFError, ConnectionError):
                result, error = self.connection.recv()
                if error is not None:
                    raise error
                self.deadline = self._deadline()
                return cast(T, result)
        self.stop()
        if self.slides:
            self._start()
        return failed(slide, reason)

    def stop(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def _ready(workers: Sequence[_Worker[T]]) -> list[_Worker[T]]:
    """Wait for a worker that has a result, has died, or is past its deadline."""
    deadlines = [worker.deadline for worker in workers if worker.deadline is not None]
    timeout = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
    connections = wait([worker.connection for worker in workers], timeout)
    now = time.monotonic()
    late = [worker for worker in workers if worker.deadline is not None and worker.deadline <= now]
    return [worker for worker in workers if worker.connection in connections or worker in late]


def _work(connection: Connection, function: Callable[[str], T], slides: Sequence[str]) -> None:
    torch.set_num_threads(1)  # a forked process does not have its parent's threads, which torch would wait for
    for slide in slides:
        try:
            connection.send((function(slide), None))
        except MilError as error:
            connection.send((None, error))
            return
