"""Train on several devices of a machine: a process for each, which share every batch.

Lightning would start the processes by running the command again. That fits neither `mil train`, which holds the lock
of the run's folder and reads the cohort once, nor `mil.fit` in a notebook, which no command starts. So this process
starts them as it starts folds side by side, sends each the fold, and writes what the first of them says; the others
print nothing. It trains nothing itself, and can end all of them when one is killed while the others wait for it.

Under SLURM `srun` has started a process for each device. All of them run the same command: the first reads the cohort,
sends the folds to the others, trains with them and writes; the others only train.
"""

import contextlib
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path

import torch
import torch.distributed as distributed

from mil.errors import MilError, ResourceError
from mil.interruption import Interrupted
from mil.study.available_devices import check_devices, slurm_tasks
from mil.study.run_config import RunConfig
from mil.training.ranks import LostRankError, Ranks
from mil.training.side_by_side import FoldTask, Share, Worker, be_silent, fit_task, shares
from mil.training.summed_gradients import environment

_LOST_SECONDS = 20
"""How long to wait for the end of a process of which another says that it no longer answers."""


class Team(ABC):
    """The processes of several devices."""

    @abstractmethod
    def fit(self, task: FoldTask) -> None:
        """Train a fold; errors as those of `mil.training.fit.fit`, and a process that was killed."""

    @abstractmethod
    def dismiss(self) -> None:
        """End the processes: no fold is left."""


@contextlib.contextmanager
def team(config: RunConfig) -> Iterator[Team | None]:
    """Return the processes that train together; None where one device trains.

    Of the processes that `srun` has started, only the first returns from this; the others train and end.

    Raises:
        ConfigError: The devices do not exist.
        SystemExit: This is not the first process, and the first is done.
    """
    count = config.trainer.options.device_count
    if count == 1:
        yield None
        return
    check_devices(config)
    if slurm_tasks() == count:
        yield from _started_by_slurm(config, count)
        return
    folder = Path(tempfile.mkdtemp(prefix="mil-"))
    processes = Started(config, count, folder)
    try:
        yield processes
    except Interrupted:
        processes.dismiss()
        raise
    finally:
        processes.kill()
        shutil.rmtree(folder, ignore_errors=True)


class Started(Team):
    """Processes that this one starts, once there is a fold to train."""

    def __init__(self, config: RunConfig, count: int, folder: Path) -> None:
        address = f"file://{folder}/ranks"
        self.shares = [
            replace(share, gpu=None, ranks=Ranks(number, count, by_bag=True), address=address)
            for number, share in enumerate(shares(config, count))
        ]
        self.workers: list[Worker] = []

    def fit(self, task: FoldTask) -> None:
        """Train a fold, and wait for all processes.

        Raises:
            MilError: As the fold ended.
            ResourceError: A process was killed.
            Interrupted: A signal to any of them asks to stop; the state is saved.
        """
        self.workers = self.workers or [Worker(share) for share in self.shares]
        for worker in self.workers:
            worker.give(task)
        running = list(self.workers)
        lost_since, lost = 0.0, None
        while running:
            ready = wait([worker.connection for worker in running], timeout=1)
            for worker in [worker for worker in running if worker.connection in ready]:
                try:
                    is_done = worker.is_done()
                except LostRankError as error:  # who was killed is known as soon as its connection ends
                    lost_since, lost, is_done = time.monotonic(), error, True
                if is_done:
                    running.remove(worker)
            if lost is not None and (not running or time.monotonic() - lost_since > _LOST_SECONDS):
                raise lost

    def dismiss(self) -> None:
        """Let the processes save their state, and end."""
        for worker in self.workers:
            worker.ask_to_stop()
        for worker in self.workers:
            worker.join()
        self.workers = []

    def kill(self) -> None:
        """End the processes at once: without one of them the others can only wait."""
        for worker in self.workers:
            worker.join(0)


class _Leading(Team):
    """This process, the first of those that `srun` has started, and the others, which follow it."""

    def __init__(self, share: Share) -> None:
        self.share = share
        self.is_over = False

    def fit(self, task: FoldTask) -> None:
        """Train a fold together with the processes that follow.

        Raises:
            MilError: As the fold ended.
            ResourceError: Another process has ended.
            Interrupted: A signal to any of them asks to stop; the state is saved.
        """
        _send(task)
        try:
            fit_task(task, self.share)
        except LostRankError as error:
            raise ResourceError(f"{error}; --resume goes on from the last saved epoch") from error

    def dismiss(self) -> None:
        """Let the others end."""
        if not self.is_over:
            self.is_over = True
            _send(None)


def _started_by_slurm(config: RunConfig, count: int) -> Iterator[Team]:
    """Yield the first process; the others follow it until it is done."""
    place = environment(Ranks(0, count))
    share = replace(shares(config, count)[0], gpu=None)
    share = replace(share, ranks=Ranks(place.global_rank(), count, by_bag=True), threads=torch.get_num_threads())
    ranks = share.ranks or Ranks()
    if not ranks.leads:
        be_silent()
    try:
        ranks.join(f"tcp://{place.main_address}:{place.main_port}")
        if not ranks.leads:
            _follow(share)
        leader = _Leading(share)
        yield leader
        leader.dismiss()
    except Interrupted as stop:
        if ranks.leads:
            raise
        raise SystemExit(stop.exit_code) from None
    except MilError as error:
        if ranks.leads:
            raise
        raise SystemExit(2) from error
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _follow(share: Share) -> None:
    """Train the folds that the first process sends, and end with it.

    Raises:
        SystemExit: No fold is left.
    """
    while (task := _received(share)) is not None:
        fit_task(task, share)
    raise SystemExit(0)


def _send(task: FoldTask | None) -> None:
    distributed.broadcast_object_list([task], 0, device=torch.device("cpu"))


def _received(share: Share) -> FoldTask | None:
    tasks: list[FoldTask | None] = [None]
    with (share.ranks or Ranks()).watching():
        distributed.broadcast_object_list(tasks, 0, device=torch.device("cpu"))
    return tasks[0]
