"""Batches of bags: which bags a training step sees, in which order and with which tiles.

Order and tiles depend on the seed and the epoch only, not on what was read before: a resumed run, or a run with another
number of workers, sees the same batches.
"""

import copy
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mil import interruption
from mil.bags import Bags
from mil.errors import ResourceError
from mil.features.formats import Header
from mil.features.pieces import in_order
from mil.features.store import LARGE_BYTES, FeatureStore

LONGEST_FOLDER = 75
"""Bytes of the folder for temporary files; the names of sockets of `multiprocessing` add 32."""
_WORKER = "DataLoader worker"
"""How torch begins its message about a reading process that died."""


class Batch(NamedTuple):
    """The bags of one training step."""

    bags: Bags
    target: Tensor
    """`(b, ...)`, as the endpoint encodes it"""
    place: Tensor
    """`(b,)`, which bags of the dataset these are"""
    seat: Tensor | None = None
    """`(b,)`, position of each bag in the batch of all processes, see `mil.features.batch_shares`"""


class Draw(NamedTuple):
    """A bag to read: all its tiles, or, where `epoch` is given, the tiles drawn for that epoch.

    `seat` is its position in the batch of all processes, see `mil.features.batch_shares`.
    """

    bag: int
    epoch: int | None = None
    seat: int = 0


class _Tiles(NamedTuple):
    """The tiles of one bag, all or drawn."""

    features: Tensor
    coords: Tensor | None
    slide: Tensor | None = None

    def only(self, tiles: Tensor) -> "_Tiles":
        optional = (None if rows is None else rows[tiles] for rows in (self.coords, self.slide))
        return _Tiles(self.features[tiles], *optional)


class BagDataset(Dataset[Batch]):
    """Bags read from a feature store, which decides what stays in memory."""

    def __init__(
        self,
        store: FeatureStore,
        slides: Sequence[Sequence[str]],
        target: Tensor,
        max_tiles: int | None = None,
        seed: int = 0,
        covariates: Tensor | None = None,
        at_most: int | None = None,
    ) -> None:
        """Create the dataset.

        Args:
            store: Where the features are read from.
            slides: Ids of each bag's slides.
            target: `(b, ...)`, as the endpoint encodes it.
            max_tiles: Largest number of tiles of a `Draw` with an epoch; None draws none.
            seed: Seed of the draws.
            covariates: `(b, k)`.
            at_most: Largest number of tiles of a `Draw` without an epoch, taken at equal steps; None takes all.
        """
        self.at_most = at_most
        self.store, self.slides, self.target, self.covariates = store, slides, target, covariates
        self.max_tiles, self.seed = max_tiles, seed
        self.dtype: torch.dtype | None = None
        self.device: torch.device | None = None
        self._placed: dict[str, Tensor] = {}

    def cast(self, dtype: torch.dtype) -> "BagDataset":
        """Return the same bags in another precision, so that worker processes convert and not the training process."""
        dataset = copy.copy(self)
        dataset.dtype = dtype
        return dataset

    def kept_on(self, device: torch.device) -> "BagDataset":
        """Return the same bags; features that the store keeps are copied to a device once, and packed there."""
        dataset = copy.copy(self)
        dataset.device, dataset._placed = device, {}
        return dataset

    def stored_bytes(self) -> int:
        """Return the size of the features of all slides, from the headers of the files."""
        headers = self.read_headers().values()
        return sum(header.tiles * header.width * header.itemsize for header in headers)

    def only(self, bags: Sequence[int]) -> "BagDataset":
        """Return some of the bags. Tiles are drawn by a bag's number, so the subset is for reading all of them."""
        dataset = copy.copy(self)
        rows = torch.tensor(bags, dtype=torch.long)
        dataset.slides, dataset.target = [self.slides[bag] for bag in bags], self.target[rows]
        dataset.covariates = None if self.covariates is None else self.covariates[rows]
        return dataset

    def __len__(self) -> int:
        return len(self.slides)

    @property
    def sizes(self) -> list[int]:
        """Number of tiles that are read of each bag without an epoch, from the headers of the files."""
        self.read_headers()
        return [min(self._count(bag), self.at_most or self._count(bag)) for bag in range(len(self))]

    def _count(self, bag: int) -> int:
        return sum(self.store.header(slide).tiles for slide in self.slides[bag])

    def read_headers(self) -> dict[str, Header]:
        """Read the headers of all slides, so that the store knows them before worker processes start."""
        return self.store.valid_headers(slide for bag in self.slides for slide in bag)

    def __getitem__(self, draws: Sequence[Draw]) -> Batch:
        tiles = [self._read(draw) for draw in draws]
        place = torch.tensor([draw.bag for draw in draws])
        bags = Bags.pack(
            [bag.features for bag in tiles],
            [bag.coords for bag in tiles],
            self.dtype,
            [bag.slide for bag in tiles],
            None if self.covariates is None else self.covariates[place],
        )
        return Batch(bags, self.target[place], place, torch.tensor([draw.seat for draw in draws]))

    def tiles_read(self, bag: int) -> list[NDArray[np.int64]]:
        """Return which tiles of each slide of a bag are read without an epoch, by their numbers in the file."""
        tiles = self._drawn(Draw(bag))
        if tiles is None:
            return [np.arange(self.store.header(slide).tiles) for slide in self.slides[bag]]
        return self._of_slides(self.slides[bag], tiles)

    def is_large(self, bag: int) -> bool:
        """Return whether a bag's features are better read in pieces than held in memory, see `read_in_pieces`."""
        if self.at_most is not None and self._count(bag) > self.at_most:
            return False  # so many tiles as the user says
        headers = [self.store.header(slide) for slide in self.slides[bag]]
        return sum(header.tiles * header.width * header.itemsize for header in headers) > LARGE_BYTES

    def read_in_pieces(self, bag: int) -> Batch:
        """Return one bag whose features are read from the files when something is computed with them.

        The features of packed files and torch files are compared with their digests or checksums beforehand.

        Raises:
            FeatureError: As `FeatureStore.read`, also when the features are read.
        """
        slides, place = self.slides[bag], torch.tensor([bag])
        for slide in slides:
            self.store.verify(slide)
        features = in_order([self.store.pieces(slide).rows() for slide in slides])
        headers = self.store.valid_headers(slides)
        sizes = [headers[slide].tiles for slide in slides]
        places = [coords for slide in slides if (coords := self.store.coords(slide)) is not None]
        bags = Bags(
            features,
            (sum(sizes),),
            torch.cat(places) if len(places) == len(slides) else None,
            None if len(slides) == 1 else torch.arange(len(slides)).repeat_interleave(torch.tensor(sizes)),
            None if self.covariates is None else self.covariates[place],
        )
        return Batch(bags, self.target[place], place)

    def _read(self, draw: Draw) -> "_Tiles":
        tiles = self._drawn(draw)
        if tiles is not None and not self.store.keeps:
            return self._read_drawn(self.slides[draw.bag], tiles)
        slides = [self._slide(slide) for slide in self.slides[draw.bag]]
        bag = _Tiles(slides[0].features, slides[0].coords)
        if len(slides) > 1:
            joined = Bags.pack([slide.features for slide in slides], [slide.coords for slide in slides])
            bag = _Tiles(joined.features, joined.coords, joined.bag)
        return bag if tiles is None else bag.only(torch.from_numpy(tiles))

    def _slide(self, name: str) -> "_Tiles":
        slide = self.store.read(name)
        if self.device is None:
            return _Tiles(slide.features, slide.coords)
        if name not in self._placed:
            self._placed[name] = slide.features.to(self.device)
        return _Tiles(self._placed[name], slide.coords)

    def _read_drawn(self, slides: Sequence[str], tiles: NDArray[np.int64]) -> "_Tiles":
        """Return the drawn tiles of a bag, by their numbers in ascending order; no others are read where possible."""
        drawn = self._of_slides(slides, tiles)
        for slide in slides:
            self.store.verify(slide, is_drawn=True)
        features = [self.store.pieces(slide).drawn(rows) for slide, rows in zip(slides, drawn, strict=True)]
        every = [self.store.coords(slide) for slide in slides]
        coords = [
            None if places is None else places[torch.from_numpy(rows)]
            for places, rows in zip(every, drawn, strict=True)
        ]
        places = [rows for rows in coords if rows is not None]
        index = torch.arange(len(slides)).repeat_interleave(torch.tensor([len(rows) for rows in drawn]))
        return _Tiles(
            torch.cat(features),
            torch.cat(places) if len(places) == len(slides) else None,
            index if len(slides) > 1 else None,
        )

    def _of_slides(self, slides: Sequence[str], tiles: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Return tiles of a bag, by their numbers in ascending order, as numbers in the file of each slide."""
        headers = self.store.valid_headers(slides)
        starts = np.cumsum([0, *(headers[slide].tiles for slide in slides)])
        return [tiles[(tiles >= first) & (tiles < last)] - first for first, last in pairwise(starts)]

    def _drawn(self, draw: Draw) -> NDArray[np.int64] | None:
        """Return the numbers of the drawn tiles in ascending order; None where all are read."""
        most = self.at_most if draw.epoch is None else self.max_tiles
        if most is None or (count := self._count(draw.bag)) <= most:
            return None
        if draw.epoch is None:
            return np.linspace(0, count - 1, most).round().astype(np.int64)
        rng = np.random.default_rng((self.seed, draw.epoch, draw.bag))
        return np.sort(rng.choice(count, most, replace=False))


class TrainOrder(Sampler[list[Draw]]):
    """Shuffled or weighted batches of at most `bags` bags and `tiles` tiles, anew for each epoch.

    With `events`, bags with an event are distributed evenly, so that every batch has one where there are enough of
    them. No batch then has a single bag, unless that bag alone exceeds the number of tiles: a single last bag joins the
    batch before it.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        bags: int,
        tiles: int | None = None,
        weight: NDArray[np.float64] | None = None,
        seed: int = 0,
        epoch: int = 0,
        events: NDArray[np.bool_] | None = None,
        skip: int = 0,
    ) -> None:
        """Create the sampler.

        Args:
            sizes: Number of tiles of each bag, after tiles are drawn.
            bags: Largest number of bags in a batch.
            tiles: Largest number of tiles in a batch; a larger bag is a batch by itself. None sets no limit.
            weight: Weights with which as many bags as there are are drawn with replacement; None shuffles.
            seed: Seed of the order.
            epoch: First epoch: Lightning asks for the first batches before it calls `set_epoch`.
            events: Which bags have an event; None where that does not matter.
            skip: Batches of the first epoch that were trained before; they are left out, but counted by `len`.
        """
        self.sizes, self.bags, self.tiles = sizes, bags, tiles
        self.weight, self.seed, self.epoch, self.events = weight, seed, epoch, events
        self.first, self.skip = epoch, skip

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each one."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(self._batches()[self.skip if self.epoch == self.first else 0 :])

    def __len__(self) -> int:
        return len(self._batches())

    def _batches(self) -> list[list[Draw]]:
        rng, count = np.random.default_rng((self.seed, self.epoch)), len(self.sizes)
        if self.events is not None:
            groups = [(group, len(group)) for group in self._distributed(rng, self.events)]
        elif self.weight is not None:
            groups = [(rng.choice(count, count, p=self.weight / self.weight.sum()), self.bags)]
        else:
            groups = [(rng.permutation(count), self.bags)]
        cut = [_cut(order.tolist(), self.sizes, most, self.tiles) for order, most in groups]
        return [[Draw(bag, self.epoch) for bag in batch] for batches in cut for batch in batches]

    def _distributed(self, rng: np.random.Generator, events: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
        """Return as many groups as batches are needed, as equal in size and in events as possible."""
        count = len(self.sizes)
        needed = max(-(-count // self.bags), -(-sum(self.sizes) // self.tiles) if self.tiles else 1)
        groups = min(needed, max(1, count // 2))
        first = np.array_split(rng.permutation(np.flatnonzero(events)), groups)
        # array_split makes the first parts the larger ones: those with more events get fewer of the others
        rest = np.array_split(rng.permutation(np.flatnonzero(~events)), groups)[::-1]
        dealt = [rng.permutation(np.concatenate(pair)) for pair in zip(first, rest, strict=True)]
        return [dealt[at] for at in rng.permutation(groups)]


class WholeOrder(Sampler[list[Draw]]):
    """All bags in order, in the same batches, `passes` times an epoch, for losses over the whole cohort."""

    def __init__(
        self,
        sizes: Sequence[int],
        bags: int,
        tiles: int | None = None,
        passes: int = 1,
        epoch: int = 0,
        skip: int = 0,
    ) -> None:
        """Create the sampler; `sizes`, `bags`, `tiles`, `epoch` and `skip` as in `TrainOrder`."""
        self.sizes = sizes
        self.batches = _cut(range(len(sizes)), sizes, bags, tiles)
        self.passes, self.epoch = passes, epoch
        self.first, self.skip = epoch, skip

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, on which the drawn tiles depend; Lightning calls this before each one."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[Draw]]:
        batches = self.batches * self.passes
        for batch in batches[self.skip if self.epoch == self.first else 0 :]:
            yield [Draw(bag, self.epoch) for bag in batch]

    def __len__(self) -> int:
        return self.passes * len(self.batches)


def _cut(order: Iterable[int], sizes: Sequence[int], bags: int, tiles: int | None) -> list[list[int]]:
    """Cut an order into batches of at most `bags` bags and `tiles` tiles; a larger bag is a batch by itself."""
    batches: list[list[int]] = []
    room = 0.0
    for bag in order:
        if not batches or len(batches[-1]) == bags or sizes[bag] > room:
            batches.append([])
            room = np.inf if tiles is None else tiles
        batches[-1].append(bag)
        room -= sizes[bag]
    return batches


def loader(dataset: BagDataset, order: Iterable[list[Draw]] | None = None, workers: int = 0) -> DataLoader[Batch]:
    """Return a loader over the batches of `order`; without one, over the bags one by one, with all their tiles.

    Raises:
        ResourceError: Worker processes could not send what they read, and would be waited for without an end.
    """
    alone = [[Draw(bag)] for bag in range(len(dataset))]
    if workers:
        _check_meeting_place()
        dataset.read_headers()  # worker processes may not start the process that reads a header
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=alone if order is None else order,
        collate_fn=cast(Any, _as_it_is),  # without automatic batching it is given the item itself
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


@contextmanager
def reading() -> Iterator[None]:
    """Explain why a loader's processes ended.

    Raises:
        ResourceError: One was killed.
        Interrupted: A signal asks to stop; it may have killed them too.
    """
    try:
        yield
    except (RuntimeError, ConnectionError) as error:  # the latter where it dies while it sends a batch
        if isinstance(error, RuntimeError) and _WORKER not in str(error):
            raise
        interruption.raise_deferred()
        how = re.search(r"by signal: ([^.]+)", str(error))
        raise ResourceError(
            f"a process that reads features ahead was killed{f' ({how[1].strip()})' if how else ''}, as systems do "
            "where memory runs out; data.workers=0, or fewer, needs less"
        ) from error


def _check_meeting_place() -> None:
    """Check that Python's sockets, which have names of 107 bytes at most, fit into the folder for temporary files."""
    folder = tempfile.gettempdir()
    if (length := len(os.fsencode(folder))) > LONGEST_FOLDER:
        raise ResourceError(
            f"the folder for temporary files {folder} has a name of {length} bytes, expected at most {LONGEST_FOLDER}, "
            "so that processes that read features ahead can send them; set TMPDIR to a shorter one, or data.workers=0"
        )


def _as_it_is(batch: Batch) -> Batch:
    return batch
