"""One way to write a number, and what an estimate keeps when its scale or its counts change."""

import json
import math

import numpy as np
import pytest

from mil.stats.estimate import Bounds, Estimate, format_count, format_number, format_p

AREA = Estimate(value=0.9036, low=0.851, high=0.9504, method="DeLong", counts={"n": 200, "MSI-H": 30})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.9036, "0.904"),
        (-0.25, "-0.250"),
        (12.345, "12.3"),
        (-12.345, "-12.3"),
        (0.00012345, "0.00012"),
        (-0.00012345, "-0.00012"),
        (0.0, "0.000"),
        (1e-12, "0.000"),
        (-0.0, "0.000"),
        (-1e-12, "0.000"),
    ],
)
def test_numbers_have_three_decimals_large_ones_one_and_small_ones_two_digits(value: float, text: str) -> None:
    assert format_number(value) == text


def test_a_p_value_is_never_zero_and_a_class_that_is_a_number_is_marked() -> None:
    assert (format_p(0.0), format_p(0.0009), format_p(0.001), format_p(0.5)) == ("< 0.001", "< 0.001", "0.001", "0.500")
    assert (format_count("MSI-H", 36), format_count("1", 36)) == ("MSI-H 36", "class 1: 36")


def test_an_estimate_writes_value_interval_and_counts() -> None:
    assert str(AREA) == "0.904 (0.851 to 0.950)"
    assert AREA.described == "0.904 (0.851 to 0.950), n 200, MSI-H 30"
    assert Estimate(value=0.5, counts={"n": 36, "successes": 18}).population == "18 of 36"
    assert str(Estimate(value=2.0)) == "2.000"
    assert str(Estimate(value=1.0, reason="no variance")) == "1.000 (interval not estimable: no variance)"
    assert str(Estimate(value=2.0, low=1.5)) == "2.000 (1.500 to …)"
    assert str(Estimate.missing("no positives")) == "not estimable: no positives"
    assert str(Estimate(value=None)) == "not estimable"


def test_what_is_not_finite_is_none_and_survives_json() -> None:
    estimate = Estimate(value=math.nan, low=-math.inf, high=np.float64("inf"), folds=(1.0, math.nan))
    assert (estimate.value, estimate.low, estimate.high, estimate.folds) == (None, None, None, (1.0, None))
    second = AREA.model_copy(update={"second": Bounds(low=0.8, high=1.0, method="exact")})
    for each in (AREA, estimate, second):
        assert Estimate.model_validate(json.loads(each.model_dump_json())) == each


def test_a_falling_function_exchanges_the_bounds() -> None:
    rising, falling = AREA.transformed(lambda x: 2 * x), AREA.transformed(lambda x: 1 - x, falling=True)
    assert (rising.value, rising.low, rising.high) == (2 * 0.9036, 2 * 0.851, 2 * 0.9504)
    assert (falling.value, falling.low, falling.high) == (1 - 0.9036, 1 - 0.9504, 1 - 0.851)
    assert (falling.method, falling.counts) == (AREA.method, AREA.counts)
    open_ended = Estimate(value=1.0, low=0.5).transformed(math.exp)
    assert (open_ended.low, open_ended.high) == (math.exp(0.5), None)


def test_a_reason_is_given_to_missing_values_only() -> None:
    assert AREA.explained("no positives") == AREA
    missing = Estimate(value=None, method="DeLong").explained("no positives")
    assert (missing.reason, missing.method) == ("no positives", "DeLong")
    assert AREA.with_counts({"n": 7}).n == 7


def test_a_caveat_is_shown_wherever_the_estimate_is() -> None:
    estimate = Estimate(value=0.9, low=0.8, high=0.95, counts={"n": 30}).with_caveat("the lowest of 6 groups")
    assert estimate.described == "0.900 (0.800 to 0.950) [the lowest of 6 groups], n 30"
    assert str(Estimate(value=0.9).with_caveat("few")) == "0.900 [few]"
    assert Estimate.missing("nobody").with_caveat("few").caveat is None
    assert Estimate.model_validate_json(estimate.model_dump_json()) == estimate
