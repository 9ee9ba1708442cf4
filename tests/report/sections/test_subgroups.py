"""The fixed table of subgroups: what stands in a row, which rows say that they cannot be estimated, and the gaps."""

import numpy as np
import pandas as pd
import pytest
from lifelines.utils import concordance_index
from scipy import stats
from sklearn.metrics import r2_score, roc_auc_score

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.multilabel import Multilabel
from mil.endpoints.ordinal import Ordinal
from mil.endpoints.regression import Regression
from mil.endpoints.survival import Cox
from mil.report.evaluation import Evaluation
from mil.report.sections.calls import called
from mil.report.sections.gaps import equalised_odds, gap_estimate, proportion_gap
from mil.report.sections.subgroup_metrics import LEAST, RANKS, main_measure, observed_expected
from mil.report.sections.subgroups import SubgroupRow, Subgroups
from mil.stats.estimate import Estimate
from mil.stats.proportions import proportion
from tests.estimates import holds, triple, value_of
from tests.report.tables import binary, multiclass, names, refitted, roles, survival

DECISION = {"rule": "sensitivity", "at_least": 0.9}
CLASSES = Multiclass(classes=("a", "b", "c"))


def clinic(patients: int, seed: int = 7) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "sex": rng.choice(["m", "f", ""], patients, p=[0.45, 0.45, 0.1]),
            "age": rng.integers(35, 95, patients).astype(str),
            "site": rng.choice(["A", "B"], patients, p=[0.9, 0.1]),
        },
        index=names(patients),
    )


def regression(patients: int = 240) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    true = rng.normal(size=patients)
    columns = {"patient": names(patients), "score": true, "value": true + rng.normal(size=patients) + 0.5}
    return pd.concat(
        [pd.DataFrame({**columns, "fold": fold, "role": role}) for fold, role in roles(rng, patients, 3)],
        ignore_index=True,
    )


def evaluated(table: pd.DataFrame, endpoint: Endpoint, patients: pd.DataFrame, **tool: object) -> Evaluation:
    return refitted(table, endpoint, tool, patients, resamples=30)


def row_of(section: Subgroups, variable: str, level: str) -> SubgroupRow:
    [row] = [row for row in section.rows if (row.variable, row.level) == (variable, level)]
    return row


def successes(estimate: Estimate | None) -> int:
    assert estimate is not None
    return estimate.counts["successes"]


def table_of(endpoint: Endpoint) -> pd.DataFrame:
    match endpoint:
        case Binary():
            return binary(patients=240)
        case Multiclass():
            return multiclass(patients=240)
        case Cox():
            return survival(patients=240)
        case Regression():
            return regression()
        case Ordinal():
            return multiclass(patients=240)
    table = binary(patients=240)
    second = 1 - table["p_1"] if "p_1" in table else None
    return table.rename(columns={"label": "MSI", "p_1": "p_MSI"}).assign(EBV=1 - table["label"], p_EBV=second)


@pytest.mark.parametrize(
    "endpoint",
    [Binary(), CLASSES, Ordinal("label", ("a", "b", "c")), Cox(), Regression(), Multilabel(["MSI", "EBV"])],
    ids=lambda first: type(first).__name__,
)
def test_every_endpoint_has_a_table_whose_rows_are_all_patients(endpoint: Endpoint) -> None:
    evaluation = evaluated(table_of(endpoint), endpoint, clinic(240))
    section = Subgroups.compute(evaluation)
    assert section is not None
    assert Subgroups.model_validate_json(section.model_dump_json()) == section
    assert section.absent == ("stage", "scanner", "specimen")
    for variable in ("all", "sex", "age", "site"):
        rows = [row for row in section.rows if row.variable == variable]
        assert sum(row.n for row in rows) == 240
        assert all(row.counts["n"] == row.value.n == row.n for row in rows)
    assert row_of(section, "all", "all").value.value is not None
    assert len(row_of(section, "all", "all").questions) == (
        len(evaluation.questions) if len(evaluation.questions) > 1 else 0
    )


def test_a_row_has_the_mean_of_the_folds_auroc_of_scikit_learn() -> None:
    table, patients = binary(patients=400), clinic(400)
    section = Subgroups.compute(evaluated(table, Binary(), patients))
    assert section is not None
    row = row_of(section, "sex", "m")
    members = table[(table["role"] == "report") & table["patient"].map(patients["sex"]).eq("m")]
    areas = [roc_auc_score(part["label"], part["p_1"]) for _, part in members.groupby("fold")]
    assert row.value.value == pytest.approx(np.mean(areas), abs=1e-12)
    value, low, high = triple(row.value)
    assert low < value < high
    assert (row.value.counts["positives"], row.value.counts["negatives"]) == (
        members["label"].sum(),
        (1 - members["label"]).sum(),
    )
    assert row.calibration is not None
    assert row.calibration.estimate.value == pytest.approx(members["label"].sum() / members["p_1"].sum())


def test_where_a_fold_has_too_few_of_a_level_percentile_ranks_are_pooled() -> None:
    table = binary(patients=400, folds=20)
    section = Subgroups.compute(evaluated(table, Binary(), clinic(400)))
    assert section is not None
    row = row_of(section, "sex", "f")
    reported = table[table["role"] == "report"]
    ranks = reported.groupby("fold")["p_1"].rank(pct=True)
    members = reported["patient"].map(clinic(400)["sex"]).eq("f")
    assert row.value.method == RANKS
    assert row.value.value == pytest.approx(roc_auc_score(reported["label"][members], ranks[members]), abs=1e-12)


def counted(*folds: tuple[int, int]) -> Evaluation:
    """Reported patients of folds with so many positives and negatives each, and one score for all folds."""
    rng = np.random.default_rng(0)
    label = np.concatenate([np.repeat([1, 0], fold) for fold in folds])
    fold = np.repeat(range(len(folds)), [sum(fold) for fold in folds])
    table = pd.DataFrame({"patient": names(len(label)), "fold": fold, "role": "report", "label": label})
    return Evaluation.of(table.assign(p_1=(label + rng.random(len(label))) / 2), Binary())


def test_three_positives_are_too_few_however_many_negatives_there_are() -> None:
    drawn, row = main_measure(counted((3, 60))).of(names(63), 20, 0)
    assert drawn is None
    assert row.value is None
    assert row.reason == "3 positives and 60 negatives, expected 20 positives and 20 negatives"
    assert row.counts == {"n": 63, "positives": 3, "negatives": 60}


def test_one_small_fold_among_large_ones_pools_them_all() -> None:
    _, pooled = main_measure(counted((30, 30), (30, 30), (5, 30))).of(names(155), 20, 0)
    assert pooled.method == RANKS
    _, within = main_measure(counted((30, 30), (30, 30), (10, 30))).of(names(160), 20, 0)
    assert within.method != RANKS


def test_pooling_takes_no_notice_of_what_a_fold_adds_to_its_scores() -> None:
    shifted = survival(patients=200, folds=20)
    section, alike = (
        Subgroups.compute(evaluated(table, Cox(), clinic(200)))
        for table in (shifted, shifted.assign(log_hazard=shifted["log_hazard"] - 10 * shifted["fold"]))
    )
    assert section is not None
    assert alike is not None
    row = row_of(section, "sex", "m")
    assert row.value.method == RANKS
    assert row.value.value == pytest.approx(row_of(alike, "sex", "m").value.value, abs=1e-12)


def test_survival_and_regression_rows_equal_the_libraries() -> None:
    table, patients = survival(patients=300, folds=1), clinic(300)
    reported = table.assign(role="report")
    section = Subgroups.compute(evaluated(reported, Cox(), patients))
    assert section is not None
    members = reported[reported["patient"].map(patients["sex"]).eq("m")]
    expected = concordance_index(members["time"], -members["log_hazard"], members["event"])
    assert row_of(section, "sex", "m").value.value == pytest.approx(expected, abs=1e-12)
    assert row_of(section, "sex", "m").value.counts["events"] == members["event"].sum()
    reported = regression(300).query("fold == 0").assign(role="report")
    section = Subgroups.compute(evaluated(reported, Regression(), patients))
    assert section is not None
    members = reported[reported["patient"].map(patients["sex"]).eq("m")]
    row = row_of(section, "sex", "m")
    assert row.value.value == pytest.approx(r2_score(members["score"], members["value"]), abs=1e-12)
    above = members["score"] - members["value"]
    low, high = stats.t.interval(0.95, len(members) - 1, above.mean(), stats.sem(above))
    assert row.calibration is not None
    assert triple(row.calibration.estimate) == pytest.approx([above.mean(), low, high])


def test_small_rows_stay_and_say_that_they_are_not_estimable() -> None:
    section = Subgroups.compute(evaluated(binary(patients=240), Binary(), clinic(240)))
    assert section is not None
    row = row_of(section, "site", "B")
    positives, negatives = row.value.counts["positives"], row.value.counts["negatives"]
    assert min(positives, negatives) < LEAST
    assert row.value.value is None
    assert str(row.value).startswith(f"not estimable: {positives} positives and ")
    assert row.n == positives + negatives > 0
    assert row.variable in {first.variable for first in section.variables}


def test_sensitivity_and_specificity_are_those_of_the_frozen_cuts() -> None:
    evaluation = evaluated(binary(patients=400), Binary(), clinic(400), decision=DECISION)
    section = Subgroups.compute(evaluation)
    assert section is not None
    (decision,) = called(evaluation)
    members = clinic(400)["sex"].eq("m").reindex(decision.calls.index)
    label = evaluation.reported["label"].reindex(decision.calls.index)
    hits, row = decision.calls[members & (label == 1)] == "1", row_of(section, "sex", "m")
    assert row.sensitivity is not None
    assert row.specificity is not None
    assert (successes(row.sensitivity), row.sensitivity.n) == (hits.sum(), len(hits))
    assert row.specificity.n == int((members & (label == 0)).sum())
    assert value_of(row.undecided) == 0
    assert sum((row.calls or {}).values()) == row.n


def test_the_indeterminate_and_the_abstained_are_counted_and_not_hidden() -> None:
    cuts = {"rule": "two_cuts", "low": 0.3, "high": 0.6}
    section = Subgroups.compute(evaluated(binary(patients=240), Binary(), clinic(240), decision=cuts))
    assert section is not None
    row = row_of(section, "all", "all")
    assert row.calls is not None
    assert row.sensitivity is not None
    assert successes(row.undecided) == row.calls["indeterminate"] > 0
    assert row.sensitivity.n == row.value.counts["positives"]
    reported = binary(patients=240).query("role == 'report'")
    score, label = reported["p_1"], reported["label"]
    for cut, rates in (
        (0.3, (row.sensitivity, row.specificity)),
        (0.6, (row.upper_sensitivity, row.upper_specificity)),
    ):
        expected = [((score >= cut) & (label == 1)).sum(), ((score < cut) & (label == 0)).sum()]
        assert [successes(rate) for rate in rates] == expected
    likeliest = {"rule": "argmax", "abstain_below": 0.5}
    section = Subgroups.compute(evaluated(multiclass(patients=240), CLASSES, clinic(240), decision=likeliest))
    assert section is not None
    for question in row_of(section, "all", "all").questions:
        assert question.calls is not None
        assert question.sensitivity is not None
        assert successes(question.undecided) == question.calls["abstained"] > 0
        assert question.sensitivity.counts["n"] < question.value.counts["positives"]


def test_a_fold_without_select_patients_leaves_its_own_undecided(caplog: pytest.LogCaptureFixture) -> None:
    table = binary(patients=240)
    rows_left = table[(table["role"] != "select") | (table["fold"] != 1)]
    section = Subgroups.compute(evaluated(rows_left, Binary(), clinic(240), decision=DECISION))
    assert section is not None
    assert successes(row_of(section, "all", "all").undecided) == 80
    assert "fold 1: " in caplog.text


def test_a_site_where_the_model_guesses_is_the_worst_and_the_gap_shows_it() -> None:
    table, patients = binary(patients=600, noise=0.2), clinic(600)
    patients["site"] = np.where(np.arange(600) % 2, "good", "bad")
    bad = table["patient"].map(patients["site"]).eq("bad")
    table.loc[bad, "p_1"] = np.random.default_rng(0).random(int(bad.sum()))
    section = Subgroups.compute(evaluated(table, Binary(), patients, decision=DECISION))
    assert section is not None
    assert section.worst is not None
    assert (section.worst.variable, section.worst.group) == ("site", "bad")
    gap = section.largest_gap
    assert gap is not None
    assert (gap.variable, gap.best, gap.worst) == ("site", "good", "bad")
    rows = [value_of(row_of(section, "site", level).value) for level in ("good", "bad")]
    value, low, high = triple(gap.estimate)
    assert value == pytest.approx(rows[0] - rows[1])
    assert 0 < low < value < high
    by_name = {first.variable: first for first in section.variables}
    test = by_name["site"].heterogeneity
    assert test is not None
    assert test.p_holm is not None
    assert test.p == pytest.approx(1 / 500)
    assert test.p <= test.p_holm < 0.01
    spreads = [by_name[variable] for variable in ("site", "sex", "age")]
    gaps = [each for spread in spreads for each in (spread.sensitivity_gap, spread.specificity_gap)]
    assert section.equalised_odds_difference is not None
    assert value_of(section.equalised_odds_difference.estimate) == pytest.approx(
        max(value_of(each.estimate) for each in gaps if each is not None)
    )


def test_without_a_clinical_table_there_is_no_section() -> None:
    assert Subgroups.compute(refitted(binary(), Binary())) is None
    assert Subgroups.compute(refitted(binary(), Binary(), patients=pd.DataFrame({"x": "1"}, index=names(120)))) is None


def test_equalised_odds_is_the_larger_gap() -> None:
    sensitivities = {name: proportion(hits, 100) for name, hits in (("x", 90), ("y", 60), ("z", 80))}
    specificities = {name: proportion(cleared, 100) for name, cleared in (("x", 80), ("y", 75), ("z", 60))}
    odds = equalised_odds(sensitivities, specificities, 20, 0)
    assert odds is not None
    assert odds.value == pytest.approx(0.3)
    estimate = gap_estimate(odds)
    assert estimate.low is not None
    assert 0 < estimate.low < 0.3
    assert estimate.p == pytest.approx(1 / 500)
    assert equalised_odds(sensitivities, specificities, 101, 0) is None


def test_a_gap_by_chance_does_not_exclude_zero_and_says_how_large_chance_is() -> None:
    """Six levels that do not differ; the old interval of the best against the worst lies above zero."""
    hits = dict(zip("abcdef", (20, 22, 23, 24, 26, 27), strict=True))
    gap = proportion_gap({name: proportion(count, 30) for name, count in hits.items()}, 20, 0)
    assert gap is not None
    assert (gap.best, gap.worst) == ("f", "a")
    shown = gap.gap("site").estimate
    value, low, high = triple(shown)
    assert low < 0 < value < high
    assert value == pytest.approx(7 / 30)
    assert (shown.p or 0) > 0.2
    assert "by chance 0.1" in str(shown)
    assert triple(gap.gap("site", tests=6).estimate)[1] <= low


@pytest.mark.slow
def test_largest_gaps_of_levels_that_do_not_differ_exclude_zero_in_five_percent() -> None:
    """150 cohorts of 360 patients in six levels; standard error 0.018."""
    rng, shown = np.random.default_rng(0), {"metric": 0, "sensitivity": 0, "heterogeneity": 0}
    for _ in range(150):
        label = (np.arange(360) % 2).astype(int)
        score = stats.norm.cdf(1.2 * label + rng.normal(size=360))
        columns = {"label": label, "fold": 0, "role": "report", "p_1": score}
        patients = pd.DataFrame({"site": rng.permutation(np.arange(360) // 2 % 6).astype(str)}, index=names(360))
        table = pd.DataFrame({"patient": names(360), **columns})
        section = Subgroups.compute(refitted(table, Binary(), patients=patients, resamples=100))
        assert section is not None
        assert section.largest_gap is not None
        shown["metric"] += (section.largest_gap.estimate.low or 0) > 0
        hits = rng.binomial(30, 0.9, 6)
        gap = proportion_gap({str(at): proportion(int(k), 30) for at, k in enumerate(hits)}, 20, 0)
        assert gap is not None
        shown["sensitivity"] += (gap.gap().estimate.low or 0) > 0
        test = section.variables[0].heterogeneity
        assert test is not None
        shown["heterogeneity"] += test.p < 0.05
    assert all(count / 150 <= 0.1 for count in shown.values())


def test_observed_over_expected_is_one_where_probabilities_are_right() -> None:
    value, low, high = triple(observed_expected(30, 30.0, 200).estimate)
    assert value == 1
    assert low * high == pytest.approx(1)
    assert observed_expected(0, 3.0, 20).estimate.low is None
    assert observed_expected(0, 0.0, 0).estimate.value is None


@pytest.mark.slow
def test_intervals_of_rows_cover_the_true_area_within_folds_and_pooled() -> None:
    """250 cohorts of 100 patients in 2 or in 4 folds whose scores have scales of their own; the area is known."""
    rng, true, covered = np.random.default_rng(0), stats.norm.cdf(1.2 / np.sqrt(2)), {2: 0, 4: 0}
    for folds in covered:
        for _ in range(250):
            label = rng.permutation(np.arange(100) % 3 == 0).astype(int)
            fold = rng.permutation(np.arange(100) % folds)
            score = (1.2 * label + rng.normal(size=100)) * rng.uniform(0.5, 2, folds)[fold] + rng.normal(size=folds)[
                fold
            ]
            table = pd.DataFrame({"patient": names(100), "fold": fold, "role": "report", "label": label})
            table["p_1"] = 1 / (1 + np.exp(-score))
            _, row = main_measure(refitted(table, Binary())).of(names(100), 300, 0)
            covered[folds] += holds(row, float(true))
    assert 0.91 <= covered[2] / 250 <= 0.98
    assert 0.91 <= covered[4] / 250 <= 0.98


@pytest.mark.slow
def test_observed_over_expected_covers_the_truth() -> None:
    rng, ratios = np.random.default_rng(1), 0
    for _ in range(2000):
        chance = rng.beta(2, 6, 150)
        section = observed_expected(float((rng.random(150) < chance).sum()), float(chance.sum()), 150)
        ratios += holds(section.estimate, 1)
    assert 0.93 <= ratios / 2000 <= 0.99
