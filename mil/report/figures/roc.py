"""ROC curves: one a fold and their vertical average, or one a question."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.endpoints.question import Question
from mil.fitted.decision_rules import plans
from mil.report.evaluation import Evaluation
from mil.report.figures.style import COLOURS, GREY, canvas, compared, count_folds, interval, look, short, side_legend
from mil.report.figures.threshold_curves import GRID, ROC, Curves, answered, curves
from mil.report.schema import Report
from mil.report.sections.operating_point import CUT, LOWER, UPPER
from mil.report.sections.operating_points import OperatingPoints
from mil.stats.bootstrap import Floats
from mil.stats.estimate import format_number

MARKERS = {CUT: "D", LOWER: "v", UPPER: "^"}


def roc(evaluation: Evaluation, report: Report) -> Figure | None:
    """Draw the ROC of each question, with its frozen operating point where there is one; None without questions."""
    if not evaluation.questions:
        return None
    figure = canvas(4.1)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="chance")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", anchor="W")
    axes.set(xlabel="False positive rate (1 − specificity)", ylabel="True positive rate (sensitivity)")
    questions = _drawn_questions(evaluation)
    by_question = [curves(answered(evaluation, question), ROC, evaluation.seed) for question in questions]
    if len(by_question) == 1:
        draw_question(axes, by_question[0])
    for number, (question, drawn) in enumerate(zip(questions, by_question, strict=True)):
        if drawn is not None and len(by_question) > 1:
            axes.plot(*_points(drawn.mean), label=f"{short(question.name, 15)}: {_area(drawn)}", **look(number))
    _operating_points(axes, [question.name for question in questions], report)
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


def _operating_points(axes: Axes, names: Sequence[str], report: Report) -> None:
    """Draw each cut of each decision in the colour of its question.

    Args:
        axes: With the curves of these questions.
        names: Of the questions whose curves are drawn; what has no curve has no point.
        report: With the section on decisions, or without.
    """
    section, labelled = report.section(OperatingPoints), set[str]()
    for point in () if section is None else section.decisions:
        for at in point.at_cuts if point.name in names else ():
            if at.sensitivity.value is None or at.specificity.value is None:
                continue
            colour = look(names.index(point.name))["color"] if len(names) > 1 else "black"
            label = f"frozen {at.name}" if at.name not in labelled else "_again"
            place = (1 - at.specificity.value, at.sensitivity.value)
            axes.plot(*place, MARKERS[at.name], color=colour, markeredgecolor="black", zorder=5, label=label)
            labelled.add(at.name)


def _drawn_questions(evaluation: Evaluation) -> list[Question]:
    """Return the endpoint's questions, and those that decisions ask of several classes together."""
    of_decisions = [plan.question for plan in plans(evaluation.tool.decision_of_single(), evaluation.endpoint)]
    by_name = {question.name: question for question in (*evaluation.questions, *of_decisions) if question is not None}
    return list(by_name.values())


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
