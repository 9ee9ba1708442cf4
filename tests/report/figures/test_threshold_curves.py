"""ROC and precision-recall curves against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from mil.endpoints.classification import Binary, Multiclass
from mil.report.assemble import evaluate
from mil.report.figures import threshold_curves
from mil.report.figures.precision_recall import precision_recall
from mil.report.figures.roc import MARKERS, roc
from mil.report.figures.threshold_curves import GRID, PRECISION_RECALL, ROC, answered
from tests.report.tables import binary, multiclass, refitted

from .cases import evaluated


def test_roc_curves_are_scikit_learns_and_their_area_the_reported_one() -> None:
    evaluation, report = evaluated("binary")
    folds = answered(evaluation, evaluation.questions[0])
    result = threshold_curves.curves(folds, ROC)
    assert result is not None
    assert result.area == pytest.approx(report.metrics["auroc"].value, abs=1e-12)
    assert (result.low <= result.high).all()
    assert (result.n, result.positives) == (120, report.patients["1"])
    for fold, heights in zip(folds, result.folds, strict=True):
        false, true, _ = roc_curve(fold.target, fold.logits[:, 0])
        np.testing.assert_allclose(heights, np.interp(GRID, false, true))


def test_precision_at_a_recall_is_that_of_the_first_cut_that_reaches_it() -> None:
    evaluation = refitted(binary().round({"p_1": 1}), Binary())  # many ties
    folds = answered(evaluation, evaluation.questions[0])
    result = threshold_curves.curves(folds, PRECISION_RECALL)
    assert result is not None
    areas = []
    for fold, heights in zip(folds, result.folds, strict=True):
        score, truth = fold.logits[:, 0].numpy(), fold.target.numpy()
        precision, recall, _ = precision_recall_curve(truth, score)
        rising = list(zip(recall[:-1][::-1], precision[:-1][::-1], strict=True))  # from the highest cut down
        expected = [next(p for r, p in rising if r > 0 and r >= at - 1e-12) for at in GRID]
        np.testing.assert_allclose(heights[1:], expected[1:])
        areas.append(average_precision_score(truth, score))
    assert result.area == pytest.approx(np.mean(areas), abs=1e-12)


def test_patients_whose_answer_is_not_known_have_no_part() -> None:
    evaluation, _ = evaluated("multilabel")
    first, second = (answered(evaluation, question) for question in evaluation.questions)
    assert sum(len(fold.target) for fold in first) == 120
    assert sum(len(fold.target) for fold in second) == 96


def test_a_fold_with_one_answer_draws_no_curve() -> None:
    table = binary()
    evaluation = refitted(table.assign(label=table["label"].where(table["fold"] > 0, 0)), Binary())
    folds = answered(evaluation, evaluation.questions[0])
    result = threshold_curves.curves(folds, ROC)
    assert result is not None
    assert len(result.folds) == 2
    assert threshold_curves.curves(folds[:1], ROC) is None


def test_a_roc_figure_says_auroc_interval_positives_folds_and_marks_the_frozen_cut() -> None:
    evaluation, report = evaluated("binary")
    figure = roc(evaluation, report)
    assert figure is not None
    (axes,) = figure.axes
    metric, positives = report.metrics["auroc"], report.patients["1"]
    numbers = f"AUROC {metric.value:.3f} ({metric.low:.3f}–{metric.high:.3f})"
    assert axes.get_title(loc="left") == f"{numbers}, 120 patients, {positives} are 1, 3 folds"
    point = report.operating_points.decisions[0]
    (diamond,) = [line for line in axes.lines if line.get_marker() == "D"]
    (at,) = point.at_cuts
    assert diamond.get_xdata() == pytest.approx([1 - at.specificity.value])
    assert diamond.get_ydata() == pytest.approx([at.sensitivity.value])
    assert len(axes.lines) == 1 + 3 + 1 + 1  # chance, folds, mean, cut


@pytest.mark.parametrize("rule", ["two_cuts", "argmax", "sensitivity"])
def test_each_frozen_cut_lies_on_the_curve_of_its_question(rule: str) -> None:
    options = {
        "two_cuts": {"low": 0.2, "high": 0.6},
        "argmax": {"abstain_below": 0.7},
        "sensitivity": {"at_least": 0.9},
    }
    table = binary(patients=300, noise=0.5).query("fold == 0")
    evaluation = refitted(table, Binary(), {"decision": {"rule": rule, **options[rule]}, "calibration": "platt"})
    figure = roc(evaluation, evaluate(evaluation))
    assert figure is not None
    drawn = [line for line in figure.axes[0].lines if line.get_marker() in MARKERS.values()]
    assert [line.get_label() for line in drawn] == [
        f"frozen {name}" for name in (["cut"] if rule == "sensitivity" else ["lower cut", "upper cut"])
    ]
    reported = table[table["role"] == "report"]
    false, true, _ = roc_curve(reported["label"], reported["p_1"], drop_intermediate=False)
    for line in drawn:
        (x,), (y,) = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        assert 0 < y < 1
        assert np.hypot(false - x, true - y).min() < 1e-12, "no cut of these scores gives this point"


def test_a_decision_about_several_classes_together_has_its_own_curve() -> None:
    table = multiclass(classes=("a", "b", "c"), patients=120)
    rule = {"rule": "sensitivity", "at_least": 0.9, "positive": ["b", "c"]}
    evaluation = refitted(table.query("fold == 0"), Multiclass(classes=("a", "b", "c")), {"decision": rule})
    figure = roc(evaluation, evaluate(evaluation))
    assert figure is not None
    curves = {str(line.get_label()).partition(":")[0]: line for line in figure.axes[0].lines}
    (x,), (y,) = (np.asarray(values) for values in curves["frozen cut"].get_data())
    reported = table[(table["fold"] == 0) & (table["role"] == "report")]
    false, true, _ = roc_curve(reported["label"] != "a", reported["p_b"] + reported["p_c"], drop_intermediate=False)
    assert np.hypot(false - x, true - y).min() < 1e-12
    assert len(np.asarray(curves["b or c"].get_xdata())) == len(GRID) + 1
    assert curves["b or c"].get_color() == curves["frozen cut"].get_color()


def test_each_question_has_its_curve_with_dashes_of_its_own() -> None:
    evaluation, report = evaluated("ordinal")
    figure = roc(evaluation, report)
    assert figure is not None
    drawn = figure.axes[0].lines[1:]
    assert len(drawn) == 3
    assert len({(str(line.get_color()), str(line.get_linestyle())) for line in drawn}) == 3


def test_a_precision_recall_figure_has_the_prevalence_line() -> None:
    evaluation, report = evaluated("binary")
    figure = precision_recall(evaluation, report)
    assert figure is not None
    heights = [line.get_ydata() for line in figure.axes[0].lines if len(np.asarray(line.get_ydata())) == 2]
    assert heights == [pytest.approx([report.patients["1"] / 120] * 2)]
