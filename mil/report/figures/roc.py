"""ROC curves: one a fold and their vertical average, or one a question."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.report.evaluation import Evaluation
from mil.report.figures.style import COLOURS, GREY, canvas, compared, count_folds, interval, look, short, side_legend
from mil.report.figures.threshold_curves import GRID, ROC, Curves, answered, curves
from mil.report.schema import Report
from mil.report.sections.operating_points import OperatingPoints
from mil.stats.bootstrap import Floats
from mil.stats.estimate import format_number


def roc(evaluation: Evaluation, report: Report) -> Figure | None:
    """Draw the ROC of each question, with its frozen operating point where there is one; None without questions."""
    if not evaluation.questions:
        return None
    figure = canvas(4.1)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="chance")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", anchor="W")
    axes.set(xlabel="False positive rate (1 − specificity)", ylabel="True positive rate (sensitivity)")
    by_question = [curves(answered(evaluation, question), ROC, evaluation.seed) for question in evaluation.questions]
    if len(by_question) == 1:
        draw_question(axes, by_question[0])
    for number, (question, drawn) in enumerate(zip(evaluation.questions, by_question, strict=True)):
        if drawn is not None and len(by_question) > 1:
            axes.plot(*_points(drawn.mean), label=f"{short(question.name, 15)}: {_area(drawn)}", **look(number))
    _operating_points(axes, evaluation, report)
    axes.set_title(_title(evaluation, report, by_question[0]))
    side_legend(axes, _notes(evaluation, report))
    return figure


def draw_question(axes: Axes, question: Curves | None) -> None:
    """Draw a thin line for each fold, and their mean with its band; nothing where no fold has both answers."""
    if question is None:
        return
    for number, rates in enumerate(question.folds if len(question.folds) > 1 else ()):
        name = "single folds" if number == 0 else None
        axes.plot(*_points(rates), color=GREY, linewidth=0.6, alpha=0.7, label=name)
    axes.fill_between(
        GRID, question.low, question.high, color=COLOURS[0], alpha=0.18, linewidth=0, label="95% band of the mean"
    )
    axes.plot(*_points(question.mean), color=COLOURS[0], label="mean of folds" if len(question.folds) > 1 else "model")


def _points(rates: Floats) -> tuple[Floats, Floats]:
    return np.append(0, GRID), np.append(0, rates)


def _area(question: Curves) -> str:
    return f"{format_number(question.area)} ({question.positives}/{question.n})"


def _operating_points(axes: Axes, evaluation: Evaluation, report: Report) -> None:
    """Draw a diamond for each decision, in the colour of its question."""
    names, label = [question.name for question in evaluation.questions], "frozen cut"
    section = report.section(OperatingPoints)
    for point in () if section is None else section.decisions:
        if point.sensitivity is None or point.specificity is None:
            continue
        sensitivity, specificity = point.sensitivity.value, point.specificity.value
        if sensitivity is None or specificity is None:
            continue
        several = len(names) > 1 and point.name in names
        colour = look(names.index(point.name))["color"] if several else "black"
        axes.plot(1 - specificity, sensitivity, "D", color=colour, markeredgecolor="black", zorder=5, label=label)
        label = "_again"


def _title(evaluation: Evaluation, report: Report, first: Curves | None) -> str:
    several = len(evaluation.questions) > 1
    words = f"{'Mean AUROC' if several else 'AUROC'} {interval(report.metrics.get(_metric(report)))}"
    alone = "" if several or first is None else f", {first.positives} are {short(evaluation.questions[0].name)}"
    return f"{words}, {report.patients['n']} patients{alone}, {count_folds(report)}"


def _notes(evaluation: Evaluation, report: Report) -> list[str]:
    key = ["each against the rest:", "area (positives/patients)"] if len(evaluation.questions) > 1 else []
    return [*compared(report, _metric(report)), *key]


def _metric(report: Report) -> str:
    return "auroc" if "auroc" in report.metrics else "macro_auroc"
