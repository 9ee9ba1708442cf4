"""Train folds side by side: each process has its share of the threads, the memory, the reading processes and the GPUs.

The processes are fresh interpreters. A fork would share the features that are in memory, but a fork of a process that
has used OpenMP or CUDA may hang; so the page cache is what the processes share.
"""

import logging
import logging.handlers
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess, parent_process
from typing import cast

import torch

from mil import files, interruption
from mil.errors import ConfigError, MilError, ResourceError
from mil.interruption import Interrupted
from mil.splits.folds import Split
from mil.study import build, trusted_classes
from mil.study.run_config import RunConfig
from mil.study.study import Study
from mil.training.fit import fit
from mil.training.fold import Fold
from mil.training.ranks import LostRankError, Ranks

logger = logging.getLogger(__name__)
GIB = 2**30
_SAVING_SECONDS = 60
"""How long a process has to save its state after a signal, before it is killed."""
_SPAWN = get_context("spawn")


@dataclass(frozen=True)
class Share:
    """What one of several processes may use.

    Attributes:
        threads: Threads of torch.
        memory: Bytes of features that stay in memory.
        readers: Processes that read ahead.
        gpu: The GPU, as it is written in `CUDA_VISIBLE_DEVICES`; None leaves all visible.
        ranks: Where the processes train one model together, which of them this is; else None.
        address: Where these processes meet, a URL for `Ranks.join`.
    """

    threads: int
    memory: int
    readers: int
    gpu: str | None = None
    ranks: Ranks | None = None
    address: str = ""


@dataclass(frozen=True)
class FoldTask:
    """A fold to train, with everything that this takes; the configuration in plain values, which can be sent."""

    values: Mapping[str, object]
    study: Study
    split: Split
    fold: Fold
    name: str = ""
    """before each line of its log; empty where nothing else is trained at the same time"""
    predict: bool = True
    """whether the fold is also predicted; if not, the same task with True does that"""


@dataclass(frozen=True)
class FoldOutcome:
    """How a fold ended: trained, with an error, or stopped by a signal."""

    error: Exception | None = None
    stopped_by: int | None = None

    def raise_if_unfinished(self) -> None:
        """Raise as the fold ended; nothing where it is trained.

        Raises:
            MilError: An error in features or training.
            Interrupted: A signal has stopped it.
        """
        if self.error is not None:
            raise self.error
        if self.stopped_by is not None:
            raise Interrupted(self.stopped_by)


def fit_side_by_side(
    config: RunConfig,
    study: Study,
    split: Split,
    folds: Mapping[str, Fold],
    ahead: "StartedAhead",
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Train folds as `fit` does, up to `config.parallel` of them at the same time.

    The weights are those of training the folds one after the other with the same number of threads, to the bit.

    Args:
        config: All options.
        study: The patients.
        split: Roles of the patients in each fold.
        folds: The folds that are not finished, by what the log calls them, such as "fold 2 of 5".
        ahead: Processes that were started while the cohort was read.
        meanwhile: Is called once, as soon as a process has nothing left to do.

    Raises:
        MilError: The first error of a fold; the others have saved their state.
        ResourceError: A process was killed.
        Interrupted: A signal asks to stop; every fold has saved its state.
    """
    workers = ahead.taken(shares(config, min(config.parallel, len(folds))))
    tasks = [FoldTask(config.plain(), study, split, fold, name) for name, fold in folds.items()]
    waiting = _Waiting(tasks, len(workers))
    try:
        running = [worker for worker in workers if worker.give_next(waiting)]
        while running:
            ready = wait([worker.connection for worker in running])
            for worker in [worker for worker in running if worker.connection in ready]:
                if worker.is_done() and not worker.give_next(waiting):
                    running.remove(worker)
                    if len(running) == len(workers) - 1:
                        meanwhile()
    finally:
        for worker in workers:
            worker.ask_to_stop()
        for worker in workers:
            worker.join()


class StartedAhead:
    """Processes that import what training needs while this one still reads the cohort."""

    def __init__(self, config: RunConfig) -> None:
        """Start as many as the folds of the split will need, where the options tell their number."""
        given = config.split.options.keywords()
        folds = config.split.options.folds * config.split.options.repeats if "folds" in given else 1
        count = min(config.parallel, folds)
        self.workers = [Worker(share) for share in shares(config, count)] if count > 1 else []

    def taken(self, needed: Sequence[Share]) -> "list[Worker]":
        """Return processes with these shares: those that were started, if theirs are the same, or else new ones."""
        if [worker.share for worker in self.workers] != list(needed):
            self.stop()
        workers, self.workers = self.workers or [Worker(share) for share in needed], []
        return workers

    def stop(self) -> None:
        """End those that nobody has taken, at once: they have nothing to save."""
        for worker in self.workers:
            worker.join(0)
        self.workers = []


@contextmanager
def started_ahead(config: RunConfig) -> Iterator[StartedAhead]:
    """Start processes, and end those that nobody has taken."""
    ahead = StartedAhead(config)
    try:
        yield ahead
    finally:
        ahead.stop()


class _Waiting:
    """The folds that no process has taken yet.

    Where folds cannot be dealt out evenly, some processes have nothing to train in the end. They then predict the folds
    of all: nobody trains later because a fold is predicted first.
    """

    def __init__(self, tasks: Sequence[FoldTask], workers: int) -> None:
        self._to_train, self._to_predict = deque(tasks), deque[FoldTask]()
        self._predict_later = len(tasks) % workers > 0

    def next(self) -> FoldTask | None:
        """Return a fold to train, or to predict where none is left to train."""
        if self._to_train:
            task = self._to_train.popleft()
            return replace(task, predict=not (self._predict_later and self._to_train))
        return self._to_predict.popleft() if self._to_predict else None

    def trained(self, task: FoldTask) -> None:
        """Take a fold back whose training is over and which has no predictions yet."""
        if not task.predict and not (task.fold.folder / "predictions.csv").exists():
            self._to_predict.append(replace(task, predict=True))


def shares(config: RunConfig, processes: int) -> list[Share]:
    """Return what each of so many processes may use: equal parts; GPUs are dealt out in turn."""
    threads = max(1, torch.get_num_threads() // processes)
    memory = config.data.memory * GIB // processes
    readers = build.workers(config)
    if config.data.workers is None:
        readers //= processes
    accelerator = config.trainer.options.keywords().get("accelerator", "auto")
    gpus = _gpus() if accelerator in ("auto", "gpu", "cuda") else []
    return [Share(threads, memory, readers, gpus[number % len(gpus)] if gpus else None) for number in range(processes)]


def _gpus() -> list[str]:
    """Return the names of the visible GPUs, as the environment or torch counts them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip()]
    return [str(number) for number in range(torch.cuda.device_count())]


class Worker:
    """A process that trains one fold after the other."""

    def __init__(self, share: Share) -> None:
        self.connection, theirs = _SPAWN.Pipe()
        self.process: BaseProcess = _SPAWN.Process(target=_work, args=(theirs, share), daemon=False)
        self.share = share
        self.trains = False
        self.task: FoldTask | None = None
        self.fold = ""
        """what the log calls the fold"""
        self.process.start()
        theirs.close()  # so that the end of the process ends the connection

    def give_next(self, waiting: _Waiting) -> bool:
        """Give the process, which is done with its fold, the next one; return whether there is one."""
        if self.task is not None:
            waiting.trained(self.task)
        task = waiting.next()
        if task is not None:
            self.give(task)
        return task is not None

    def give(self, task: FoldTask) -> None:
        """Give the process a fold."""
        self.task, self.fold, self.trains = task, task.name, True
        with suppress(BrokenPipeError):  # it was killed: `is_done` says so
            self.connection.send(task)

    def is_done(self) -> bool:
        """Pass on a line of the log, or return True where the fold is trained.

        Raises:
            MilError: As the fold ended.
            ResourceError: The process was killed.
            Interrupted: A signal has stopped it.
        """
        try:
            message = self.connection.recv()
        except (EOFError, ConnectionError):
            raise self._killed() from None
        if isinstance(message, logging.LogRecord):
            message.msg = f"{self.fold}: {message.msg}" if self.fold else message.msg
            logging.getLogger(message.name).handle(message)
            return False
        cast(FoldOutcome, message).raise_if_unfinished()
        self.trains = False
        return True

    def _killed(self) -> ResourceError:
        """Return the error of a process that has ended without a word."""
        self.process.join(1)
        how = "was killed" if (self.process.exitcode or 0) < 0 else "has ended"
        of = "its process" if self.share.ranks is None else f"the process of device {self.share.ranks.number}"
        where = f"{self.fold}: " if self.fold else ""
        needs = "parallel" if self.share.ranks is None else "data.tiles_per_batch or data.max_tiles"
        return ResourceError(
            f"{where}{of} {how}, as the system does where memory runs out; a smaller {needs} needs less; --resume "
            "goes on from the last saved epoch"
        )

    def ask_to_stop(self) -> None:
        """Let the process save its state and end: by a signal where it trains, else by closing the connection."""
        if self.trains and self.process.is_alive():
            self.process.terminate()
        elif self.process.is_alive():
            with suppress(BrokenPipeError):
                self.connection.send(None)

    def join(self, seconds: float = _SAVING_SECONDS) -> None:
        """Wait for the end of the process, and kill it if it does not come in time."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


def _work(connection: Connection, share: Share) -> None:
    """Train the folds that come through the connection, until None comes or the parent process ends."""
    if share.gpu is not None:  # before anything here uses CUDA
        os.environ["CUDA_VISIBLE_DEVICES"] = share.gpu
    torch.set_num_threads(share.threads)
    _log_to(connection)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    with interruption.listening(), suppress(Interrupted, EOFError, LostRankError):
        if share.ranks is not None:
            os.environ["LOCAL_RANK"] = str(share.ranks.number)  # which tells Lightning that no process is missing
            if not share.ranks.leads:
                be_silent()
            share.ranks.join(share.address)
        while (task := connection.recv()) is not None:
            outcome = train_task(cast(FoldTask, task), share)
            connection.send(outcome)
            if outcome.stopped_by is not None:
                break  # a further signal, with which the parent process ends all, is ignored after the first


def train_task(task: FoldTask, share: Share) -> FoldOutcome:
    """Train one fold, alone in its folder: processes of a run that was killed may still be saving theirs.

    Args:
        task: The fold.
        share: What this process may use of memory and reading processes.

    Returns:
        How it ended, which can be sent to another process.
    """
    folder = task.fold.folder
    try:
        if share.ranks is not None:  # the parent process holds the lock of the run, and only one rank writes
            fit_task(task, share)
            return FoldOutcome()
        folder.mkdir(parents=True, exist_ok=True)
        with files.locked(folder) as free:
            if not free:
                raise ConfigError(f"{folder} is in use by another process, expected a folder of its own for each fold")
            fit_task(task, share)
            (folder / files.LOCK).unlink()
    except (MilError, OSError) as error:
        return FoldOutcome(error)
    except Interrupted as stop:
        return FoldOutcome(stopped_by=stop.signal)
    except Exception as error:  # many of torch's own cannot be sent to another process
        return FoldOutcome(RuntimeError(f"{type(error).__name__}: {error}"))
    return FoldOutcome()


def fit_task(task: FoldTask, share: Share) -> None:
    """Train the fold of a task in this process; errors as those of `fit`."""
    trusted_classes.trust(task.values)  # the process that sent it has trained, or would train, with them
    if share.memory and not share.readers:
        task.study.store.keep(task.study.cohort.table["slide"], share.memory)
    fit(RunConfig.parse(task.values), task.study, task.split, task.fold, share.readers, share.ranks, task.predict)


def be_silent() -> None:
    """Print nothing from here on, not even what libraries write past Python: rank 0 says it."""
    logging.getLogger("mil").handlers = [logging.NullHandler()]
    sys.stdout.flush()
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _log_to(connection: Connection) -> None:
    """Send the package's log to the parent process, which writes it to the terminal and to log.txt."""
    handler = logging.handlers.QueueHandler(_Lines(connection))  # type: ignore[arg-type] # it only calls `put_nowait`
    package = logging.getLogger("mil")
    package.handlers, package.propagate = [handler], False
    package.setLevel(logging.INFO)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


class _Lines:
    """The end of a connection to which a `QueueHandler` writes."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def put_nowait(self, record: logging.LogRecord) -> None:
        """Send a line."""
        with suppress(BrokenPipeError):
            self.connection.send(record)


def _stop_with_parent() -> None:
    """Save the state and end when the parent process ends, however it does."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), interruption.SIGNALS[0])
