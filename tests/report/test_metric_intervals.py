"""Second intervals, for the method: they stay within the range of their metric."""

import pytest

from mil.report.metric_intervals import for_method
from mil.stats.estimate import Estimate


@pytest.mark.parametrize(
    ("name", "folds", "low", "high"),
    [
        ("auroc", (0.3, 0.95), 0.0, 1.0),
        ("qwk", (-0.6, 0.9), -1.0, 1.0),
        ("mae", (0.1, 9.0), 0.0, None),
        ("r2", (-5.0, 0.9), None, 1.0),
    ],
)
def test_bounds_end_where_the_metric_does(
    name: str, folds: tuple[float, ...], low: float | None, high: float | None
) -> None:
    metric = Estimate(value=sum(folds) / 2, folds=folds)
    second = for_method(metric, 1.0, name).second
    unbounded = for_method(metric, 1.0, "mean").second
    assert second is not None
    assert unbounded is not None
    assert second.low == (unbounded.low if low is None else low)
    assert second.high == (unbounded.high if high is None else high)


def test_few_folds_with_like_values_keep_their_interval() -> None:
    second = for_method(Estimate(value=0.8, folds=(0.78, 0.8, 0.82)), 0.25, "auroc").second
    assert second is not None
    assert second.low is not None
    assert second.high is not None
    assert 0 < second.low < 0.8 < second.high < 1
