"""Operations on packed bags against a loop over bags in numpy, for both implementations."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from mil import bags as module
from mil.bags import Bags

Rows = NDArray[np.float64]
Reduction = Callable[[Bags, Tensor], Tensor]
few = settings(deadline=None, max_examples=25)
ways = pytest.mark.parametrize("way", ["loop", "index"])
ragged = st.lists(st.integers(1, 7), min_size=1, max_size=6)
seeds = st.integers(0, 2**32 - 1)


@contextmanager
def computed(way: str) -> Iterator[None]:
    """Select the implementation: the loop over bags of a CPU, or the index arithmetic of other devices."""
    with mock.patch.object(module, "_loops", return_value=way == "loop"):
        yield


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def packed(sizes: list[int], seed: int = 0, width: int = 3) -> Bags:
    tiles = sum(sizes)
    return Bags(normal(seed, tiles, width), tuple(sizes), torch.arange(2 * tiles).view(tiles, 2) * 256)


def rows_by_bag(sizes: list[int], values: Tensor) -> list[Rows]:
    """Return the rows of each bag, cut out in turn."""
    start, rows = 0, []
    for size in sizes:
        rows.append(np.array([values[row].detach().numpy() for row in range(start, start + size)]))
        start += size
    return rows


def shares(rows: Rows) -> Rows:
    exponentials = np.exp(rows - rows.max(0))
    return np.asarray(exponentials / exponentials.sum(0))


PER_BAG: dict[str, tuple[Reduction, Callable[[Rows], Rows]]] = {
    "sum": (Bags.sum, lambda rows: np.add.reduce(rows)),
    "mean": (Bags.mean, lambda rows: np.add.reduce(rows) / len(rows)),
    "max": (Bags.max, lambda rows: np.maximum.reduce(rows)),
}
DIFFERENTIABLE: dict[str, Reduction] = {
    **{name: reduction for name, (reduction, _) in PER_BAG.items()},
    "softmax": Bags.softmax,
    "weighted sum": lambda bags, values: bags.sum(values[:, :1].exp(), weight=values),
    "spread": lambda bags, values: bags.spread(bags.sum(values)),
    "pad": lambda bags, values: bags.pad(values)[0],
    "highest": lambda bags, values: bags.topk(values[:, 0], 2).values,
    "lowest": lambda bags, values: bags.topk(values[:, 0], 2, largest=False).values,
}
named = pytest.mark.parametrize("name", DIFFERENTIABLE)


@ways
@pytest.mark.parametrize("name", PER_BAG)
@few
@given(sizes=ragged, seed=seeds)
def test_reductions_match_a_loop_over_bags(way: str, name: str, sizes: list[int], seed: int) -> None:
    reduction, expected = PER_BAG[name]
    bags = packed(sizes, seed)
    with computed(way):
        reduced = reduction(bags, bags.features)
    np.testing.assert_allclose(
        reduced, [expected(rows) for rows in rows_by_bag(sizes, bags.features)], rtol=0, atol=1e-13
    )


@ways
@few
@given(sizes=ragged, seed=seeds)
def test_softmax_matches_a_loop_over_bags(way: str, sizes: list[int], seed: int) -> None:
    bags = packed(sizes, seed)
    with computed(way):
        softmax = bags.softmax(50 * bags.features)
    expected = [shares(rows) for rows in rows_by_bag(sizes, 50 * bags.features)]
    np.testing.assert_allclose(softmax, np.concatenate(expected), rtol=0, atol=1e-14)


@ways
@few
@given(sizes=ragged, seed=seeds, heads=st.integers(1, 3))
def test_weighted_sums_are_concatenated_by_head(way: str, sizes: list[int], seed: int, heads: int) -> None:
    bags, weight = packed(sizes, seed), normal(seed, sum(sizes), heads)
    with computed(way):
        sums = bags.sum(bags.features, weight)
    pairs = zip(rows_by_bag(sizes, weight), rows_by_bag(sizes, bags.features), strict=True)
    expected = [
        [sum(w[tile, head] * rows[tile, k] for tile in range(len(rows))) for head in range(heads) for k in range(3)]
        for w, rows in pairs
    ]
    np.testing.assert_allclose(sums, expected, rtol=0, atol=1e-13)


@ways
@named
def test_gradients_match_finite_differences(way: str, name: str) -> None:
    bags = packed([1, 4, 2], seed=1)
    values = bags.features.clone().requires_grad_()
    with computed(way):
        assert torch.autograd.gradcheck(lambda given: DIFFERENTIABLE[name](bags, given), (values,))


@ways
def test_gradients_of_a_weighted_sum_reach_values_and_weights(way: str) -> None:
    bags, weight = packed([3, 1, 2]), normal(5, 6, 2).requires_grad_()
    with computed(way):
        assert torch.autograd.gradcheck(bags.sum, (bags.features.clone().requires_grad_(), weight))


@named
@few
@given(sizes=ragged, seed=seeds)
def test_both_implementations_agree_in_values_and_gradients(name: str, sizes: list[int], seed: int) -> None:
    results = []
    for way in ("loop", "index"):
        values = packed(sizes, seed).features.round().requires_grad_()
        with computed(way):
            result = DIFFERENTIABLE[name](packed(sizes), values)
            (gradient,) = torch.autograd.grad(result, values, normal(seed, *result.shape))
        results.append((result.detach(), gradient))
    torch.testing.assert_close(results[0], results[1], rtol=1e-13, atol=1e-13)


@few
@given(sizes=ragged, seed=seeds, k=st.integers(1, 9), largest=st.booleans())
def test_topk_sorts_each_bag_and_marks_padding_as_invalid(sizes: list[int], seed: int, k: int, largest: bool) -> None:
    bags = packed(sizes, seed)
    scores = bags.features[:, 0].round()  # with ties
    top = bags.topk(scores, k, largest)
    assert top.values.shape == top.index.shape == top.valid.shape == (len(sizes), k)
    for bag, rows in enumerate(rows_by_bag(sizes, scores)):
        start, filled = sum(sizes[:bag]), min(k, sizes[bag])
        order = sorted(range(len(rows)), key=lambda row: -rows[row] if largest else rows[row])[:filled]
        assert top.values[bag].tolist() == [rows[row] for row in order] + [0] * (k - filled)
        assert top.index[bag].tolist() == [start + row for row in order] + [start] * (k - filled)
        assert top.valid[bag].tolist() == [True] * filled + [False] * (k - filled)


@pytest.mark.parametrize("largest", [True, False])
def test_topk_keeps_tiles_at_infinity_before_the_padding(largest: bool) -> None:
    worst = -torch.inf if largest else torch.inf
    top = Bags(torch.zeros(6, 1), (2, 4)).topk(torch.tensor([worst, worst, 1, 2, 3, worst]), 4, largest)
    assert top.valid.tolist() == [[True, True, False, False], [True] * 4]
    assert top.values[0].tolist() == [worst, worst, 0, 0]


@few
@given(sizes=ragged, trailing=st.lists(st.integers(1, 3), max_size=2), dtype=st.sampled_from([torch.int64, torch.bool]))
def test_pad_appends_zeros_to_each_bag(sizes: list[int], trailing: list[int], dtype: torch.dtype) -> None:
    bags = packed(sizes)
    values = (normal(1, sum(sizes), *trailing) * 9).to(dtype)
    padded, mask = bags.pad(values)
    assert padded.shape == (len(sizes), max(sizes), *trailing)
    assert padded.dtype == dtype
    for bag, rows in enumerate(bags.split(values)):
        assert torch.equal(padded[bag, : sizes[bag]], rows)
        assert not padded[bag, sizes[bag] :].any()
        assert mask[bag].tolist() == [True] * sizes[bag] + [False] * (max(sizes) - sizes[bag])
    assert torch.equal(padded[mask], values)


@few
@given(ragged)
def test_split_and_spread_follow_the_offsets(sizes: list[int]) -> None:
    bags = packed(sizes)
    assert bags.offsets.tolist() == [sum(sizes[:bag]) for bag in range(len(sizes) + 1)]
    assert bags.bag.tolist() == [bag for bag, size in enumerate(sizes) for _ in range(size)]
    assert [len(rows) for rows in bags.split()] == sizes
    assert torch.equal(torch.cat(bags.split(bags.coords)), torch.arange(2 * sum(sizes)).view(-1, 2) * 256)
    per_bag = normal(0, len(sizes), 2)
    assert torch.equal(bags.spread(per_bag), torch.stack([per_bag[bag] for bag in bags.bag.tolist()]))


@few
@given(ragged, ragged)
def test_concatenating_single_bags_restores_the_batch(first: list[int], second: list[int]) -> None:
    batches = [packed(first, 0), packed(second, 1)]
    joined = Bags.concat(batches)
    assert joined.sizes == (*first, *second)
    assert torch.equal(joined.features, torch.cat([part.features for part in batches]))
    again = Bags.concat(joined[bag] for bag in range(len(joined)))
    assert again.sizes == joined.sizes
    assert torch.equal(again.features, joined.features)
    assert again.coords is not None
    assert joined.coords is not None
    assert torch.equal(again.coords, joined.coords)


def test_bags_can_be_indexed_from_either_end() -> None:
    bags = packed([2, 1, 3])
    assert torch.equal(bags[-1].features, bags.features[3:])
    assert bags[1].sizes == (1,)
    assert len(bags) == sum(1 for _ in bags) == 3
    with pytest.raises(IndexError):
        bags[3]


def test_coordinates_are_kept_only_if_every_bag_has_them() -> None:
    features, place = [torch.zeros(2, 1), torch.zeros(1, 1)], torch.ones(2, 2)
    assert Bags.pack(features, [place, None]).coords is None
    assert Bags.pack(features).coords is None
    complete = Bags.pack(features, [place, torch.zeros(1, 2)])
    assert complete.coords is not None
    assert complete.coords.tolist() == [[1, 1], [1, 1], [0, 0]]
    assert Bags.concat([complete, Bags.pack(features)]).coords is None


def test_with_features_keeps_sizes_and_coordinates() -> None:
    bags = packed([2, 3])
    assert bags.cast(torch.bfloat16).features.dtype == torch.bfloat16
    assert bags.with_features(torch.zeros(5, 9)).features.shape == (5, 9)
    for changed in (bags.cast(torch.float16), bags.with_features(torch.zeros(5, 9))):
        assert changed.sizes == bags.sizes
        assert changed.coords is bags.coords
    with pytest.raises(ValueError, match="sizes sum to 5, features have 4 rows"):
        bags.with_features(torch.zeros(4, 3))


@pytest.mark.parametrize("source", [torch.float16, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("target", [torch.float16, torch.float32, torch.bfloat16])
def test_cast_equals_torch_bit_for_bit(source: torch.dtype, target: torch.dtype) -> None:
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.float16)  # every float16 value
    features = patterns[patterns.isfinite()].to(source).view(-1, 2)
    assert torch.equal(Bags(features, (len(features),)).cast(target).features, features.to(target))


@pytest.mark.parametrize("located", [True, False])
def test_every_tensor_moves_to_the_device(located: bool) -> None:
    bags = packed([2, 3]) if located else Bags(torch.zeros(5, 3), (2, 3))
    moved = bags.to("meta", non_blocking=True)
    assert moved.sizes == bags.sizes
    assert moved.features.device.type == moved.offsets.device.type == moved.bag.device.type == "meta"
    assert (moved.coords.device.type if moved.coords is not None else None) == ("meta" if located else None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory is CUDA's")
def test_every_tensor_is_pinned() -> None:
    pinned = packed([2, 3]).pin_memory()
    assert pinned.features.is_pinned()
    assert pinned.coords is not None
    assert pinned.coords.is_pinned()


@ways
def test_sums_of_half_precision_are_exact_beyond_256(way: str) -> None:
    ones = torch.ones(20_300, 2, dtype=torch.bfloat16)  # bfloat16 cannot count beyond 256
    bags = Bags(ones, (300, 20_000))
    with computed(way), torch.autocast("cpu", dtype=torch.bfloat16):
        assert bags.sum(ones).tolist() == [[300, 300], [20_000, 20_000]]
        assert bags.mean(ones).tolist() == [[1, 1], [1, 1]]
        assert bags.sum(ones, weight=ones[:, :1]).tolist() == [[300, 300], [20_000, 20_000]]
        assert bags.sum(ones).dtype == bags.mean(ones).dtype == bags.sum(ones, weight=ones).dtype == torch.float32


@ways
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_softmax_of_a_large_bag_sums_to_one(way: str, heads: int, dtype: torch.dtype) -> None:
    scores = normal(0, 20_103, heads).to(dtype)
    bags = Bags(scores, (3, 20_000, 100))
    with computed(way), torch.autocast("cpu", dtype=torch.bfloat16):
        shares = bags.softmax(scores)
    assert shares.dtype == torch.float32
    totals = torch.stack([rows.double().sum(0) for rows in bags.split(shares)])
    torch.testing.assert_close(totals, torch.ones_like(totals), rtol=0, atol=1e-6)


@ways
def test_mixed_dtypes_are_summed_in_the_finer_one(way: str) -> None:
    bags = packed([3, 2])
    weight = bags.features[:, :1].float()
    with computed(way):
        torch.testing.assert_close(
            bags.sum(bags.features, weight), bags.sum(bags.features * weight), rtol=0, atol=1e-14
        )


@ways
@named
def test_nan_in_one_bag_does_not_affect_others(way: str, name: str) -> None:
    bags = packed([2, 4, 3])
    results = []
    for spoilt in (False, True):
        values = bags.features.clone()
        values[2:6] = torch.nan if spoilt else values[2:6]
        values.requires_grad_()
        with computed(way):
            result = DIFFERENTIABLE[name](bags, values)
            (gradient,) = torch.autograd.grad(result.sum(), values)
        rows = bags.split(result) if len(result) == 9 else result
        results.append((rows[0].detach(), rows[2].detach(), gradient[:2], gradient[6:]))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("sizes", "coords", "message"),
    [
        ((), None, r"every bag needs at least one tile, found sizes \(\)"),
        ((4, 0), None, r"every bag needs at least one tile, found sizes \(4, 0\)"),
        ((5, -1), None, "every bag needs at least one tile"),
        ((2, 3), None, "sizes sum to 5, features have 4 rows"),
        ((4,), torch.zeros(3, 2), r"coords are \(3, 2\), expected \(4, 2\)"),
        ((4,), torch.zeros(4, 3), r"coords are \(4, 3\), expected \(4, 2\)"),
    ],
)
def test_inconsistent_sizes_and_coordinates_are_refused(
    sizes: tuple[int, ...], coords: Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Bags(torch.zeros(4, 1), sizes, coords)


def test_missing_coordinates_of_one_bag_are_refused() -> None:
    with pytest.raises(ValueError, match="a bag has 2 tiles and 3 coordinates"):
        Bags.pack([torch.zeros(2, 1), torch.zeros(3, 1)], [torch.zeros(3, 2), torch.zeros(2, 2)])
    with pytest.raises(ValueError, match="shorter"):
        Bags.pack([torch.zeros(2, 1), torch.zeros(3, 1)], [torch.zeros(2, 2)])


@pytest.mark.parametrize("largest", [True, False])
def test_topk_returns_nan_tiles_first(largest: bool) -> None:
    top = Bags(torch.zeros(5, 1), (2, 3)).topk(torch.tensor([1, 2, 3, torch.nan, 5]), 2, largest)
    assert top.values[1, 0].isnan()
    assert top.values[0].isfinite().all()


def test_each_bag_of_a_batch_has_its_own_covariates() -> None:
    covariates = normal(0, 3, 2)
    for number, bag in enumerate(replace(packed([2, 1, 4]), covariates=covariates)):
        assert bag.covariates is not None
        assert bag.covariates.equal(covariates[number : number + 1])
