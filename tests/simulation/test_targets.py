"""Multilabel, ordinal and regression cohorts: prevalences as asked, and a perfect reader as good as asked."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, r2_score, roc_auc_score

from mil.errors import ConfigError
from mil.simulation.patients import Patients
from mil.simulation.simulated_cohort import Simulation, draw_patients, write
from mil.simulation.targets.grade_targets import Ordinal
from mil.simulation.targets.label_targets import Multilabel
from mil.simulation.targets.simulated_target import Target, normal_scores
from mil.simulation.targets.value_targets import Regression

ISUP = ("benign", "1", "2", "3", "4", "5")
SHARES = (0.27, 0.25, 0.13, 0.12, 0.12, 0.11)


def patients(target: Target, seed: int = 0, **options: float) -> Patients:
    return draw_patients(Simulation(target, seed=seed, **options))  # type: ignore[arg-type]  # options are of many types


def test_a_perfect_reader_of_each_label_has_its_attainable_auroc() -> None:
    target = Multilabel(("MSI", "EBV", "HER2"), ("no", "yes"), (0.15, 0.4, 0.7), (0.92, 0.7, 0.85))
    for seed in range(5):
        cohort = patients(target, seed)
        for name, prevalence, attainable in zip(target.names, (0.15, 0.4, 0.7), (0.92, 0.7, 0.85), strict=True):
            positive = cohort.clinic[name] == "yes"
            assert positive.mean() == pytest.approx(prevalence, abs=0.0051)
            assert roc_auc_score(positive, cohort.oracle[f"oracle_{name}"]) == pytest.approx(attainable, abs=0.02)


def test_each_label_has_words_of_its_own_and_some_are_empty_but_never_all_of_a_patient() -> None:
    target = Multilabel(("MSI", "EBV"), (("MSS", "MSI-H"), ("neg", "pos")), 0.4, 0.9, missing=0.5)
    table = patients(target, patients=400).clinic
    assert set(table["MSI"]) == {"", "MSS", "MSI-H"}
    assert set(table["EBV"]) == {"", "neg", "pos"}
    empty = table[["MSI", "EBV"]] == ""
    assert 0.3 < empty.to_numpy().mean() < 0.5
    assert not empty.all(axis=1).any()


@pytest.mark.parametrize(
    ("classes", "shares", "attainable"), [(ISUP, SHARES, 0.9), (("0", "low", "positive"), (0.33, 0.52, 0.15), 0.5)]
)
def test_a_perfect_reader_of_grades_has_the_attainable_kappa(
    classes: tuple[str, ...], shares: tuple[float, ...], attainable: float
) -> None:
    for seed in range(3):
        cohort = patients(Ordinal("grade", classes, shares, attainable), seed)
        grade = cohort.clinic["grade"].map(classes.index)
        called = (np.cumsum(cohort.oracle.to_numpy(), axis=1)[:, :-1] < 0.5).sum(axis=1)
        assert cohen_kappa_score(grade, called, weights="quadratic") == pytest.approx(attainable, abs=0.02)
        assert np.bincount(grade) / 200 == pytest.approx(np.array(shares), abs=0.0051)


def test_a_perfect_reader_of_grades_has_the_attainable_macro_auroc_where_that_is_asked() -> None:
    target = Ordinal("her2", ("0", "low", "positive"), (0.33, 0.52, 0.15), 0.8, measure="macro_auroc")
    for seed in range(3):
        cohort = patients(target, seed)
        columns = cohort.oracle[["oracle_0", "oracle_low", "oracle_positive"]]
        assert np.allclose(columns.sum(axis=1), 1)
        area = roc_auc_score(cohort.clinic["her2"], columns, multi_class="ovr", labels=["0", "low", "positive"])
        assert area == pytest.approx(0.8, abs=0.02)


def test_grades_of_a_population_are_as_likely_as_the_reader_says() -> None:
    target = Ordinal("grade", ISUP, SHARES, 0.8)
    cohort = patients(target, patients=4000)
    for k, name in enumerate(ISUP):
        probabilities = cohort.oracle[f"oracle_{name}"]
        likely = probabilities > probabilities.quantile(0.8)
        assert (cohort.clinic["grade"][likely] == name).mean() == pytest.approx(
            probabilities[likely].mean(), abs=0.05
        ), k


@pytest.mark.parametrize("attainable", [0.0, 0.4, 0.7, 0.9])
def test_a_perfect_reader_of_numbers_explains_the_attainable_share(attainable: float) -> None:
    for seed in range(3):
        cohort = patients(Regression("ki67", attainable, mean=20, sd=8), seed)
        assert r2_score(cohort.clinic["ki67"], cohort.oracle["oracle"]) == pytest.approx(attainable, abs=0.02)
        assert cohort.clinic["ki67"].mean() == pytest.approx(20, abs=1.5)
        assert cohort.clinic["ki67"].std() == pytest.approx(8, abs=1.5)


@pytest.mark.parametrize(
    "target",
    [
        Multilabel(("a", "b"), "01", 0.4, 0.9),
        Ordinal("grade", "abcd", (0.3, 0.3, 0.2, 0.2), 0.8),
        Regression("ki67", 0.7, mean=20, sd=8),
    ],
)
def test_tiles_show_a_reader_what_the_patients_have(target: Target, tmp_path: Path) -> None:
    """Cut into tiles, the shares tell nearly what they told before."""
    simulation = Simulation(target, patients=60, tiles=300, width=8)
    write(simulation, tmp_path / "cohort")
    ideal, shown = draw_patients(simulation).oracle, pd.read_csv(tmp_path / "cohort" / "truth.csv")
    for name in ideal:
        assert np.corrcoef(normal_scores(ideal[name].to_numpy()), normal_scores(shown[name].to_numpy()))[0, 1] > 0.95


def test_label_noise_changes_as_many_patients_as_asked() -> None:
    labels = Multilabel(("a", "b"), ("0", "1"), 0.4, 0.9)
    grades, value = Ordinal("grade", "abcd", (0.3, 0.3, 0.2, 0.2), 0.8), Regression("ki67", 0.7)
    truth = patients(labels, label_noise=0.1).truth
    assert (truth[["a", "b"]].to_numpy() != truth[["clean_a", "clean_b"]].to_numpy()).sum(axis=1).tolist().count(
        1
    ) == 20
    truth = patients(grades, label_noise=0.1).truth
    code = truth[["grade", "clean_grade"]].map("abcd".index)
    assert (code["grade"] - code["clean_grade"]).abs().value_counts().to_dict() == {0: 180, 1: 20}
    truth = patients(value, label_noise=0.1).truth
    assert 18 <= (truth["ki67"] != truth["clean_ki67"]).sum() <= 20
    assert sorted(truth["ki67"]) == sorted(truth["clean_ki67"])


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=40))
def test_normal_scores_keep_order_and_ties_and_have_no_mean(values: list[float]) -> None:
    scores = normal_scores(np.array(values))
    order = np.argsort(values, kind="stable")
    assert (np.sign(np.diff(np.array(values)[order])) == np.sign(np.diff(scores[order]))).all()
    if len(set(values)) == len(values):
        assert scores.mean() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Multilabel(("a", "a"), "01", 0.4, 0.9), "classes"),
        (lambda: Multilabel(("a", "b"), "00", 0.4, 0.9), "classes"),
        (lambda: Multilabel(("a", "b"), "01", (0.4, 0.4, 0.4), 0.9), "prevalence"),
        (lambda: Multilabel(("a", "b"), "01", 1.4, 0.9), "prevalence"),
        (lambda: Multilabel(("a", "b"), "01", 0.4, (0.9, 1.0)), "attainable"),
        (lambda: Multilabel(("a", "b"), "01", 0.4, 0.9, missing=1.0), "missing"),
        (lambda: Ordinal("g", "abc", (0.5, 0.5), 0.8), "prevalence"),
        (lambda: Ordinal("g", "abc", (0.5, 0.3, 0.2), 1.0), "attainable"),
        (lambda: Ordinal("g", "abc", (0.5, 0.3, 0.2), 0.8, "auroc"), "measure"),
        (lambda: patients(Ordinal("g", "abc", (0.5, 0.3, 0.2), 0.97)), "attainable"),
        (lambda: Regression("v", 0.95), "attainable"),
        (lambda: Regression("v", 0.5, sd=0.0), "sd"),
        (lambda: Regression("v", 0.5, mean=float("nan")), "mean"),
    ],
)
def test_a_target_that_cannot_be_is_refused_by_the_parameter_s_name(make, named: str) -> None:  # type: ignore[no-untyped-def]  # lambdas of every target
    with pytest.raises(ConfigError, match=f"^{named}: .* (expected|at most .*)$"):
        make()
