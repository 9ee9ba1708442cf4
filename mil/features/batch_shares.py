"""Which bags of a batch each of several processes reads.

The processes see the batches that one process would see: a sampler decides on a batch, and this module divides it. So
no bag is read twice, none is left out, and weights and strata of the sampler are exact, whatever the number of bags.
"""

from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from mil.features.batches import Draw, TrainOrder, WholeOrder

IDLE = -1
"""Seat of a bag that is read as a stand-in: the process has no bag in this batch, and the bag does not count."""


class SharedOrder(Sampler[list[Draw]]):
    """The bags of each batch of an order that one of several processes reads."""

    def __init__(self, order: TrainOrder | WholeOrder, sizes: Sequence[int], number: int = 0, count: int = 1) -> None:
        """Create the sampler.

        Args:
            order: The batches of all processes.
            sizes: Number of tiles of each bag.
            number: The process, counted from zero.
            count: How many processes there are.
        """
        self.order, self.sizes, self.number, self.count = order, sizes, number, count

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each one."""
        self.order.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[Draw]]:
        return (self._share(batch) for batch in self.order)

    def __len__(self) -> int:
        return len(self.order)

    def _share(self, batch: Sequence[Draw]) -> list[Draw]:
        """Return this process's bags, in the order of the batch: the largest bag goes to who has the fewest tiles."""
        by_size = sorted(range(len(batch)), key=lambda seat: -self.sizes[batch[seat].bag])
        tiles = [0] * self.count
        seats = []
        for seat in by_size:
            process = tiles.index(min(tiles))
            tiles[process] += self.sizes[batch[seat].bag]
            if process == self.number:
                seats.append(seat)
        return [batch[seat]._replace(seat=seat) for seat in sorted(seats)] or [batch[by_size[-1]]._replace(seat=IDLE)]


def one_by_one(bags: int, number: int, count: int) -> list[list[Draw]]:
    """Return the batches of one bag that one of several processes reads; a stand-in where there is none for it.

    Args:
        bags: How many bags there are.
        number: The process, counted from zero.
        count: How many processes there are.
    """
    return [[Draw(bag, seat=bag)] for bag in range(number, bags, count)] or [[Draw(0, seat=IDLE)]]
