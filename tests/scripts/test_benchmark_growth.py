"""The page of growth: exponents, and what was not measured."""

from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def growth(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("benchmark_growth")


def costs(growth: ModuleType, sizes: tuple[int, ...], power: float) -> list[object]:
    return [
        growth.Cost(
            axis="slides", size=size, command="check", seconds=9.0, processor_seconds=0.01 * size**power, peak_gb=0.5
        )
        for size in sizes
    ]


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_exponent_is_that_of_the_two_largest_sizes(growth: ModuleType, power: float) -> None:
    measured = costs(growth, (1000, 100, 10_000), power)
    assert growth.growth(measured, "processor_seconds") == pytest.approx(power)
    assert growth.growth(measured, "peak_gb") == pytest.approx(0)


def test_page_says_what_was_not_measured(growth: ModuleType) -> None:
    page = growth.page(costs(growth, (100, 1000), 1))
    assert "| `mil check` | 9.0 s, 1.0 s, 0.50 | 9.0 s, 10.0 s, 0.50 | n^1.00 | n^0.00 |" in page
    assert "| `mil train` | not measured | not measured |  |  |" in page


def test_figure_has_a_line_for_each_command(growth: ModuleType) -> None:
    axes = growth.figure(costs(growth, (100, 1000), 1)).axes
    assert [len(axis.lines) for axis in axes] == [5, 4, 5, 4]
