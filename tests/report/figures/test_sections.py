"""Figures of what a report's sections hold: the picture has the report's numbers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from mil.report.figures import draw_learning
from mil.report.figures.agreement_plot import regression
from mil.report.figures.calibration_plot import calibration, calibration_horizon
from mil.report.figures.confusion import confusion
from mil.report.figures.decision_curve import decision_curve
from mil.report.figures.forest_plot import subgroups
from mil.report.figures.learning_curve import learning_curve
from mil.report.sections.calibration import Calibration
from mil.report.sections.operating_points import OperatingPoints
from mil.report.sections.subgroups import Subgroups
from mil.report.sections.utility import Utility

from .cases import CLASSES, evaluated


def test_the_smooth_calibration_curves_are_the_reports_before_and_after() -> None:
    evaluation, report = evaluated("binary")
    figure = calibration(evaluation, report)
    assert figure is not None
    section = report.section(Calibration)
    assert section is not None
    [question] = section.questions
    assert question.curve is not None
    assert question.calibrated is not None
    assert question.calibrated.curve is not None
    drawn = {str(line.get_label()): np.asarray(line.get_ydata()) for line in figure.axes[0].lines}
    np.testing.assert_allclose(drawn["model, 95% band"], np.asarray(question.curve.y, float))
    np.testing.assert_allclose(drawn["after platt"], np.asarray(question.calibrated.curve.y, float))
    bars = sum(abs(bar.get_height()) > 0 for bar in figure.axes[0].patches)  # type: ignore[attr-defined]
    assert bars > 10


def test_each_horizon_has_its_panel() -> None:
    evaluation, report = evaluated("survival")
    figure = calibration_horizon(evaluation, report)
    assert figure is not None
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title.split(",")[0] for title in titles] == ["risk at 1y", "risk at 5y"]


def test_net_benefits_are_the_reports() -> None:
    evaluation, report = evaluated("binary")
    figure = decision_curve(evaluation, report)
    assert figure is not None
    section = report.section(Utility)
    assert section is not None
    [curve] = section.questions
    assert curve.model is not None
    drawn = {str(line.get_label()): line for line in figure.axes[0].lines}
    np.testing.assert_allclose(np.asarray(drawn["model"].get_xdata()), curve.thresholds)
    np.testing.assert_allclose(np.asarray(drawn["model"].get_ydata()), np.asarray(curve.model.value, float))
    np.testing.assert_allclose(np.asarray(drawn["call everybody"].get_ydata()), np.asarray(curve.all, float))
    assert "clinical variables" not in drawn


def test_a_confusion_matrix_has_counts_and_shares_of_rows() -> None:
    evaluation, report = evaluated("multiclass")
    figure = confusion(evaluation, report)
    assert figure is not None
    section = report.section(OperatingPoints)
    assert section is not None
    assert section.decisions[0].confusion is not None
    rows = np.asarray(section.decisions[0].confusion.rows)
    expected = [f"{n}\n{n / sum(row):.0%}" for row in rows for n in row]
    assert [text.get_text() for text in figure.axes[0].texts] == expected
    assert len(figure.axes[0].get_xticks()) == len(CLASSES) + 1  # abstained


def test_each_label_has_its_matrix() -> None:
    figure = confusion(*evaluated("multilabel"))
    assert figure is not None
    assert [axes.get_title(loc="left").split(":")[0] for axes in figure.axes] == ["first", "second"]


def test_no_subgroup_is_left_out_of_the_forest() -> None:
    evaluation, report = evaluated("binary")
    figure = subgroups(evaluation, report)
    assert figure is not None
    said = [text.get_text() for text in figure.axes[0].texts]
    section = report.section(Subgroups)
    assert section is not None
    rows = [row for row in section.rows if row.variable != "all"]
    assert [row.level for row in rows if row.level[:5] not in {word[:5] for word in said}] == []
    assert said.count("not estimable") == sum(row.value.value is None for row in rows) > 0


def test_limits_of_agreement_are_those_of_bland_and_altman() -> None:
    evaluation, report = evaluated("regression")
    figure = regression(evaluation, report)
    assert figure is not None
    apart = evaluation.reported["value"] - evaluation.reported["score"]
    said = [text.get_text().replace("−", "-").split("\n")[1] for text in figure.axes[1].texts]
    limits = (apart.mean(), apart.mean() + 1.96 * apart.std(), apart.mean() - 1.96 * apart.std())
    assert said == [f"{limit:.3g}" for limit in limits]


def test_the_epoch_of_the_lowest_select_loss_is_marked(tmp_path: Path) -> None:
    # the logger writes training and validation into rows of their own
    train = pd.DataFrame({"epoch": range(4), "step": range(4), "train_loss": [0.9, 0.7, 0.5, 0.3]})
    select = pd.DataFrame(
        {"epoch": range(4), "select_loss": [0.8, 0.5, 0.6, 0.7], "select_auroc": [0.5, 0.7, 0.8, 0.8]}
    )
    pd.concat([train, select]).to_csv(tmp_path / "metrics.csv", index=False)
    figure = learning_curve(tmp_path / "metrics.csv", "auroc")
    assert figure is not None
    losses, scores = figure.axes
    assert _dots(figure) == [(1, 0.5), (1, 0.7)]
    assert scores.get_ylabel() == "AUROC, select patients"
    np.testing.assert_allclose(np.asarray(losses.lines[0].get_ydata()), [0.9, 0.7, 0.5, 0.3])
    written = draw_learning({"0": tmp_path / "metrics.csv", "1": tmp_path / "metrics.csv"}, "auroc", tmp_path)
    assert [path.name for path in written] == ["learning_curve.png", "learning_curve.svg"]


def test_a_log_without_epochs_draws_nothing(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,train_loss\n")
    assert draw_learning(tmp_path / "metrics.csv", "auroc", tmp_path / "figures") == []
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("of", [calibration, calibration_horizon, decision_curve, confusion, subgroups])
def test_a_section_that_is_absent_has_no_figure(of: object) -> None:
    evaluation, report = evaluated("binary")
    bare = report.model_copy(update={"sections": {}})
    assert callable(of)
    assert of(evaluation, bare) is None


def _dots(figure: Figure) -> list[tuple[float, float]]:
    lines = [line for axes in figure.axes for line in axes.lines if line.get_marker() == "o"]
    return [(float(np.ravel(line.get_xdata())[0]), float(np.ravel(line.get_ydata())[0])) for line in lines]
