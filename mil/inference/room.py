"""Whether there are memory and time for a very large bag, by models whose cost grows faster than with its tiles.

They are tried on two small bags of random tiles, before the features of the large one are read. Time is continued to
its size as `a n + b n^2`, memory as `a n + b` and what the model says that pairs of tiles take, `MILModel.pair_bytes`.
"""

import time
import weakref
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mil.bags import Bags
from mil.errors import ResourceError
from mil.memory import GIB
from mil.models.mil_model import MILModel

TRIED = (1024, 4096)
"""Tiles of the two bags that a model is tried on."""
SECONDS = 1800.0
"""Longest time for one bag that is begun without being asked for."""
_MEMINFO = Path("/proc/meminfo")
_LIMIT, _USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


class Needs(NamedTuple):
    """What the prediction of one bag needs."""

    bytes: float
    seconds: float


def check_room(model: MILModel, tiles: int, width: int, covariates: int, subject: str) -> None:
    """Check that there are memory and time for a bag.

    Args:
        model: In evaluation mode.
        tiles: Of the bag.
        width: Of the features.
        covariates: Number of covariates that the model reads.
        subject: The slides, for the message.

    Raises:
        ResourceError: There are not; with what is needed, and what needs less.
    """
    needs, free = needed(model, tiles, width, covariates), free_bytes()
    if needs.bytes <= free and needs.seconds <= SECONDS:
        return
    name, cost = type(model).__name__, f"its cost grows with {model.cost}, n tiles"
    raise ResourceError(
        f"{subject}: {name} would need about {needs.bytes / GIB:.2g} GiB of memory, {free / GIB:.2g} GiB are free, and "
        f"{_duration(needs.seconds)} ({cost}); --max-tiles N reads N tiles of each bag, evenly over the slide, and "
        "--max-tiles 0 tries all"
    )


def needed(model: MILModel, tiles: int, width: int, covariates: int = 0) -> Needs:
    """Return what the prediction of a bag needs, from that of small ones."""
    first, second = (_tried(model, size, width, covariates) for size in TRIED)
    small, large = first.bytes - model.pair_bytes(TRIED[0]), second.bytes - model.pair_bytes(TRIED[1])
    each = max(0.0, large - small) / (TRIED[1] - TRIED[0])
    memory = max(0.0, small) + each * (tiles - TRIED[0]) + model.pair_bytes(tiles)
    if "n^2" not in model.cost:
        return Needs(memory, second.seconds * tiles / TRIED[1])
    return Needs(memory, _continued(first.seconds, second.seconds, tiles))


def free_bytes() -> float:
    """Return the memory that is free, within the limit of this process's group; infinite where that is not known."""
    free = float("inf")
    if _MEMINFO.exists():
        lines = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
        free = 1024.0 * int(lines["MemAvailable"].split()[0])
    if _LIMIT.exists() and (limit := _LIMIT.read_text().strip()).isdigit():
        free = min(free, float(limit) - int(_USED.read_text()))
    return free


class _Allocated(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Counts the bytes of the tensors that exist at a time; `peak` is the most of them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.peak = 0, 0
        self._users: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if isinstance(tensor, torch.Tensor):
                self._count(tensor)
        return result

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if not self._users[place]:
            self.now += size
            self.peak = max(self.peak, self.now)
        self._users[place] += 1
        weakref.finalize(tensor, self._freed, place, size)

    def _freed(self, place: int, size: int) -> None:
        self._users[place] -= 1
        if not self._users[place]:
            self.now -= size


def _tried(model: MILModel, tiles: int, width: int, covariates: int) -> Needs:
    """Return what a bag of random tiles on a grid needs."""
    generator = torch.Generator().manual_seed(0)
    side = int(tiles**0.5)
    tile = torch.arange(tiles)
    places = 512 * torch.stack([tile % side, torch.div(tile, side, rounding_mode="floor")], 1)
    row = torch.zeros(1, covariates) if covariates else None
    bags = Bags(torch.randn(tiles, width, generator=generator), (tiles,), places, covariates=row)
    bags = bags.to(next(model.parameters()).device)
    with torch.inference_mode():
        seconds = min(_timed(model, bags) for _ in range(2))  # the first one also sets things up
        with _Allocated() as allocated:
            model(bags)
    return Needs(float(allocated.peak + bags.features.nbytes), seconds)


def _timed(model: MILModel, bags: Bags) -> float:
    started = time.perf_counter()
    model(bags)
    return time.perf_counter() - started


def _continued(small: float, large: float, tiles: int) -> float:
    """Return `a n + b n^2` through two sizes; `b` is not negative."""
    first, second = TRIED
    square = max(0.0, (large / second - small / first) / (second - first))
    return (large - square * second**2) / second * tiles + square * tiles**2


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.2g} h"
