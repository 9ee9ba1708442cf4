"""Intervals over patients: what is drawn, what is averaged, and how often the truth lies inside."""

import time
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.endpoint import Scores
from mil.endpoints.survival import Cox
from mil.stats import Censoring, bootstrap, brier_at, cumulative_dynamic_auc, uno_c
from mil.stats.bootstrap import Floats, Fold, Score, draws
from mil.stats.bootstrap_intervals import difference, intervals
from tests.estimates import ends, holds, triple, value_of, width


def classified(rng: np.random.Generator, patients: int, gap: float = 1.2, shift: float = 0.0) -> Fold:
    label = rng.random(patients) < 0.3
    logits = rng.normal(size=patients) + gap * label + shift
    return Fold(torch.tensor(logits)[:, None], torch.tensor(label).float(), label.astype(np.int64))


def followed(rng: np.random.Generator, patients: int) -> Fold:
    hazard = rng.normal(size=patients)
    death, leaving = rng.exponential(np.exp(-0.8 * hazard)), rng.uniform(0.1, 2, patients)
    target = np.stack([np.minimum(death, leaving), death <= leaving], axis=1)
    return Fold(torch.tensor(hazard)[:, None], torch.tensor(target))


def mean(logits: Tensor, target: Tensor, weight: Floats | None = None) -> Scores:
    values = logits.squeeze(1).numpy()
    return {"mean": values.mean(keepdims=True)[0] if weight is None else weight @ values / weight.sum(1)}


def drawn(folds: Sequence[Fold], resamples: int = 200) -> list[Floats]:
    return [np.concatenate(weights) for weights in zip(*draws(folds, resamples, 0), strict=True)]


def test_resamples_keep_the_size_of_every_fold_and_stratum() -> None:
    rng = np.random.default_rng(0)
    folds = [classified(rng, 40), classified(rng, 31)]
    for fold, weight in zip(folds, drawn(folds), strict=True):
        assert fold.strata is not None
        assert weight.shape == (200, len(fold.target))
        for stratum in (0, 1):
            members = fold.strata == stratum
            assert (weight[:, members].sum(1) == members.sum()).all()
        assert weight.mean(0) == pytest.approx(np.ones(len(fold.target)), abs=0.4)
        assert len(np.unique(weight, axis=0)) == 200


def test_a_patient_of_two_folds_is_drawn_for_both_at_once() -> None:
    fold = classified(np.random.default_rng(0), 30)
    names = np.array([f"p{at}" for at in range(30)])
    first, second = fold._replace(patients=names), fold._replace(patients=names)
    weights, weights_again = drawn([first, second])
    np.testing.assert_array_equal(weights, weights_again)
    once, twice = intervals(mean, [first]), intervals(mean, [first, second])
    assert twice["mean"].high == pytest.approx(once["mean"].high, rel=1e-12)
    strangers = second._replace(patients=np.char.add(names, "x"))
    assert width(intervals(mean, [first, strangers])["mean"]) < 0.85 * width(once["mean"])


def test_folds_on_other_scales_change_nothing_because_scores_are_not_pooled() -> None:
    rng = np.random.default_rng(0)
    folds = [classified(rng, 40), classified(rng, 40)]
    shifted = [folds[0], folds[1]._replace(logits=folds[1].logits * 3 - 100)]
    plain, moved = (intervals(Binary().score, each, 100)["auroc"] for each in (folds, shifted))
    assert plain == moved
    assert plain.value == pytest.approx(np.mean([value for value in plain.folds if value is not None]))
    assert None not in plain.folds


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    rng = np.random.default_rng(0)
    values = torch.tensor(rng.normal(size=500))
    result = intervals(mean, [Fold(values[:, None], values)], 4000)["mean"]
    half = 1.96 * float(values.std()) / np.sqrt(500)
    value, low, high = triple(result)
    assert (low, high) == pytest.approx((value - half, value + half), abs=0.008)
    narrow = intervals(mean, [Fold(values[:, None], values)], 4000, level=0.5)["mean"]
    assert width(narrow) / width(result) == pytest.approx(0.6745 / 1.96, abs=0.03)


def test_seed_decides_and_nothing_else() -> None:
    folds = [followed(np.random.default_rng(0), 40)]
    score = Cox().score
    assert intervals(score, folds, 200, 5) == intervals(score, folds, 200, 5)
    assert intervals(score, folds, 200, 5) != intervals(score, folds, 200, 6)


def test_a_fold_that_does_not_define_the_metric_is_left_out() -> None:
    rng = np.random.default_rng(0)
    good = classified(rng, 40)
    empty = Fold(torch.randn(5, 1), torch.zeros(5), np.zeros(5, np.int64))
    both, alone = (intervals(Binary().score, folds, 50)["auroc"] for folds in ([good, empty], [good]))
    assert both.value == alone.value
    assert both.folds[1] is None
    value, low, high = triple(both)
    assert low < value < high
    nobody = intervals(Binary().score, [empty], 50)["auroc"]
    assert (nobody.value, nobody.low, nobody.high) == (None, None, None)


def test_a_model_does_not_differ_from_itself_and_the_better_one_wins_by_paired_resamples() -> None:
    rng = np.random.default_rng(0)
    fold = classified(rng, 150, gap=1.5)
    worse = fold._replace(logits=fold.logits + torch.tensor(rng.normal(size=(150, 1))) * 0.4)
    same = difference(Binary().score, [fold], [fold], 100)["auroc"]
    assert (same.value, same.low, same.high) == (0, 0, 0)
    ours, theirs = (intervals(Binary().score, [each], 500)["auroc"] for each in (fold, worse))
    gained = difference(Binary().score, [fold], [worse], 500)["auroc"]
    assert value_of(gained) == pytest.approx(value_of(ours) - value_of(theirs))
    # pairing: what both models find hard cancels, so that the difference is surer than either
    assert width(gained) < 0.8 * width(ours)
    lost = difference(Binary().score, [worse], [fold], 500)["auroc"]
    low, high = ends(gained)
    assert ends(lost) == pytest.approx((-high, -low))


def test_chunks_bound_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    folds = [classified(np.random.default_rng(0), 50)]
    monkeypatch.setattr(bootstrap, "_CELLS", 500)
    sizes = [len(weights[0]) for weights in draws(folds, 25, 0)]
    assert sizes == [10, 10, 5]


def test_two_thousand_resamples_of_a_thousand_patients_take_less_than_ten_seconds() -> None:
    rng = np.random.default_rng(0)
    label = torch.tensor(rng.integers(0, 3, 1000))
    classes = Fold(torch.randn(1000, 3), label, label.numpy())
    start = time.perf_counter()
    intervals(Multiclass().score, [classes])
    intervals(Binary().score, [classified(rng, 1000)])
    intervals(Cox().score, [followed(rng, 1000)])
    assert time.perf_counter() - start < 10


@pytest.mark.slow
@pytest.mark.parametrize("folds", [1, 4])
def test_auroc_intervals_cover_the_truth(folds: int) -> None:
    rng, truth = np.random.default_rng(0), norm.cdf(1.2 / np.sqrt(2))
    cohorts = [[classified(rng, 240 // folds) for _ in range(folds)] for _ in range(200)]
    result = [intervals(Binary().score, each, 400, seed)["auroc"] for seed, each in enumerate(cohorts)]
    assert 0.90 <= np.mean([holds(each, truth) for each in result]) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("folds", [1, 4])
def test_c_index_intervals_cover_the_truth(folds: int) -> None:
    rng = np.random.default_rng(0)
    population = followed(rng, 20_000)
    truth = float(Cox().score(population.logits, population.target)["c_index"])
    cohorts = [[followed(rng, 240 // folds) for _ in range(folds)] for _ in range(200)]
    result = [intervals(Cox().score, each, 400, seed)["c_index"] for seed, each in enumerate(cohorts)]
    assert 0.90 <= np.mean([holds(each, truth) for each in result]) <= 0.99


@pytest.mark.slow
def test_intervals_of_weighted_survival_metrics_cover_the_truth_that_censoring_hides() -> None:
    rng, at = np.random.default_rng(0), 1.2

    def by(censoring: Censoring) -> Score:
        def score(logits: Tensor, target: Tensor, weight: Floats | None = None) -> Scores:
            risk, (time, event) = logits.squeeze(1).numpy(), target.numpy().T
            survival = np.exp(-at * np.exp(0.8 * risk))
            return {
                "uno": uno_c(risk, time, event, at, censoring, weight),
                "auc": cumulative_dynamic_auc(risk, time, event, at, censoring, weight),
                "brier": brier_at(survival, time, event, at, censoring, weight),
            }

        return score

    hazard = rng.normal(size=20_000)
    death = rng.exponential(np.exp(-0.8 * hazard))
    never = Censoring.fit([np.inf], [1])
    everybody = torch.tensor(np.stack([death, np.ones_like(death)], axis=1))
    truth = by(never)(torch.tensor(hazard)[:, None], everybody, None)
    inside: dict[str, list[bool]] = {name: [] for name in truth}
    for seed in range(300):
        training, fold = followed(rng, 400), followed(rng, 200)
        result = intervals(by(Censoring.fit(*training.target.numpy().T)), [fold], 400, seed)
        for name, each in result.items():
            inside[name].append(holds(each, float(truth[name])))
    covered = {name: float(np.mean(hits)) for name, hits in inside.items()}
    assert 0.91 <= min(covered.values()) <= max(covered.values()) <= 0.985, covered
