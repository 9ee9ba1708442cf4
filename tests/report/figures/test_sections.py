"""Figures of what a report's sections hold: the picture has the report's numbers."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mil.report.figures import Course, draw_learning
from mil.report.figures.confusion import within_one
from mil.report.figures.learning_curve import learning_curve

from .cases import CLASSES, evaluated


def drawn(name: str, key: str, figure: str) -> Figure:
    """Return a figure of a section of a case's report."""
    evaluation, report = evaluated(name)
    [result] = [each.figure for each in report.sections[key].drawings(evaluation, report) if each.name == figure]
    assert result is not None
    return result


def band_heights(figure: Figure) -> list[float]:
    """Return the heights of the corners of the first band of a figure."""
    band = next(each for each in figure.axes[0].collections if isinstance(each, PolyCollection))
    return [float(y) for _, y in np.asarray(band.get_paths()[0].vertices)]


def test_the_smooth_calibration_curves_are_the_reports_before_and_after() -> None:
    figure = drawn("binary", "calibration", "calibration")
    question = evaluated("binary")[1].calibration.questions[0]
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in figure.axes[0].lines}
    np.testing.assert_allclose(lines["model, 95% band"], question.curve.y)
    np.testing.assert_allclose(lines["after platt"], question.calibrated.curve.y)
    assert set(question.curve.low) | set(question.curve.high) <= set(band_heights(figure))
    bars = sum(isinstance(bar, Rectangle) and abs(bar.get_height()) > 0 for bar in figure.axes[0].patches)
    assert bars > 10


def test_each_horizon_has_its_panel() -> None:
    figure = drawn("survival", "survival", "calibration_horizon")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title.splitlines()[0].split(",")[0] for title in titles] == ["risk at 1y", "risk at 5y"]


def test_net_benefits_are_the_reports() -> None:
    figure, curve = drawn("binary", "utility", "decision_curve"), evaluated("binary")[1].utility.questions[0]
    lines = {str(line.get_label()): line for line in figure.axes[0].lines}
    np.testing.assert_allclose(np.asarray(lines["model"].get_xdata()), curve.thresholds)
    np.testing.assert_allclose(np.asarray(lines["model"].get_ydata()), curve.model.value)
    np.testing.assert_allclose(np.asarray(lines["call everybody"].get_ydata()), curve.all)
    assert "clinical variables" not in lines
    assert set(curve.model.low) | set(curve.model.high) <= set(band_heights(figure))


def test_a_confusion_matrix_has_counts_and_shares_of_rows() -> None:
    figure = drawn("multiclass", "operating_points", "confusion")
    matrix = evaluated("multiclass")[1].operating_points.decisions[0].confusion
    expected = [f"{n}\n{n / sum(row):.0%}" for row in matrix.rows for n in row]
    assert [text.get_text() for text in figure.axes[0].texts] == expected
    assert len(figure.axes[0].get_xticks()) == len(CLASSES) + 1  # abstained


def test_each_label_has_its_matrix() -> None:
    figure = drawn("multilabel", "operating_points", "confusion")
    assert [axes.get_title(loc="left").split(":")[0] for axes in figure.axes] == ["first", "second"]


def test_grades_have_a_matrix_of_all_grades_whatever_is_decided() -> None:
    figure = drawn("ordinal", "discrimination", "class_confusion")
    matrix = evaluated("ordinal")[1].discrimination.confusion
    near = sum(count for row, counts in enumerate(matrix.rows) for at, count in enumerate(counts) if abs(row - at) < 2)
    assert within_one(matrix) == near / 120
    title = f"Called by median grade; within one grade {near / 120:.0%}, 120 patients"
    assert figure.axes[0].get_title(loc="left") == title
    assert len(figure.axes[0].texts) == 16


def test_a_decision_by_the_likeliest_class_has_the_only_matrix() -> None:
    evaluation, report = evaluated("multiclass")
    names = [each.name for section in report.ordered_sections() for each in section.drawings(evaluation, report)]
    assert names.count("confusion") == 1
    assert "class_confusion" not in names


def test_no_subgroup_is_left_out_of_the_forest() -> None:
    figure = drawn("binary", "subgroups", "subgroups")
    texts = [text.get_text() for text in figure.axes[0].texts]
    rows = [row for row in evaluated("binary")[1].subgroups.rows if row.variable != "all"]
    assert [row.level for row in rows if row.level[:5] not in {text[:5] for text in texts}] == []
    assert texts.count("not estimable") == sum(row.value.value is None for row in rows) > 0


def test_limits_of_agreement_are_those_of_bland_and_altman() -> None:
    evaluation, _ = evaluated("regression")
    figure = drawn("regression", "discrimination", "regression")
    apart = evaluation.reported["value"] - evaluation.reported["score"]
    message = [text.get_text().replace("−", "-").split("\n")[1] for text in figure.axes[1].texts]
    limits = (apart.mean(), apart.mean() + 1.96 * apart.std(), apart.mean() - 1.96 * apart.std())
    assert message == [f"{limit:.3g}" for limit in limits]


def test_the_epoch_whose_weights_count_is_marked(tmp_path: Path) -> None:
    # the logger writes training and validation into rows of their own
    train = pd.DataFrame({"epoch": range(4), "step": range(4), "train_loss": [0.9, 0.7, 0.5, 0.3]})
    select = pd.DataFrame(
        {"epoch": range(4), "select_loss": [0.8, 0.5, 0.6, 0.7], "select_auroc": [0.5, 0.7, 0.8, 0.8]}
    )
    pd.concat([train, select]).to_csv(tmp_path / "metrics.csv", index=False)
    figure = learning_curve([Course(tmp_path / "metrics.csv", best=[2])], "auroc")
    assert figure is not None
    losses, scores = figure.axes
    assert _dots(figure) == [(2, 0.5), (2, 0.7)]
    assert np.asarray(losses.lines[0].get_xdata()).tolist() == [1, 2, 3, 4]
    assert scores.get_ylabel() == "AUROC, select patients"
    np.testing.assert_allclose(np.asarray(losses.lines[0].get_ydata()), [0.9, 0.7, 0.5, 0.3])
    written = draw_learning([Course(tmp_path / "metrics.csv")] * 2, "auroc", tmp_path)
    assert [path.name for path in written] == ["learning_curve.png", "learning_curve.svg"]


def test_epochs_of_a_log_that_counts_from_1_are_drawn_as_they_are(tmp_path: Path) -> None:
    table = pd.DataFrame({"epoch": [1, 2], "train_loss": [0.9, 0.7], "select_loss": [0.5, 0.4]})
    table.to_csv(tmp_path / "metrics.csv", index=False)
    figure = learning_curve([Course(tmp_path / "metrics.csv")], "auroc")
    assert figure is not None
    assert np.asarray(figure.axes[0].lines[0].get_xdata()).tolist() == [1, 2]


def test_a_log_without_epochs_draws_nothing(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,train_loss\n")
    assert draw_learning([Course(tmp_path / "metrics.csv")], "auroc", tmp_path / "figures") == []
    assert not (tmp_path / "figures").exists()


def _dots(figure: Figure) -> list[tuple[float, float]]:
    lines = [line for axes in figure.axes for line in axes.lines if line.get_marker() == "o"]
    return [(float(np.ravel(line.get_xdata())[0]), float(np.ravel(line.get_ydata())[0])) for line in lines]
