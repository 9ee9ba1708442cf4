"""Tensors of tiles that are too large to be held: computed in blocks of rows whenever they are read.

`TileRows` looks like a tensor `(n, ...)` of torch, with a shape and a type but without values. What treats every tile
alike (a linear layer, a product with a column, `Bags.tilewise`) gives another such tensor; what has few values (the
scores of the tiles, sums over them) is computed at once, in one pass over the blocks, and is a plain tensor. Anything
else computes the whole tensor first: the result is right, and the memory is that of a model that reads whole bags.

There are no gradients: this is for prediction.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor

READ_ROWS = 2048
"""Rows that are computed at a time."""
HELD_BYTES = 2**27
"""Results up to this size are computed at once; larger ones whenever they are read."""

Reader = Callable[[int, int], Tensor]
"""Returns the rows from the first number up to the second one."""


class TileRows(Tensor):
    """A tensor `(n, ...)` whose rows are computed when they are read.

    Attributes:
        reader: Returns rows in their order.
        order: For rows of another tensor in another order `(n,)`: their numbers there; `reader` then counts as there.
        stored: Number of rows that `reader` knows.
        held: All rows, where they are in memory after all.
    """

    reader: Reader
    order: Tensor | None
    stored: int
    held: Tensor | None

    @staticmethod
    def __new__(cls, reader: Reader, like: Tensor, rows: int, order: Tensor | None = None) -> Self:
        """Return a tensor of as many rows, in shape, type and device `like` some of its rows."""
        shape = (rows if order is None else len(order), *like.shape[1:])
        made: Self = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)
        made.reader, made.order, made.stored, made.held = _remembering(reader), order, rows, None
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Compute `func` block by block where every tile is treated alike, or else on the whole tensor."""
        name = getattr(func, "__name__", "")
        options = dict(kwargs or {})
        if name in _OF_SHAPE:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **options)
        special = _SPECIAL.get(name)
        result = NotImplemented if special is None else special(*args, **options)
        if result is NotImplemented and _alike(name, args, options):
            result = _row_by_row(func, args, options)
        if result is NotImplemented:
            result = func(*map(whole, args), **{key: whole(value) for key, value in options.items()})
        return result

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's own declaration has no class
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Compute `func` on the whole tensor: what reaches this is nothing that `__torch_function__` knows."""
        return func(*map(whole, args), **{key: whole(value) for key, value in (kwargs or {}).items()})

    def __repr__(self) -> str:  # type: ignore[override]  # nothing calls it with torch's option
        """Return shape and type: the values are not there."""
        return f"TileRows({tuple(self.shape)}, {self.dtype})"


def blocks(values: Tensor, rows: int | None = None) -> Iterator[Tensor]:
    """Yield the rows of a tensor in their order, some at a time, as plain tensors."""
    if not isinstance(values, TileRows):
        yield from torch.split(values, rows or READ_ROWS)
        return
    source = values if values.order is None else whole(values)
    size = rows or READ_ROWS
    for start in range(0, len(source), size):
        yield read(source, start, min(start + size, len(source)))


def read(values: Tensor, start: int, stop: int) -> Tensor:
    """Return rows of a tensor that is in the order in which it is computed."""
    return values.reader(start, stop) if isinstance(values, TileRows) else values[start:stop]


def whole(values: Any) -> Any:
    """Return a plain tensor with all rows; lists and tuples are searched for tensors, all else is as it was."""
    if isinstance(values, list | tuple) and any(isinstance(value, TileRows) for value in values):
        return type(values)(map(whole, values))
    if not isinstance(values, TileRows):
        return values
    if values.held is not None:
        return values.held
    rows = _collected(values.reader, values.stored)
    return rows if values.order is None else rows[values.order]


def computed_once(values: Tensor) -> Tensor:
    """Return the same rows, computed now and held in memory; what is computed of them is still computed in blocks."""
    if not isinstance(values, TileRows) or values.held is not None:
        return values
    return held(whole(values))


def held(rows: Tensor) -> TileRows:
    """Return rows in memory as a tensor of which everything else is computed in blocks."""
    made = TileRows(lambda start, stop: rows[start:stop], rows, len(rows))
    made.held = rows
    return made


def apply(function: Callable[[Tensor], tuple[Tensor, ...]], values: TileRows) -> tuple[Tensor, ...]:
    """Return what a function of some rows gives for all; small results are computed at once, in one pass."""
    reader = values.reader

    def computed(start: int, stop: int) -> tuple[Tensor, ...]:
        return function(reader(start, stop))

    latest = _remembering(computed)
    samples = computed(0, min(2, values.stored))
    at_once = [position for position, sample in enumerate(samples) if _is_held(sample, values.stored)]
    collected = dict(zip(at_once, _collected_of(latest, values.stored, samples, at_once), strict=True))
    readers = [_picked(latest, position) for position in range(len(samples))]
    return tuple(
        _ordered(collected[position], values.order)
        if position in collected
        else TileRows(readers[position], sample, values.stored, values.order)
        for position, sample in enumerate(samples)
    )


def mapped(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """Return what a function that treats every row alike gives for a tensor; in blocks where it is read in blocks."""
    return apply(lambda rows: (function(rows),), values)[0] if isinstance(values, TileRows) else function(values)


def sums(values: TileRows, weight: Tensor | None, bag: Tensor | None, bags: int) -> Tensor:
    """Return each bag's sums `(b, ...)`, with `weight` `(n, h)` those of each head, `(b, h, ...)`.

    Args:
        values: `(n, ...)`; `(n, k)` with weights.
        weight: Weight of each tile in each head.
        bag: Number of each tile's bag `(n,)`; None where there is one bag.
        bags: Number of bags.
    """
    weight, bag = (None if rows is None else _unordered(rows, values.order, values.stored) for rows in (weight, bag))
    total: Tensor | None = None
    for start in range(0, values.stored, READ_ROWS):
        stop = min(start + READ_ROWS, values.stored)
        rows = values.reader(start, stop)
        rows = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
        share = None if weight is None else weight[start:stop].to(rows.dtype)  # (r, h)
        if bag is None:
            part = (rows.sum(0) if share is None else share.t() @ rows).unsqueeze(0)
        else:
            present, within = torch.unique(bag[start:stop], return_inverse=True)
            each = rows if share is None else share.unsqueeze(2) * rows.unsqueeze(1)
            part = each.new_zeros((len(present), *each.shape[1:])).index_add(0, within, each)
        # many sums of blocks are added: in double precision where the device has it
        precise = part if part.device.type == "mps" else part.double()
        total = precise.new_zeros((bags, *part.shape[1:])) if total is None else total
        if bag is None:
            total += precise
        else:
            total.index_add_(0, present, precise)
        dtype = part.dtype
    assert total is not None
    return total.to(dtype)


def maxima(values: TileRows) -> Tensor:
    """Return the largest value of each column, `(1, ...)`."""
    largest: Tensor | None = None
    for start in range(0, values.stored, READ_ROWS):
        top = values.reader(start, min(start + READ_ROWS, values.stored)).amax(0, keepdim=True)
        largest = top if largest is None else torch.maximum(largest, top)
    assert largest is not None
    return largest


def _remembering(reader: Callable[[int, int], Any]) -> Callable[[int, int], Any]:
    """Return a reader that remembers the latest rows: several results of one block read it once."""
    latest: dict[tuple[int, int], Any] = {}

    def remembered(start: int, stop: int) -> Any:
        if (start, stop) not in latest:
            latest.clear()
            latest[start, stop] = reader(start, stop)
        return latest[start, stop]

    return remembered


def _picked(reader: Callable[[int, int], tuple[Tensor, ...]], position: int) -> Reader:
    return lambda start, stop: reader(start, stop)[position]


def _now_or_later(reader: Reader, rows: int, order: Tensor | None = None) -> Tensor:
    """Return rows computed at once where they are small, and whenever they are read where they are large."""
    sample = reader(0, min(2, rows))
    made = TileRows(reader, sample, rows, order)
    return cast(Tensor, whole(made)) if _is_held(sample, rows) else made


def _is_held(sample: Tensor, rows: int) -> bool:
    return rows * sample[:1].numel() * sample.element_size() <= HELD_BYTES


def _collected(reader: Reader, rows: int) -> Tensor:
    return _collected_of(lambda start, stop: (reader(start, stop),), rows, (reader(0, min(2, rows)),), [0])[0]


def _collected_of(
    reader: Callable[[int, int], tuple[Tensor, ...]], rows: int, samples: Sequence[Tensor], positions: Sequence[int]
) -> list[Tensor]:
    """Return all rows of some results, written in place."""
    out = [samples[position].new_empty((rows, *samples[position].shape[1:])) for position in positions]
    for start in range(0, rows if positions else 0, READ_ROWS):
        stop = min(start + READ_ROWS, rows)
        values = reader(start, stop)
        for place, position in zip(out, positions, strict=True):
            place[start:stop] = values[position]
    return out


def _ordered(rows: Tensor, order: Tensor | None) -> Tensor:
    return rows if order is None else rows[order]


def _unordered(rows: Tensor, order: Tensor | None, stored: int) -> Tensor:
    """Return the rows as the source of a reordered tensor has them; rows that were left out are zero."""
    if order is None:
        return rows
    return rows.new_zeros((stored, *rows.shape[1:])).index_copy_(0, order, rows)


# What is known of functions of torch, by name.

_OF_SHAPE = frozenset(
    {"__get__", "size", "dim", "ndimension", "numel", "nelement", "element_size", "is_floating_point", "__len__"}
)
_ALIKE = frozenset(
    {"add", "sub", "rsub", "mul", "div", "true_divide", "neg", "square", "exp", "log", "sqrt", "relu", "tanh"}
    | {"sigmoid", "silu", "gelu", "leaky_relu", "softplus", "clamp", "clamp_min", "to", "float", "double", "type_as"}
    | {"detach", "contiguous", "linear", "layer_norm", "__add__", "__radd__", "__sub__", "__rsub__", "__mul__"}
    | {"__rmul__", "__truediv__", "__rtruediv__", "__neg__"}
)
"""Functions that compute every row by itself from the same row of all arguments."""
_ALONG = frozenset({"sum", "mean", "softmax", "chunk", "unbind", "unsqueeze", "squeeze", "flatten", "unflatten"})
"""Functions that do so where the dimension they are given is not the first."""


def _alike(name: str, args: Sequence[Any], options: Any) -> bool:
    if name in _ALIKE:
        return True
    dimension = options.get("dim", args[1] if len(args) > 1 else 0)
    rank = args[0].dim() if isinstance(args[0], Tensor) else 0
    return name in _ALONG and isinstance(dimension, int) and dimension not in (0, -rank) and name != "chunk"


def _row_by_row(func: Any, args: Sequence[Any], options: Any) -> Any:
    """Return a function of the rows of all arguments, or NotImplemented where their rows do not belong together."""
    tensors = [value for value in args if isinstance(value, Tensor)]
    rows = [value for value in tensors if isinstance(value, TileRows)]
    if any(isinstance(value, TileRows) for value in options.values()) or (rows[0] is not args[0] and len(rows) > 1):
        return NotImplemented
    first = rows[0]
    if any(value.order is not first.order or value.stored != first.stored for value in rows):
        return NotImplemented
    weights = {"linear", "layer_norm"}
    aligned = [
        isinstance(value, TileRows)
        or (
            isinstance(value, Tensor)
            and func.__name__ not in weights
            and value.dim() == first.dim()
            and len(value) == len(first)
        )
        for value in args
    ]
    sources = [
        _unordered(value, first.order, first.stored)
        if of_rows and isinstance(value, Tensor) and not isinstance(value, TileRows)
        else value
        for value, of_rows in zip(args, aligned, strict=True)
    ]

    def computed(start: int, stop: int) -> Tensor:
        pieces = [
            read(value, start, stop) if of_rows else value for value, of_rows in zip(sources, aligned, strict=True)
        ]
        result: Tensor = func(*pieces, **options)
        return result

    return _now_or_later(computed, first.stored, first.order)


def _split(values: Any, sizes: Any, dim: int = 0) -> Any:
    return (
        (values,)
        if dim == 0 and list(sizes if isinstance(sizes, list | tuple) else ()) == [len(values)]
        else whole(values).split(sizes, dim)
    )


def _sum(values: Any, dim: Any = None, **options: Any) -> Any:
    return (
        sums(values, None, None, 1)[0] if dim == 0 and not options and isinstance(values, TileRows) else NotImplemented
    )


def _amax(values: Any, dim: Any = None, keepdim: bool = False) -> Any:
    if dim not in (0, (0,)) or values.order is not None:
        return NotImplemented
    return maxima(values) if keepdim else maxima(values)[0]


def _matmul(left: Any, right: Any) -> Any:
    if not isinstance(right, TileRows):
        return _row_by_row(_Product(), (left, right), {})
    if isinstance(left, TileRows) or left.dim() != 2 or right.dim() != 2:
        return NotImplemented
    return sums(right, left.t(), None, 1)[0].to(torch.promote_types(left.dtype, right.dtype))


class _Product:
    """The product with a matrix that has no row for each tile."""

    __name__ = "linear"

    def __call__(self, rows: Tensor, matrix: Tensor) -> Tensor:
        return rows @ matrix


def _getitem(values: Any, index: Any) -> Any:
    if isinstance(index, Tensor) and index.dtype == torch.int64 and isinstance(values, TileRows):
        return _taken(values, index)
    if isinstance(index, slice) and isinstance(values, TileRows) and index.step in (None, 1) and values.order is None:
        first, last, _ = index.indices(len(values))
        reader = values.reader
        sample = reader(0, min(2, values.stored))
        return TileRows(lambda start, stop: reader(first + start, first + stop), sample, max(last - first, 0))
    if isinstance(index, tuple) and index and index[0] == slice(None):
        return _row_by_row(_Columns(index), (values,), {})
    return NotImplemented


class _Columns:
    """Some of the columns."""

    __name__ = "columns"

    def __init__(self, index: tuple[Any, ...]) -> None:
        self.index = index

    def __call__(self, rows: Tensor) -> Tensor:
        return rows[self.index]


def _index_select(values: Any, dim: int, index: Any) -> Any:
    return _taken(values, index) if dim == 0 and isinstance(values, TileRows) else NotImplemented


def _taken(values: TileRows, index: Tensor) -> Tensor:
    """Return rows by their numbers: few at once, many as the same rows in another order."""
    numbers = index if values.order is None else values.order[index]
    sample = values.reader(0, min(2, values.stored))
    flat = numbers.flatten()
    if index.dim() == 1 and not _is_held(sample, len(flat)) and int(torch.bincount(flat).max()) == 1:
        return TileRows(values.reader, sample, values.stored, flat)
    rows = sample.new_empty((len(flat), *sample.shape[1:]))
    block = torch.div(flat, READ_ROWS, rounding_mode="floor")
    for number in torch.unique(block).tolist():
        start = number * READ_ROWS
        chosen = block == number
        rows[chosen] = values.reader(start, min(start + READ_ROWS, values.stored))[flat[chosen] - start]
    return rows.view(*numbers.shape, *sample.shape[1:])


def _cat(tensors: Any, dim: int = 0) -> Any:
    if len(tensors) == 1:
        return tensors[0]
    if dim == 0 or any(isinstance(rows, TileRows) and rows.order is not None for rows in tensors):
        return NotImplemented
    rows = len(tensors[0])
    return _now_or_later(lambda start, stop: torch.cat([read(part, start, stop) for part in tensors], dim), rows)


def _new(name: str) -> Callable[..., Any]:
    def made(values: Any, *args: Any, **options: Any) -> Any:
        return getattr(values.reader(0, 1), name)(*args, **options)

    return made


_SPECIAL: Mapping[str, Callable[..., Any]] = {
    "split": _split,
    "sum": _sum,
    "amax": _amax,
    "matmul": _matmul,
    "__matmul__": _matmul,
    "__getitem__": _getitem,
    "index_select": _index_select,
    "cat": _cat,
    **{name: _new(name) for name in ("new_zeros", "new_empty", "new_full", "new_ones")},
}
