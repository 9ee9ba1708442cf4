"""What the processes of one training exchange.

Every process has a rank, counted from zero. Small tables of numbers and signals go through gloo on the CPU, gradients
of models on GPUs through NCCL.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import TypeVar

import torch
import torch.distributed as distributed
from torch import Tensor

from mil.errors import ResourceError

T = TypeVar("T")
_CONNECTION = re.compile(r"gloo|nccl|connection (closed|reset)|broken pipe|TCPStore", re.IGNORECASE)
"""What torch says where another process of a group no longer answers."""

_PATIENCE = timedelta(days=1)
"""How long a rank waits for another, as rank 0 may read a large cohort; one that has ended is noticed at once."""


class LostRankError(ResourceError):
    """Another process of the training has ended, so that this one cannot go on."""


@dataclass(frozen=True)
class Ranks:
    """Which of several processes this is, all of which train one model.

    Attributes:
        number: The rank of this process.
        count: How many processes there are.
        by_bag: Whether dropout is drawn for each bag by its position in the batch, so that the result does not depend
            on `count`; else for the batch, as one process does by default.
    """

    number: int = 0
    count: int = 1
    by_bag: bool = False

    @property
    def leads(self) -> bool:
        """Whether this process writes files and log lines."""
        return self.number == 0

    def join(self, address: str) -> None:
        """Connect with the other processes.

        Args:
            address: A URL as `torch.distributed.init_process_group` takes it.
        """
        if address.startswith("file:"):  # all on this machine, whose name may resolve to an interface that is down
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        with self.watching():
            distributed.init_process_group(
                backend, init_method=address, rank=self.number, world_size=self.count, timeout=_PATIENCE
            )

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Name torch's errors of a lost connection.

        Raises:
            LostRankError: Another process no longer answers.
        """
        try:
            yield
        except RuntimeError as error:
            if self.count > 1 and _CONNECTION.search(str(error)):
                raise LostRankError("another process of this training has ended") from error
            raise

    def gathered(self, rows: Tensor) -> tuple[Tensor, int]:
        """Return the rows of all ranks in the order of the ranks, and the position of the first of this rank.

        Args:
            rows: `(m, k)` on the CPU; m may differ between ranks and be zero.

        Returns:
            `(M, k)`, and how many rows those of lower ranks are.
        """
        if self.count == 1:
            return rows, 0
        sizes = [torch.zeros(1, dtype=torch.long) for _ in range(self.count)]
        distributed.all_gather(sizes, torch.tensor([len(rows)]))
        counts = [int(size) for size in sizes]
        padded = rows.new_zeros((max(counts), rows.shape[1]))
        padded[: len(rows)] = rows
        tables = [torch.empty_like(padded) for _ in range(self.count)]
        distributed.all_gather(tables, padded)
        joined = torch.cat([table[:count] for table, count in zip(tables, counts, strict=True)])
        return joined, sum(counts[: self.number])

    def all_of(self, values: list[T]) -> list[T]:
        """Return the values of all ranks in the order of the ranks."""
        if self.count == 1:
            return values
        lists: list[list[T]] = [[] for _ in range(self.count)]
        distributed.all_gather_object(lists, values)
        return list(chain.from_iterable(lists))

    def highest(self, number: int) -> int:
        """Return the highest number of all ranks; each waits for the others."""
        if self.count == 1:
            return number
        value = torch.tensor(number)
        distributed.all_reduce(value, distributed.ReduceOp.MAX)
        return int(value)
