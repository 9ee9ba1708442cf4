"""One set of patients is drawn as `intervals` draws it, two as `difference` does, and partitions do not matter."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from mil.endpoints.classification import Binary
from mil.endpoints.survival import Cox
from mil.report.evaluation import Evaluation
from mil.stats.bootstrap import Floats, Fold
from mil.stats.bootstrap_intervals import Sampled, difference, intervals, sampled
from tests.report.tables import binary, names, survival


@pytest.mark.parametrize(("table", "endpoint"), [(binary(), Binary()), (survival(), Cox())], ids=["binary", "survival"])
def test_one_part_has_the_interval_of_the_report(table: pd.DataFrame, endpoint: Binary | Cox) -> None:
    evaluation = Evaluation.of(table, endpoint)
    (result,) = sampled([(endpoint.score, evaluation.folds)], 200, seed=3)
    for name, expected in intervals(endpoint.score, evaluation.folds, 200, seed=3).items():
        shown = result[name].interval("any")
        assert [shown.value, shown.low, shown.high] == pytest.approx(
            [expected.value, expected.low, expected.high], abs=1e-12
        )


def test_two_parts_of_the_same_folds_have_the_paired_difference() -> None:
    ours, theirs = (Evaluation.of(binary(noise=noise), Binary()).folds for noise in (0.3, 2.0))
    score = Binary().score
    first, second = sampled([(score, ours), (score, theirs)], 200, seed=5)
    expected = difference(score, ours, theirs, 200, seed=5)["auroc"]
    shown = first["auroc"].minus(second["auroc"]).interval("any")
    assert [shown.value, shown.low, shown.high] == pytest.approx(
        [expected.value, expected.low, expected.high], abs=1e-12
    )


def test_a_patient_is_drawn_once_whatever_fold_it_is_in() -> None:
    people, values = np.array(names(30)), torch.arange(30.0)

    def folds(order: list[int]) -> list[Fold]:
        thirds = np.array_split(np.array(order), 3)
        return [Fold(values[part].unsqueeze(1), values[part], None, people[part]) for part in thirds]

    def total(logits: Tensor, target: Tensor, weight: Floats | None) -> dict[str, Floats]:
        return {"sum": (np.ones((1, len(target))) if weight is None else weight) @ target.double().numpy()}

    shuffled = np.random.default_rng(0).permutation(30).tolist()
    first, second = sampled([(total, folds(list(range(30)))), (total, folds(shuffled))], 50, seed=0)
    assert first["sum"].samples.std() > 0
    assert first["sum"].samples == pytest.approx(second["sum"].samples, abs=1e-9)


def test_p_is_small_where_resamples_agree_and_one_where_they_are_balanced() -> None:
    assert Sampled(1.0, np.linspace(0.5, 2, 999)).p == pytest.approx(2 / 1000)
    assert Sampled(0.0, np.linspace(-1, 1, 1001)).p == 1
    assert Sampled(0.0, np.zeros(10)).p == 1


def test_what_no_resample_defines_has_no_bounds() -> None:
    nothing = Sampled(float("nan"), np.full(5, np.nan))
    result = nothing.interval("any")
    assert (result.value, result.low, result.high, result.level, result.method) == (None, None, None, 0.95, "any")
    assert np.isnan(nothing.error)
