"""report.json: what is scored, on whom, and that it can be written down."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines.utils import concordance_index
from sklearn.metrics import roc_auc_score

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.survival import Cox
from mil.errors import CohortError, ConfigError, PredictionsError
from mil.fitted.cutoffs import choose
from mil.fitted.rules import SensitivityRule
from mil.report.assemble import evaluate as evaluated
from mil.report.schema import Report
from mil.report.sections.baseline_model import Baseline
from mil.report.sections.operating_point import OperatingPoint
from mil.report.sections.operating_points import OperatingPoints
from mil.report.sections.oracle import Oracle
from mil.stats.estimate import Estimate
from mil.stats.proportions import wilson
from tests.estimates import triple, value_of
from tests.report.tables import refitted

from .tables import binary, multiclass, names, survival

RULE = SensitivityRule(rule="sensitivity", at_least=0.9)
DECISION = {"rule": "sensitivity", "at_least": 0.9}
CLASSES = Multiclass(classes=("a", "b", "c"))


def evaluate(
    table: pd.DataFrame, endpoint: Endpoint, decision: Any = None, resamples: int = 50, **comparators: pd.DataFrame
) -> Report:
    tool = {"decision": decision}
    return evaluated(refitted(table, endpoint, tool, resamples=resamples, comparators=comparators))


def cut(table: pd.DataFrame, **options: Any) -> OperatingPoint:
    """Return the only decision of a binary endpoint."""
    return decision_of(evaluate(table, Binary(), **options))


def decision_of(report: Report) -> OperatingPoint:
    section = report.section(OperatingPoints)
    assert section is not None
    [decision] = section.decisions
    return decision


def baseline_of(report: Report) -> Baseline:
    section = report.section(Baseline)
    assert section is not None
    return section


def oracle_of(report: Report) -> dict[str, Estimate]:
    section = report.section(Oracle)
    assert section is not None
    return section.metrics


def rows(table: pd.DataFrame, fold: int, role: str) -> pd.DataFrame:
    return table[(table["fold"] == fold) & (table["role"] == role)]


@pytest.mark.parametrize(
    ("endpoint", "table"), [(Binary(), binary()), (CLASSES, multiclass()), (Cox(), survival())], ids=lambda x: type(x)
)
def test_every_report_has_the_same_shape_and_survives_json(endpoint: Endpoint, table: pd.DataFrame) -> None:
    oracles = [f"oracle_{name}" for name in "abc"] if endpoint is CLASSES else ["oracle"]
    oracle = pd.DataFrame({"patient": names(120), **{name: np.random.default_rng(0).random(120) for name in oracles}})
    report = evaluate(table, endpoint, baseline=table, oracle=oracle, resamples=50)
    assert Report.model_validate_json(report.model_dump_json()) == report
    assert not set(report.sections) & endpoint.sections_left_out
    assert report.folds == 3
    assert set(oracle_of(report)) == {endpoint.metric} <= set(report.metrics)
    assert set(report.metrics) == set(baseline_of(report).metrics) == set(baseline_of(report).difference)
    for estimate in report.metrics.values():
        value, low, high = triple(estimate)
        assert report.patients == estimate.counts
        assert low <= value <= high
        assert value == pytest.approx(np.mean(np.asarray(estimate.folds, float)))
        assert estimate.level == 0.95
        assert estimate.second is not None


def test_metrics_are_means_over_folds_of_the_libraries_values() -> None:
    table = binary()
    expected = [roc_auc_score(part["label"], part["p_1"]) for part in (rows(table, k, "report") for k in range(3))]
    report = evaluate(table, Binary(), resamples=20).metrics["auroc"]
    assert report.folds == pytest.approx(expected, abs=1e-12)
    table = survival()
    parts = [rows(table, k, "report") for k in range(3)]
    expected = [concordance_index(part["time"], -part["log_hazard"], part["event"]) for part in parts]
    report = evaluate(table, Cox(), resamples=20).metrics["c_index"]
    assert report.folds == pytest.approx(expected, abs=1e-12)


def test_counts_are_of_patients_even_where_folds_repeat_them() -> None:
    once = binary()
    repeated = pd.concat([once, once.assign(fold=once["fold"] + 3)])
    alone, twice = evaluate(once, Binary(), decision=DECISION), evaluate(repeated, Binary(), decision=DECISION)
    positives = int(once.drop_duplicates("patient")["label"].sum())
    assert twice.patients == alone.patients == {"n": 120, "0": 120 - positives, "1": positives}
    assert twice.folds == 6
    first, second = (cut(table, decision=DECISION) for table in (once, repeated))
    assert second.at_cuts == first.at_cuts
    assert second.n == 120


def test_rows_in_another_order_give_the_same_report() -> None:
    table, oracle = survival(), pd.DataFrame({"patient": names(120), "oracle": np.arange(120.0)})
    shuffled = table.sample(frac=1, random_state=1)
    assert evaluate(table, Cox(), oracle=oracle, resamples=50) == evaluate(shuffled, Cox(), oracle=oracle, resamples=50)


def test_reported_labels_and_scores_move_no_threshold() -> None:
    table = binary()
    changed, reported = table.copy(), table["role"] == "report"
    changed.loc[reported, "p_1"] = 1 - changed.loc[reported, "p_1"]
    ours, theirs = (evaluate(each, Binary(), decision=DECISION, resamples=20) for each in (table, changed))
    assert cut(table, decision=DECISION).cuts == cut(changed, decision=DECISION).cuts
    assert value_of(ours.metrics["auroc"]) == pytest.approx(1 - value_of(theirs.metrics["auroc"]))


def test_the_operating_point_is_chosen_on_select_and_counted_on_report() -> None:
    table = binary()
    point = cut(table, decision=DECISION)
    hits = []
    for fold, cuts in enumerate(point.cuts):
        assert cuts is not None
        (at,) = cuts
        select, reported = rows(table, fold, "select"), rows(table, fold, "report")
        assert at == choose(RULE, select["p_1"], select["label"])
        hits += (reported.loc[reported["label"] == 1, "p_1"] >= at).tolist()
    (at_cut,) = point.at_cuts
    assert at_cut.sensitivity.counts == {"n": len(hits), "successes": sum(hits)}
    assert value_of(at_cut.sensitivity) == pytest.approx(np.mean(hits))
    assert triple(at_cut.sensitivity)[1:] == wilson(sum(hits), len(hits))
    assert at_cut.specificity.n == 120 - len(hits)
    assert (point.rule, point.n) == (DECISION, 120)


def test_a_fold_without_select_patients_decides_nobody(caplog: pytest.LogCaptureFixture) -> None:
    table = binary()
    with caplog.at_level(logging.WARNING):
        rows_left = table[(table["role"] != "select") | (table["fold"] != 1)]
        point = cut(rows_left, decision=DECISION)
        nobody = cut(table[table["role"] == "report"], decision=DECISION)
    assert point.cuts[1] is None
    assert (point.n, nobody.n) == (80, 0)
    assert "fold 1: decision sensitivity: 0 positives among 0 select patients" in caplog.text


def test_a_decision_needs_a_known_rule_and_an_endpoint_that_asks() -> None:
    with pytest.raises(ConfigError, match="'sensitive'"):
        evaluate(binary(), Binary(), decision={"rule": "sensitive"}, resamples=20)
    with pytest.raises(ConfigError, match="sensitivity"):
        evaluate(survival(), Cox(), decision=DECISION)


def test_a_better_model_gains_on_its_baseline() -> None:
    table = binary(patients=300, folds=5, noise=0.2)
    worse = table.assign(p_1=np.random.default_rng(0).random(len(table)))
    report = evaluate(table, Binary(), baseline=worse.sample(frac=1, random_state=0), resamples=200)
    baseline = baseline_of(report)
    gain, low, _ = triple(baseline.difference["auroc"])
    assert gain == pytest.approx(value_of(report.metrics["auroc"]) - value_of(baseline.metrics["auroc"]))
    assert low > 0
    assert baseline.verdict("auroc").startswith("The model beats mean pooling, linear: difference in AUROC 0.")
    assert baseline.verdict("auroc").endswith("for the method, trained anew.")
    assert baseline.name == "mean pooling, linear"
    assert baseline.metrics == evaluate(worse, Binary(), resamples=200).metrics


def test_models_of_one_hold_out_are_compared_as_trained() -> None:
    table = binary(patients=200, folds=1, noise=0.2)
    worse = table.assign(p_1=np.random.default_rng(0).random(len(table)))
    baseline = baseline_of(evaluate(table, Binary(), baseline=worse, resamples=50))
    assert baseline.difference["auroc"].second is None
    assert baseline.verdict("auroc").endswith("p < 0.001, for these trained models.")
    few = table.groupby("label").head(9)
    short = baseline_of(evaluate(few, Binary(), baseline=worse[worse["patient"].isin(few["patient"])], resamples=50))
    assert short.verdict("auroc") == (
        "The difference to mean pooling, linear is not estimable: too few for a verdict: 18 patients, 9 positives, "
        "9 negatives, expected 20 patients, and 10 of each class or 10 events."
    )


def test_an_oracle_is_used_as_logits() -> None:
    table = binary()
    label = table.drop_duplicates("patient").set_index("patient")["label"]
    oracle = pd.DataFrame({"patient": label.index, "oracle": 100.0 * label.to_numpy() - 1000})
    assert value_of(oracle_of(evaluate(table, Binary(), oracle=oracle, resamples=20))["auroc"]) == 1


def test_what_nobody_defines_is_null() -> None:
    report = evaluate(binary().assign(label=0), Binary(), resamples=20)
    auroc = report.metrics["auroc"]
    assert (auroc.value, auroc.low, auroc.high, auroc.folds) == (None, None, None, (None,) * 3)


def test_a_single_fold_is_a_hold_out() -> None:
    table = binary()
    report = evaluate(table[table["fold"] == 0], Binary(), decision={"rule": "youden"}, resamples=20)
    assert (report.folds, report.patients["n"], decision_of(report).n) == (1, 40, 40)


def test_tables_that_cannot_be_evaluated_are_refused() -> None:
    with pytest.raises(PredictionsError, match="baseline: no column 'role'"):
        evaluate(binary(), Binary(), baseline=binary().drop(columns="role"), resamples=20)
    with pytest.raises(PredictionsError, match="outside"):
        evaluate(binary().assign(p_1=1.5), Binary(), resamples=20)
    with pytest.raises(CohortError, match="maybe"):
        evaluate(binary().assign(label="maybe"), Binary(), resamples=20)


def test_a_table_read_from_a_file_gives_the_same_report(tmp_path: Path) -> None:
    table = binary()
    table.to_csv(tmp_path / "predictions.csv", index=False)
    read = pd.read_csv(tmp_path / "predictions.csv", dtype={"patient": str}, float_precision="round_trip")
    assert evaluate(read, Binary(), resamples=20) == evaluate(table, Binary(), resamples=20)
