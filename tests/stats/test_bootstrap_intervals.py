"""One set of patients is drawn as `intervals` draws it, two as `difference` does, and partitions do not matter."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from mil.endpoints.classification import Binary
from mil.endpoints.regression import Regression
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


def of_values(seed: int, patients: int, folds: int, noise: float = 0.5) -> list[Fold]:
    """Predicted and true values in a unit; each fold's true values have a mean of their own."""
    rng = np.random.default_rng(seed)
    people, endpoint, parts = np.array(names(patients)), Regression("size"), []
    for members in np.array_split(np.arange(patients), folds):
        true = rng.normal(size=len(members)) + rng.normal()
        logits = torch.tensor(true + noise * rng.normal(size=len(members)))[:, None]
        parts.append(Fold(logits, torch.tensor(true), None, people[members], endpoint.pooled_metrics))
    return parts


def test_errors_of_values_are_pooled_over_folds_and_ranks_are_not() -> None:
    folds, score = of_values(0, 60, 5), Regression("size").score
    value, true = (torch.cat([getattr(fold, name) for fold in folds]) for name in ("logits", "target"))
    together = score(value, true)
    for name, metric in intervals(score, folds, 200).items():
        assert metric.value == pytest.approx(float(together[name]), abs=1e-12)
        assert metric.method is not None
        assert "pooled" in metric.method
        assert len(metric.folds) == 5
    mean = np.mean([float(score(fold.logits, fold.target)["r2"]) for fold in folds])
    assert mean < float(together["r2"]) - 0.02  # what was reported before
    apart = intervals(score, [fold._replace(pooled=frozenset()) for fold in folds], 20)["r2"]
    assert apart.value == pytest.approx(mean, abs=1e-12)


def test_a_difference_of_pooled_metrics_is_that_of_the_pooled_values() -> None:
    ours, score = of_values(0, 60, 5), Regression("size").score
    theirs = [fold._replace(logits=fold.logits * 0.5) for fold in ours]
    gained = difference(score, ours, theirs, 200)["r2"]
    first, second = (intervals(score, folds, 200)["r2"].value for folds in (ours, theirs))
    assert first is not None
    assert second is not None
    assert gained.value == pytest.approx(first - second, abs=1e-12)
    assert gained.low is not None
    assert gained.low > 0


@pytest.mark.slow
@pytest.mark.parametrize(("tails", "least"), [(0.0, 0.91), (3.0, 0.80)], ids=["normal", "heavy tails"])
def test_the_interval_of_pooled_r2_covers_the_truth(tails: float, least: float) -> None:
    """100 patients in five folds, 600 cohorts: standard error of the coverage 0.009 to 0.015."""
    truth = 0.5
    rng, score, pooled = np.random.default_rng(0), Regression("size").score, Regression("size").pooled_metrics
    covered = {True: 0, False: 0}
    for _ in range(600):
        noise = rng.normal(size=100) if not tails else rng.standard_t(tails, 100) / np.sqrt(tails / (tails - 2))
        value = rng.normal(size=100)
        true = value + noise
        for together in covered:
            folds = [
                Fold(torch.tensor(value[part])[:, None], torch.tensor(true[part]), None, None, pooled)
                for part in np.array_split(np.arange(100), 5)
            ]
            if not together:
                folds = [fold._replace(pooled=frozenset()) for fold in folds]
            shown = intervals(score, folds, 400)["r2"]
            assert shown.low is not None
            assert shown.high is not None
            covered[together] += shown.low <= truth <= shown.high
    assert covered[True] / 600 > least
    assert covered[False] / 600 < covered[True] / 600 - 0.05


def test_resamples_that_are_all_alike_show_no_certainty() -> None:
    always = Sampled(1.0, np.ones(200)).with_p("percentile")
    assert (always.value, always.low, always.high, always.p) == (1.0, None, None, None)
    assert "every resample gives this value" in str(always)
    level = Sampled(0.0, np.zeros(200)).with_p("percentile")
    assert (level.low, level.high, level.p) == (0.0, 0.0, 1.0)
