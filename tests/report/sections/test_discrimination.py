"""The section on discrimination against scikit-learn, fold by fold, and against the endpoints' own scores."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn import metrics as sklearn

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.multilabel import Multilabel
from mil.endpoints.ordinal import Ordinal
from mil.endpoints.regression import Regression
from mil.endpoints.survival import Cox
from mil.report.evaluation import Evaluation
from mil.report.metric_intervals import metric_intervals
from mil.report.sections.agreement import bland_altman
from mil.report.sections.discrimination import Discrimination
from tests.estimates import holds, triple, value_of
from tests.report import tables
from tests.report.tables import refitted

GRADES = ("a", "b", "c")


def evaluation(table: pd.DataFrame, endpoint: Endpoint, resamples: int = 50) -> Evaluation:
    return refitted(table, endpoint, resamples=resamples)


def computed(table: pd.DataFrame, endpoint: Endpoint) -> Discrimination:
    section = Discrimination.compute(evaluation(table, endpoint))
    assert section is not None
    return section


def labelled(seed: int = 0, patients: int = 90) -> pd.DataFrame:
    """Two labels, a third of the second one not known."""
    table = tables.binary(seed, patients)
    rng = np.random.default_rng(seed)
    second = pd.Series(rng.choice(["0", "1", ""], patients), index=tables.names(patients))
    noise = rng.random(len(table))
    return table.assign(second=table["patient"].map(second), p_label=table.pop("p_1"), p_second=noise)


def valued(seed: int = 0, patients: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    true = rng.normal(size=patients)
    answered = {"patient": tables.names(patients), "score": true}
    parts = []
    for fold, role in tables.roles(rng, patients, 3):
        value = true + rng.normal(0.3, 0.5, patients)
        parts.append(pd.DataFrame({**answered, "fold": fold, "role": role, "value": value}))
    return pd.concat(parts, ignore_index=True)


def by_fold(table: pd.DataFrame, metric: Callable[[pd.DataFrame], float]) -> float:
    report = table[table["role"] == "report"]
    return float(np.mean([metric(rows) for _, rows in report.groupby("fold")]))


def pooled_ranks(table: pd.DataFrame, label: str = "label", score: str = "p_1") -> float:
    """Average precision by scikit-learn, of percentile ranks within folds."""
    report = table[table["role"] == "report"]
    ranks = report.groupby("fold")[score].rank(pct=True)
    return float(sklearn.average_precision_score(report[label], ranks))


def test_a_binary_question_has_areas_and_the_prevalence() -> None:
    table = tables.binary()
    section = computed(table, Binary())
    (question,) = section.questions
    report = table[table["role"] == "report"]
    assert (question.name, question.n, question.positives) == ("1", len(report), report["label"].sum())
    expected = by_fold(table, lambda rows: sklearn.roc_auc_score(rows["label"], rows["p_1"]))
    assert question.auroc.value == pytest.approx(expected, abs=1e-12)
    assert question.auroc.method == "DeLong, on the logit scale; mean of 3 folds"
    assert question.auroc.second is not None
    assert question.auroc.second.method == "for the method, trained anew: corrected resampled t over 3 folds"
    assert question.auprc.value == pytest.approx(pooled_ranks(table), abs=1e-12)
    assert "percentile ranks within each of 3 folds, pooled" in str(question.auprc.method)
    alone = computed(tables.binary(folds=1), Binary()).questions[0]
    rows = tables.binary(folds=1)
    assert value_of(alone.auprc) == pytest.approx(sklearn.average_precision_score(rows["label"], rows["p_1"]))
    assert alone.auroc.second is None
    assert question.prevalence == report["label"].mean()
    for estimate in (question.auroc, question.auprc, alone.auroc, alone.auprc):
        value, low, high = triple(estimate)
        assert low < value < high
        assert estimate.counts["positives"] == report["label"].sum()
    assert section.called == "probability above 0.5"
    assert section.accuracy is not None
    assert section.accuracy.counts["successes"] == (report["label"] == (report["p_1"] > 0.5)).sum()
    assert section.confusion is None
    assert section.macro_auroc is None


def test_classes_are_counted_as_scikit_learn_counts_them() -> None:
    table = tables.multiclass()
    section = computed(table, Multiclass("label", GRADES))
    report = table[table["role"] == "report"].sort_values("patient")
    calls = report[[f"p_{name}" for name in GRADES]].to_numpy().argmax(1)
    calls = np.array(GRADES)[calls]
    assert section.confusion is not None
    assert [list(row) for row in section.confusion.rows] == sklearn.confusion_matrix(report["label"], calls).tolist()
    assert section.confusion.classes == section.confusion.calls == GRADES
    assert value_of(section.accuracy) == sklearn.accuracy_score(report["label"], calls)
    recall = sklearn.recall_score(report["label"], calls, average=None)
    precision = sklearn.precision_score(report["label"], calls, average=None)
    assert [question.recall.value for question in section.classes] == recall.tolist()
    assert [question.precision.value for question in section.classes] == precision.tolist()
    assert [question.n for question in section.classes] == [question.positives for question in section.questions]
    mean = np.mean([value_of(question.auroc) for question in section.questions])
    assert value_of(section.macro_auroc) == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize("endpoint", [Binary("label", ("0", "1")), Multiclass("label", GRADES)])
def test_means_over_classes_are_the_endpoints_own(endpoint: Binary | Multiclass) -> None:
    table = tables.binary() if isinstance(endpoint, Binary) else tables.multiclass()
    section, evaluated = computed(table, endpoint), evaluation(table, endpoint)
    for name, interval in metric_intervals(evaluated).items():
        ours = section.questions[0].auroc if name == "auroc" else getattr(section, name)
        assert triple(ours) == pytest.approx(triple(interval), abs=1e-12)


@pytest.mark.parametrize("method", ["cumulative", "corn"])
def test_grades_are_called_by_their_median_as_the_endpoint_does(method: str) -> None:
    table, endpoint = tables.multiclass(), Ordinal("label", GRADES, method)
    section, evaluated = computed(table, endpoint), evaluation(table, endpoint)
    scored = metric_intervals(evaluated)
    assert [question.name for question in section.questions] == [">= b", ">= c"]
    pairs = {
        "qwk": section.quadratic_kappa,
        "macro_auroc": section.macro_auroc,
        "auroc_from_b": section.questions[0].auroc,
        "auroc_from_c": section.questions[1].auroc,
    }
    for name, ours in pairs.items():
        assert triple(ours) == pytest.approx(triple(scored[name]), abs=1e-12)
    assert section.called == "median grade"
    shares = np.array([[0.4, 0.3, 0.3], [0.2, 0.2, 0.6], [0.6, 0.2, 0.2]])
    assert endpoint.call_classes(shares).tolist() == [1, 2, 0]
    assert Multiclass("label", GRADES).call_classes(shares).tolist() == [0, 2, 0]


def test_a_label_is_asked_of_those_of_whom_it_is_known() -> None:
    table = labelled()
    section = computed(table, Multilabel(("label", "second")))
    first, second = section.questions
    answered = table[(table["second"] != "") & (table["role"] == "report")]
    assert (first.n, second.n) == (90, len(answered))
    expected = by_fold(
        table[table["second"] != ""], lambda rows: sklearn.roc_auc_score(rows["second"] == "1", rows["p_second"])
    )
    assert second.auroc.value == pytest.approx(expected, abs=1e-12)
    mean = (value_of(first.auroc) + value_of(second.auroc)) / 2
    assert value_of(section.macro_auroc) == pytest.approx(mean, abs=1e-12)
    assert section.called is None


def test_what_report_patients_do_not_define_has_a_reason() -> None:
    table = tables.binary()
    table = table[(table["role"] != "report") | (table["label"] == 0)]
    section = computed(table, Binary())
    (question,) = section.questions
    for entry in (question.auroc, question.auprc, section.balanced_accuracy):
        assert entry is not None
        assert entry.value is entry.low is entry.high is None
        assert str(entry.reason).startswith("no fold has")
    assert (question.prevalence, question.positives) == (0, 0)


def test_only_report_rows_count() -> None:
    table = tables.multiclass()
    endpoint = Multiclass("label", GRADES)
    changed = table.copy()
    others = changed["role"] != "report"
    changed.loc[others, ["p_a", "p_b", "p_c"]] = [0.2, 0.3, 0.5]
    assert computed(changed, endpoint) == computed(table, endpoint)


def test_survival_has_a_section_of_its_own() -> None:
    assert Discrimination.compute(evaluation(tables.survival(), Cox())) is None


def test_numbers_have_agreement_and_limits() -> None:
    table = valued()
    section = computed(table, Regression())
    report = table[table["role"] == "report"]
    expected = by_fold(table, lambda rows: sklearn.r2_score(rows["score"], rows["value"]))
    assert np.mean(np.array(section.metrics["r2"].folds, np.float64)) == pytest.approx(expected, abs=1e-12)
    pooled = sklearn.r2_score(report["score"], report["value"])
    assert section.metrics["r2"].value == pytest.approx(pooled, abs=1e-12)
    assert set(section.metrics) == {"r2", "pearson", "concordance", "mae"}
    gap, limits = report["value"] - report["score"], section.bland_altman
    assert limits is not None
    assert limits.bias.value == pytest.approx(gap.mean())
    assert limits.upper.value == pytest.approx(gap.mean() + 1.959964 * gap.std(), abs=1e-6)
    assert limits.lower.value == pytest.approx(gap.mean() - 1.959964 * gap.std(), abs=1e-6)
    value, low, high = triple(limits.upper)
    assert low < value < high
    assert bland_altman(np.zeros(1)).bias.value is None


def sampled(rng: np.random.Generator, patients: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    positive = np.arange(patients) < 0.3 * patients
    return norm.cdf(rng.normal(size=patients) + 1.2 * positive), positive


@pytest.mark.slow
def test_intervals_of_areas_cover_the_truth() -> None:
    rng = np.random.default_rng(0)
    score, positive = sampled(rng, 400_000)
    truth = {
        "auroc": sklearn.roc_auc_score(positive, score),
        "auprc": sklearn.average_precision_score(positive, score),
    }
    inside: dict[str, list[bool]] = {name: [] for name in truth}
    for seed in range(400):
        score, positive = sampled(rng, 200)
        table = pd.DataFrame({"patient": tables.names(200), "fold": 0, "role": "report", "label": positive.astype(int)})
        section = Discrimination.compute(refitted(table.assign(p_1=score), Binary(), resamples=400, seed=seed))
        assert section is not None
        for name, value in truth.items():
            inside[name].append(holds(getattr(section.questions[0], name), value))
    covered = {name: float(np.mean(hits)) for name, hits in inside.items()}
    assert min(covered.values()) >= 0.92, covered
    assert max(covered.values()) <= 0.98, covered
