"""Two models on the same patients: paired differences, tests, and a sentence that says no more than they do."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.discrete_time import DiscreteTime
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.survival import Cox
from mil.errors import PredictionsError
from mil.report.comparison import Comparison, adjusted, compare
from mil.report.evaluation import Evaluation
from mil.report.metric_intervals import areas, span
from mil.report.paired_difference import judged
from mil.report.paired_tests import mcnemar
from mil.report.schema import Estimate
from mil.stats import delong
from mil.stats.bootstrap_intervals import difference
from mil.stats.multiple_tests import holm
from tests.estimates import holds, triple, value_of
from tests.report.tables import binary, multiclass, refitted, survival

DECISION = {"decision": {"rule": "sensitivity", "at_least": 0.9}}


def evaluated(table: pd.DataFrame, endpoint: Endpoint | None = None, resamples: int = 200) -> Evaluation:
    return refitted(table, endpoint or Binary(), DECISION if endpoint is None else {}, resamples=resamples)


def test_a_hold_out_compares_trained_models() -> None:
    a, b = evaluated(binary(folds=1, noise=0.3)), evaluated(binary(folds=1, noise=2.0))
    comparison = compare(a, b)
    bootstrap = difference(Binary().score, a.folds, b.folds, 200)["balanced_accuracy"]
    shown = comparison.metrics["balanced_accuracy"].estimate
    assert triple(shown) == pytest.approx(triple(bootstrap), abs=1e-12)
    assert shown.p == pytest.approx(bootstrap.p)
    exact = delong.difference(areas(Binary(), a.folds)["auroc"], areas(Binary(), b.folds)["auroc"])
    auroc = comparison.metrics["auroc"].estimate
    assert (triple(auroc), auroc.p) == (triple(exact), exact.p)
    assert auroc.method == "DeLong, paired; for these trained models"
    for metric in comparison.metrics.values():
        assert metric.a is not None
        assert metric.b is not None
        assert value_of(metric.estimate) == pytest.approx(metric.a - metric.b)
    assert Comparison.model_validate_json(comparison.model_dump_json()) == comparison
    assert comparison.same_folds


def test_folds_compare_methods_by_the_corrected_test() -> None:
    """Nadeau and Bengio's t is that of the paired t test over folds, with another variance."""
    a, b = evaluated(binary(folds=5, noise=0.3)), evaluated(binary(folds=5, noise=2.0))
    comparison = compare(a, b)
    first, second = ([float(Binary().score(f.logits, f.target)["auroc"]) for f in each.folds] for each in (a, b))
    plain = stats.ttest_rel(first, second)
    t = plain.statistic * (1 / 5 / (1 / 5 + 1 / 4)) ** 0.5
    shown = comparison.metrics["auroc"].estimate
    assert shown.p == pytest.approx(2 * stats.t.sf(abs(t), 4))
    value, low, high = triple(shown)
    assert (high - low) / 2 == pytest.approx(value / t * stats.t.ppf(0.975, 4))
    trained = delong.difference(areas(Binary(), a.folds)["auroc"], areas(Binary(), b.folds)["auroc"])
    assert shown.second is not None
    assert (shown.second.low, shown.second.high) == pytest.approx(triple(trained)[1:])
    assert comparison.verdict.endswith("for the method, trained anew.")
    halves = compare(a, evaluated(binary(folds=4, noise=2.0))).metrics["auroc"].estimate
    assert halves.method == shown.method
    assert halves.p is not None


@pytest.mark.parametrize(("patients", "positives"), [(3, 1), (19, 9), (40, 9), (40, 31)])
def test_almost_nothing_allows_no_verdict(patients: int, positives: int) -> None:
    """Issue 17, line 6: of 3 shared patients `mil compare` said "is better, p < 0.001"."""
    label = (np.arange(patients) < positives).astype(int)
    columns = {"patient": np.arange(patients), "fold": 0, "role": "report", "label": label}
    good = pd.DataFrame(columns | {"p_1": 0.2 + 0.6 * label})
    comparison = compare(evaluated(good), evaluated(good.assign(p_1=0.8 - 0.6 * label)), ("good", "bad"))
    assert comparison.verdict.startswith(f"good and bad cannot be compared by AUROC on {patients} shared patients")
    assert "expected 20 patients, and 10 of each class or 10 events" in comparison.verdict
    assert comparison.p is None
    assert comparison.metrics["auroc"].estimate.low is None
    assert value_of(comparison.metrics["auroc"].estimate) == 1


def test_a_better_model_is_called_better_from_either_side() -> None:
    good = evaluated(binary(patients=300, folds=1, noise=0.1))
    bad = evaluated(binary(patients=300, folds=1, noise=4.0))
    first, second = compare(good, bad, ("good", "bad")), compare(bad, good, ("bad", "good"))
    assert first.verdict == second.verdict
    assert first.verdict.startswith("good is better than bad by 0.")
    assert "n 300, 0 " in first.verdict
    assert first.verdict.endswith("DeLong p < 0.001, for these trained models.")
    value, low, high = triple(first.metrics["auroc"].estimate)
    assert f"{value:.3f} AUROC ({low:.3f} to {high:.3f})" in first.verdict
    assert first.delong[0].estimate.p == pytest.approx(second.delong[0].estimate.p)
    assert value_of(first.delong[0].estimate) == pytest.approx(value)


def test_a_model_is_level_with_itself_and_close_to_its_like() -> None:
    same = compare(evaluated(binary()), evaluated(binary()))
    assert same.verdict.startswith("No difference is shown: A and B are level, 0.000 AUROC (0.000 to 0.000)")
    assert same.p == 1
    assert same.mcnemar[0].sensitivity.gained == 0
    noisy = binary()
    noisy["p_1"] = np.clip(noisy["p_1"] + np.random.default_rng(0).normal(0, 0.01, len(noisy)), 0, 1)
    assert compare(evaluated(binary()), evaluated(noisy)).verdict.startswith("No difference is shown: ")


def test_models_of_other_folds_are_compared_on_the_patients_that_they_share() -> None:
    first = binary(patients=200, folds=5)
    second = binary(patients=200, folds=4)
    assert (first.drop_duplicates("patient")["label"].to_numpy() == second.drop_duplicates("patient")["label"]).all()
    second = second[second["patient"] > "009"]
    comparison = compare(evaluated(first), evaluated(second))
    assert (comparison.n, comparison.left_out, comparison.same_folds) == (190, {"A": 10, "B": 0}, False)
    value, low, high = triple(comparison.delong[0].estimate)
    assert value == pytest.approx(value_of(comparison.metrics["auroc"].estimate))
    assert low < value < high
    tests = (comparison.mcnemar[0].sensitivity, comparison.mcnemar[0].specificity)
    assert sum(test.estimate.counts["n"] for test in tests) == 190


def test_calls_at_the_frozen_cuts_are_compared_patient_by_patient() -> None:
    tables = [binary(noise=noise) for noise in (0.3, 2.0)]
    comparison = compare(evaluated(tables[0]), evaluated(tables[1])).mcnemar[0]
    label = tables[0].drop_duplicates("patient")["label"].sum()
    for test, n in ((comparison.sensitivity, label), (comparison.specificity, 120 - label)):
        assert test.estimate.n == n
        assert test.a - test.b == test.gained - test.lost
        assert value_of(test.estimate) == pytest.approx((test.a - test.b) / n)


def test_each_of_two_cuts_is_compared_with_its_like() -> None:
    rule = {"decision": {"rule": "two_cuts", "low": 0.2, "high": 0.6}}
    tables = [binary(noise=noise) for noise in (0.3, 2.0)]
    first, second = (refitted(table, Binary(), rule, resamples=20) for table in tables)
    lower, upper = compare(first, second).mcnemar
    assert (lower.name, upper.name) == ("1, lower cut", "1, upper cut")
    reported = [table[table["role"] == "report"].set_index("patient") for table in tables]
    for test, cut in ((lower, 0.2), (upper, 0.6)):
        detected, cleared = (
            [int(((each["p_1"] >= cut) == (each["label"] == 1))[each["label"] == label].sum()) for each in reported]
            for label in (1, 0)
        )
        assert [test.sensitivity.a, test.sensitivity.b] == detected
        assert [test.specificity.a, test.specificity.b] == cleared
    assert lower.sensitivity.a > upper.sensitivity.a


def test_survival_models_of_any_kind_are_compared_by_their_c_index() -> None:
    table = survival(patients=200)
    cox = evaluated(table, Cox())
    risk = table.assign(risk=1 / (1 + np.exp(-table["log_hazard"] + 10 * table["fold"])))
    comparison = compare(cox, evaluated(risk, DiscreteTime()))
    assert value_of(comparison.metrics["c_index"].estimate) == pytest.approx(0, abs=1e-12)
    worse = table.assign(log_hazard=np.random.default_rng(0).random(len(table)))
    comparison = compare(cox, evaluated(worse, Cox()), ("ours", "chance"))
    assert comparison.verdict.startswith("ours is better than chance by 0.")
    assert "C-index" in comparison.verdict
    assert "corrected t p " in comparison.verdict
    assert (comparison.delong, comparison.mcnemar) == ((), ())


def test_several_classes_have_a_test_each_and_a_verdict_on_all() -> None:
    endpoint = Multiclass(classes=("a", "b", "c"))
    comparison = compare(evaluated(multiclass(), endpoint), evaluated(multiclass(), endpoint))
    assert [first.name for first in comparison.delong] == ["a", "b", "c"]
    assert "macro AUROC" in comparison.verdict


def test_what_cannot_be_compared_is_refused_in_one_line() -> None:
    table = binary()
    with pytest.raises(PredictionsError, match="x and y: report 120 and 120 patients, none in common"):
        compare(evaluated(table), evaluated(table.assign(patient="z" + table["patient"])), ("x", "y"))
    with pytest.raises(PredictionsError, match="targets differ in 120 of 120 shared patients, first 000"):
        compare(evaluated(table), evaluated(table.assign(label=1 - table["label"])))
    with pytest.raises(PredictionsError, match="scored by auroc and c_index"):
        compare(evaluated(table), evaluated(survival(), Cox()))


def test_a_fold_with_one_positive_has_no_delong_test_of_its_own() -> None:
    table = binary(noise=0.3)
    positives = table.query("fold == 0 and role == 'report' and label == 1")["patient"]
    spare = table["patient"].isin(positives.iloc[1:])
    comparison = compare(evaluated(table[~spare]), evaluated(table[~spare].assign(p_1=0.5)))
    assert comparison.delong[0].estimate.p is None
    assert "too few patients" in str(comparison.delong[0].estimate.reason)
    assert "corrected t p " in comparison.verdict


def test_a_metric_that_nobody_defines_gives_no_verdict() -> None:
    first = binary().assign(label=0)
    comparison = compare(evaluated(first), evaluated(first))
    assert "cannot be compared by AUROC" in comparison.verdict
    assert comparison.p is None
    assert Comparison.model_validate_json(comparison.model_dump_json()) == comparison


def test_holms_p_is_that_of_r() -> None:
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.04, None, 0.5]) == [0.08, None, 0.5]
    assert holm([]) == []


def test_many_comparisons_ask_for_more_than_one() -> None:
    good, bad = evaluated(binary(folds=1, noise=0.1)), evaluated(binary(folds=1, noise=1.0))
    alone = compare(good, bad)
    assert alone.p is not None
    assert alone.p < 0.05
    assert adjusted(alone, None, "max-t of all pairs") == alone
    weaker = adjusted(alone, 0.06, "max-t of all pairs")
    assert weaker.p_adjusted == 0.06
    assert weaker.verdict.startswith("No difference is shown")
    assert "max-t of all pairs 0.060, for these trained models" in weaker.verdict
    assert adjusted(alone, alone.p / 2, "max-t of all pairs").p_adjusted == alone.p


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 30))
def test_mcnemar_turns_its_sign_with_the_models(gained: int, lost: int, alike: int) -> None:
    n = gained + lost + alike
    first, second = mcnemar(gained, lost, n), mcnemar(lost, gained, n)
    if not n:
        assert first.value is None
        return
    value, low, high = triple(first)
    assert low <= value <= high
    assert (low, first.p) == pytest.approx((-triple(second)[2], second.p))
    tail = stats.binom.cdf(min(gained, lost), gained + lost, 0.5)
    assert first.p == pytest.approx(min(1.0, 2 * tail))


@pytest.mark.slow
def test_intervals_of_differences_cover_the_truth_whatever_the_folds() -> None:
    """150 cohorts of 120 patients, two models of known areas, in the same and in different folds."""
    rng = np.random.default_rng(0)
    true = stats.norm.cdf(1.5 / np.sqrt(2)) - stats.norm.cdf(0.8 / np.sqrt(2))
    covered, exact, paired = {True: 0, False: 0}, 0, 0
    for same in covered:
        for _ in range(150):
            label = (np.arange(120) < 40).astype(int)
            common = rng.normal(size=120)
            first, second = (np.concatenate([rng.permutation(n) % k for n in (40, 80)]) for k in (3, 4))
            runs = []
            for shift, fold in ((1.5, first), (0.8, first if same else second)):
                score = shift * label + (common + rng.normal(size=120)) / np.sqrt(2)
                columns = {"label": label, "fold": fold, "role": "report", "p_1": stats.norm.cdf(score)}
                runs.append(refitted(pd.DataFrame({"patient": np.arange(120), **columns}), Binary(), resamples=300))
            comparison = compare(runs[0], runs[1])
            covered[same] += holds(comparison.metrics["auroc"].estimate, float(true))
            exact += holds(comparison.delong[0].estimate, float(true))
            discordant = rng.multinomial(40, [0.15, 0.1, 0.75])
            shown = mcnemar(int(discordant[0]), int(discordant[1]), 40)
            paired += holds(shown, 0.05)
    assert 0.89 <= covered[True] / 150 <= 0.98
    assert 0.89 <= covered[False] / 150 <= 0.98
    assert 0.91 <= exact / 300 <= 0.98
    assert 0.92 <= paired / 300 <= 0.99


def test_a_difference_over_two_folds_ends_where_differences_of_the_metric_do() -> None:
    trained = Estimate(value=-0.167, low=-0.4, high=0.1, folds=(-0.5, 0.166), method="DeLong")
    wide = judged(trained, 1.0)
    assert wide.low is not None
    assert wide.low < -2, "one degree of freedom"
    ended = judged(trained, 1.0, largest=span("auroc"))
    assert (ended.low, ended.high) == (-1.0, 1.0)
    assert ended.p == wide.p
    assert (span("auroc"), span("qwk"), span("r2")) == (1.0, 2.0, float("inf"))
