"""Batches of bags of different sizes, packed end to end, and reductions within bags.

No padding: a reduction runs over each bag's own rows. On CPU it is a loop over `split` views, whose backward writes
each row once (slicing in a loop would allocate a full-size gradient a bag); on other devices it is index arithmetic
without a host synchronisation. Reductions accumulate in float32 at least, whatever the autocast; the softmax in
float64, because float32 sums of 20,000 exponentials leave shares that miss one by 1e-5.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from mil import tile_rows
from mil.tile_rows import TileRows
from mil.weighted_sums import WeightedSums

BLOCK, UNIT = 2048, 256
"""Rows of a block of `tilewise`, and what the rows of the last one are a multiple of."""


MANY = 64
"""Bags of one size from which on they are reduced together: a loop over thousands of bags of one tile is slow."""


@dataclass(frozen=True, eq=False)
class TopK:
    """The k highest (or lowest) tiles of each bag; slots beyond a small bag's tiles are not valid and hold zero."""

    values: Tensor
    """`(b, k)`"""
    index: Tensor
    """`(b, k)`, rows among the batch's n tiles; a bag's first row where not valid"""
    valid: Tensor
    """`(b, k)`, bool"""


@dataclass(frozen=True, eq=False)
class Bags:
    """`b` bags packed end to end; bag `i` owns rows `offsets[i]:offsets[i + 1]`."""

    features: Tensor
    """`(n, d)`"""
    sizes: tuple[int, ...]
    """Tiles of each bag, at least one; on the host, so that no device has to be asked."""
    coords: Tensor | None = None
    """`(n, 2)`, level-0 pixels of the tiles' top-left corners, where known"""
    slide: Tensor | None = None
    """`(n,)`, which of its bag's slides each tile lies on, from 0; none where every bag is one slide. Places on two
    slides have no distance."""
    covariates: Tensor | None = None
    """`(b, k)`, what is known of each bag's patient beside the tiles, where the tool asks for it"""
    precision: torch.dtype | None = None
    """in which `tilewise` passes the tiles on, where `features` are kept as they are stored"""

    def __post_init__(self) -> None:
        if min(self.sizes, default=0) < 1:
            raise ValueError(f"every bag needs at least one tile, found sizes {self.sizes}")
        if sum(self.sizes) != len(self.features):
            raise ValueError(f"sizes sum to {sum(self.sizes)}, features have {len(self.features)} rows")
        if self.coords is not None and self.coords.shape != (len(self.features), 2):
            raise ValueError(f"coords are {tuple(self.coords.shape)}, expected ({len(self.features)}, 2)")
        if self.slide is not None and self.slide.shape != (len(self.features),):
            raise ValueError(f"slide is {tuple(self.slide.shape)}, expected ({len(self.features)},)")
        if self.covariates is not None and len(self.covariates) != len(self.sizes):
            raise ValueError(f"covariates have {len(self.covariates)} rows, expected one for each of {len(self)} bags")

    @classmethod
    def pack(
        cls,
        features: Sequence[Tensor],
        coords: Sequence[Tensor | None] | None = None,
        dtype: torch.dtype | None = None,
        slide: Sequence[Tensor | None] | None = None,
        covariates: Tensor | None = None,
    ) -> Self:
        """Return a batch of bags `(n_i, d)`, in `dtype` if given; with coordinates only where every bag has them."""
        for bag, place in zip(features, coords or (), strict=coords is not None):
            if place is not None and len(place) != len(bag):
                raise ValueError(f"a bag has {len(bag)} tiles and {len(place)} coordinates, expected one for each")
        places = [place for place in coords or () if place is not None]
        joined = torch.cat(places) if len(places) == len(features) else None
        sizes = tuple(len(bag) for bag in features)
        annotations = (joined, _slides(sizes, slide or ()), covariates)
        if dtype is None:
            only = len(features) == 1  # a copy of one bag may be gigabytes
            return cls(features[0] if only else torch.cat(list(features)), sizes, *annotations)
        tiles = features[0].new_empty((sum(sizes), features[0].shape[1]), dtype=dtype)
        for bag, rows in zip(features, torch.split(tiles, list(sizes)), strict=True):
            _convert(bag, rows)
        return cls(tiles, sizes, *annotations)

    @classmethod
    def concat(cls, batches: Iterable["Bags"]) -> Self:
        """Return several batches as one."""
        bags = [bag for batch in batches for bag in batch]
        covariates = [bag.covariates for bag in bags if bag.covariates is not None]
        return cls.pack(
            [bag.features for bag in bags],
            [bag.coords for bag in bags],
            slide=[bag.slide for bag in bags],
            covariates=torch.cat(covariates) if len(covariates) == len(bags) else None,
        )

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator["Bags"]:
        return (self[bag] for bag in range(len(self)))

    def __getitem__(self, bag: int) -> "Bags":
        bag = range(len(self))[bag]
        start = sum(self.sizes[:bag])
        rows = slice(start, start + self.sizes[bag])
        return Bags(
            self.features[rows],
            (self.sizes[bag],),
            None if self.coords is None else self.coords[rows],
            None if self.slide is None else self.slide[rows],
            None if self.covariates is None else self.covariates[bag : bag + 1],
            self.precision,
        )

    @cached_property
    def offsets(self) -> Tensor:
        """First row of each bag and the number of rows, `(b + 1,)`."""
        return sent(torch.tensor((0, *self.sizes)).cumsum(0), self.features.device)

    @cached_property
    def bag(self) -> Tensor:
        """The bag of each tile, `(n,)`."""
        sizes = sent(torch.tensor(self.sizes), self.features.device)
        return torch.repeat_interleave(torch.arange(len(self), device=sizes.device), sizes, output_size=sum(self.sizes))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Bags":
        """Return the same bags on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Bags":
        """Return the same bags in page-locked memory, from which a GPU can copy while it computes.

        Tensors that are on a device stay there.
        """
        return self._map(lambda tensor: tensor.pin_memory() if tensor.device.type == "cpu" else tensor)

    def cast(self, dtype: torch.dtype) -> "Bags":
        """Return the same tiles in another precision: files hold half, models compute in single or bfloat16."""
        if self.features.dtype == dtype:
            return self if self.precision is None else self.with_features(self.features)
        if isinstance(self.features, TileRows):
            return self.with_features(self.features.to(dtype))
        features = torch.empty_like(self.features, dtype=dtype)
        _convert(self.features, features)
        return self.with_features(features)

    def cast_in_blocks(self, dtype: torch.dtype) -> "Bags":
        """Return the same tiles as stored, which `tilewise` converts block by block: no copy of all of them exists.

        For models that read `features` through `tilewise` only; on other devices than a CPU all are converted.
        """
        in_blocks = _loops(self.features) and not isinstance(self.features, TileRows)
        return replace(self, precision=dtype) if in_blocks else self.cast(dtype)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Bags":
        optional = (None if rows is None else change(rows) for rows in (self.coords, self.slide, self.covariates))
        coords, slide, covariates = optional
        return Bags(change(self.features), self.sizes, coords, slide, covariates, self.precision)

    def with_features(self, features: Tensor) -> "Bags":
        """Return the same tiles with other features `(n, d')`."""
        return replace(self, features=features, precision=None)

    def split(self, values: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return each bag's rows `(n_i, ...)` of `values` `(n, ...)`, by default of the features."""
        return torch.split(self.features if values is None else values, list(self.sizes))

    def tilewise(self, function: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Apply a `function` that treats every tile alike to the features `(n, d)`; it may return several `(n, ...)`.

        On CPU it is applied to blocks of rows: intermediate results stay in the cache, and the few block sizes avoid
        compiling a matrix product for each batch size. The last block may be padded with zeros.
        """
        if isinstance(self.features, TileRows):
            return tile_rows.apply(function, self.features)
        if not _loops(self.features):
            return function(self.features)
        precision = self.precision or self.features.dtype
        blocks = (_filled(function, rows.to(precision)) for rows in torch.split(self.features, BLOCK))
        if torch.is_grad_enabled():
            return tuple(torch.cat(values) for values in zip(*blocks, strict=True))
        return _joined(blocks, len(self.features))

    def spread(self, per_bag: Tensor) -> Tensor:
        """Repeat each bag's row for its tiles: `(b, ...)` to `(n, ...)`."""
        if isinstance(self.features, TileRows) and len(self) == 1:
            return per_bag.expand(len(self.features), *per_bag.shape[1:])  # a row for each tile may be gigabytes
        return per_bag.index_select(0, self.bag)

    def sum(self, values: Tensor, weight: Tensor | None = None) -> Tensor:
        """Sum `(n, k)` within bags to `(b, k)`; with `weight` `(n, h)` to `(b, h * k)`, head after head."""
        with torch.autocast(values.device.type, enabled=False):
            if weight is None:
                return self._reduce(_wide(values), lambda rows: rows.sum(0), "sum")
            return self._weighted(values, _wide(weight)).flatten(1)

    def mean(self, values: Tensor) -> Tensor:
        """Average `(n, k)` within bags to `(b, k)`."""
        sizes = sent(torch.tensor(self.sizes), values.device).unsqueeze(1)
        return self.sum(values) / sizes

    def max(self, values: Tensor) -> Tensor:
        """Return the maximum of each feature `(n, k)` within bags, `(b, k)`."""
        return self._reduce(values, lambda rows: rows.amax(0), "amax")

    def softmax(self, scores: Tensor) -> Tensor:
        """Return the softmax of `(n, h)` within bags, at least in float32."""
        precise = _precise(scores)
        if self._alike is not None and _loops(scores):
            shares = precise.reshape(len(self), self._alike, -1).softmax(1).flatten(0, 1)
        elif _loops(scores):
            shares = torch.cat([rows.softmax(0) for rows in self.split(precise)])
        else:
            exponentials = (precise - self.spread(self.max(precise.detach()))).exp()
            shares = exponentials / self.spread(self.sum(exponentials))
        return shares.to(_wide(scores).dtype)

    def topk(self, scores: Tensor, k: int, largest: bool = True) -> TopK:
        """Return the `k` tiles of each bag with the highest `scores` `(n,)`, in order; the lowest if not `largest`."""
        sign = 1 if largest else -1
        padded, mask = self.pad(sign * scores)  # (b, m), (b, m)
        # stable: the first of equals comes first, and tiles at infinity before the padding; NaN comes first of all, so
        # that a spoilt bag looks spoilt at either end
        ranked, order = padded.masked_fill(~mask, -torch.inf).sort(dim=1, descending=True, stable=True)
        ranked, order = sign * ranked[:, :k], order[:, :k]
        valid = mask.gather(1, order)
        values = torch.where(valid, ranked, torch.zeros_like(ranked))
        index = torch.where(valid, order, torch.zeros_like(order)) + self.offsets[:-1, None]
        missing = k - values.shape[1]
        return TopK(
            torch.nn.functional.pad(values, (0, missing)),
            torch.cat([index, self.offsets[:-1, None].expand(-1, missing)], 1),
            torch.nn.functional.pad(valid, (0, missing)),
        )

    def pad(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return `(n, ...)` padded with zeros to `(b, m, ...)`, m the largest bag, and the mask `(b, m)` of tiles."""
        longest = max(self.sizes)
        mask = torch.arange(longest, device=values.device) < torch.diff(self.offsets).unsqueeze(1)
        padded = values.new_zeros((len(self), longest, *values.shape[1:]))
        return padded.masked_scatter(mask.view(*mask.shape, *(1,) * (values.dim() - 1)), values), mask

    @cached_property
    def _alike(self) -> int | None:
        """Tiles of each bag where there are many bags of one size, else None."""
        return self.sizes[0] if len(self) >= MANY and len(set(self.sizes)) == 1 else None

    def _reduce(self, values: Tensor, reduce_bag: Callable[[Tensor], Tensor], reduction: str) -> Tensor:
        if isinstance(values, TileRows) and reduction == "sum":
            return tile_rows.sums(values, None, self.bag if len(self) > 1 else None, len(self))
        if self._alike is not None and _loops(values):
            rows = values.reshape(len(self), self._alike, *values.shape[1:])
            return rows.sum(1) if reduction == "sum" else rows.amax(1)
        if _loops(values):
            return torch.stack([reduce_bag(rows) for rows in self.split(values)])
        if reduction == "sum":
            return values.new_zeros((len(self), *values.shape[1:])).index_add(0, self.bag, values)
        index = self.bag.view(-1, *(1,) * (values.dim() - 1)).expand_as(values)
        empty = values.new_full((len(self), *values.shape[1:]), -torch.inf)
        return empty.scatter_reduce(0, index, values, reduction, include_self=False)

    def _weighted(self, values: Tensor, weight: Tensor) -> Tensor:
        """Return each head's weighted sum, `(b, h, k)`; by a matrix product for each bag, unless there are many."""
        dtype = torch.promote_types(values.dtype, weight.dtype)
        if isinstance(values, TileRows):
            return tile_rows.sums(values, weight, self.bag if len(self) > 1 else None, len(self)).to(dtype)
        if self._alike is not None and _loops(values):
            shape = (len(self), self._alike, -1)
            return weight.to(dtype).reshape(shape).transpose(1, 2) @ values.to(dtype).reshape(shape)
        if values.dtype in (torch.float16, torch.bfloat16) and (_loops(values) or len(self) <= MANY):
            sums: Tensor = WeightedSums.apply(weight, values, self.sizes)  # type: ignore[no-untyped-call]
            return sums
        if _loops(values) or len(self) <= MANY:
            pairs = zip(self.split(weight.to(dtype)), self.split(values), strict=True)
            return torch.stack([head.t() @ rows.to(dtype) for head, rows in pairs])
        products = weight.to(dtype).unsqueeze(2) * values.to(dtype).unsqueeze(1)  # (n, h, k)
        return products.new_zeros((len(self), *products.shape[1:])).index_add(0, self.bag, products)


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Return values of the host on a device, without waiting for it; a GPU copies from page-locked memory."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def _slides(sizes: Sequence[int], slide: Sequence[Tensor | None]) -> Tensor | None:
    """Return the slide of each tile; a bag without slides counts as one slide."""
    if all(index is None for index in slide):
        return None
    return torch.cat(
        [torch.zeros(n, dtype=torch.int64) if index is None else index for n, index in zip(sizes, slide, strict=True)]
    )


def _loops(values: Tensor) -> bool:
    """Return whether to loop over bags: on other devices than a CPU every bag would be a kernel launch."""
    return values.device.type == "cpu"


def _wide(values: Tensor) -> Tensor:
    """Return half precision as float32, for accumulation."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _precise(values: Tensor) -> Tensor:
    """Return double precision where the device has it."""
    return _wide(values) if values.device.type == "mps" else values.double()


def _convert(values: Tensor, out: Tensor) -> None:
    """Copy into another precision.

    On CPU half becomes bfloat16 by way of float32, in pieces that stay in the cache: three times as fast as torch.
    """
    if values.device.type == "cpu" and (values.dtype, out.dtype) == (torch.float16, torch.bfloat16):
        for piece, place in zip(torch.split(values, 256), torch.split(out, 256), strict=True):
            place.copy_(piece.float())
    else:
        out.copy_(values)


def _joined(blocks: Iterator[tuple[Tensor, ...]], count: int) -> tuple[Tensor, ...]:
    """Return the blocks' values, each `(count, ...)`, written in place: joined at the end they would exist twice."""
    out: tuple[Tensor, ...] = ()
    start = 0
    for values in blocks:
        out = out or tuple(value.new_empty((count, *value.shape[1:])) for value in values)
        end = start + len(values[0])
        for place, value in zip(out, values, strict=True):
            place[start:end] = value
        start = end
    return out


def _filled(function: Callable[[Tensor], tuple[Tensor, ...]], rows: Tensor) -> tuple[Tensor, ...]:
    """Return `function` of rows padded to a multiple of `UNIT`, without the padding; few rows are not padded."""
    missing = -len(rows) % UNIT if len(rows) > UNIT else 0
    if not missing:
        return function(rows)
    return tuple(values[: len(rows)] for values in function(torch.nn.functional.pad(rows, (0, 0, 0, missing))))
